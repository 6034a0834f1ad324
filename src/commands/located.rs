//! A model whose files are known, and what its small files tell: all that jobs are checked against
//! before any weights are read.

use anyhow::{Context, Result};
use tch::{Device, Kind};

use crate::cli::Dtype;
use crate::config::model::DEFAULT_MODEL;
use crate::config::{DrawingJob, ModelJob};
use crate::device::{resolve_device, resolve_dtype};
use crate::error::usage;
use crate::io::hub::HubSettings;
use crate::io::model_files::{ModelFiles, ModelOptions};
use crate::progress::Reporter;
use crate::schedulers::{SchedulerConfig, SchedulerKind, new_scheduler};
use crate::sdxl::Pipeline;
use crate::sdxl::pipeline::vae_config;
use crate::sdxl::prompt::Tokenizers;
use crate::tokenizer::prompt_tokens::PromptTokens;

/// Subjects in one picture up to which the paper's method holds (App. D).
const MOST_SUBJECTS: usize = 4;

/// A model whose files are known.
pub struct LocatedModel {
    /// Its files.
    pub files: ModelFiles,
    /// The files of another VAE.
    pub vae: Option<ModelFiles>,
    /// Where it runs.
    pub device: Device,
    /// Its precision.
    pub kind: Kind,
    /// What the flags say.
    pub job: ModelJob,
    /// Its tokenizers.
    pub tokenizers: Tokenizers,
    scheduler_config: SchedulerConfig,
    /// Pixels that one latent is wide.
    scale_factor: i64,
    /// Width and height where none is named, in latents.
    sample_size: i64,
}

/// How a picture is drawn, with all that the model decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResolvedDrawing {
    /// Pixels.
    pub width: i64,
    /// Pixels.
    pub height: i64,
    /// The sampler.
    pub scheduler: SchedulerKind,
}

impl LocatedModel {
    /// Finds the model that `job` names and reads its small files.
    ///
    /// # Errors
    /// When there is no such model or device, or a small file is missing or damaged.
    pub fn locate(job: &ModelJob, quiet: bool) -> Result<Self> {
        let device = resolve_device(&job.device)?;
        let kind = resolve_dtype(dtype_name(job.dtype), device)?;
        let find = |name: &str, revision: Option<String>, variant: Option<String>| {
            let options = ModelOptions {
                model: name.to_owned(),
                variant,
                revision,
                offline: job.offline,
            };
            ModelFiles::locate_with(&options, &|| {
                let settings = HubSettings::from_env(options.offline)?;
                Ok(if quiet { settings.quiet() } else { settings })
            })
        };
        let name = job.model.as_deref().unwrap_or(DEFAULT_MODEL);
        let files = find(name, job.revision.clone(), job.variant.clone())?;
        let vae = match &job.vae {
            Some(name) => Some(find(name, None, None).context("--vae")?),
            None => None,
        };
        let pipeline = Pipeline::of(&files)?;
        Ok(Self {
            device,
            kind,
            job: job.clone(),
            tokenizers: Tokenizers::load(&files, pipeline)?,
            scheduler_config: pipeline.scheduler_config(&files)?,
            scale_factor: vae_config(vae.as_ref().unwrap_or(&files))?.scale_factor(),
            sample_size: pipeline.unet_config(&files)?.sample_size,
            files,
            vae,
        })
    }

    /// Fills in what the model decides: the size of a picture and the sampler.
    ///
    /// # Errors
    /// When the size or the number of steps does not suit the model.
    pub fn resolve(&self, drawing: &DrawingJob) -> Result<ResolvedDrawing> {
        let factor = self.scale_factor;
        let side = |flag: &str, pixels: Option<i64>| match pixels {
            None => Ok(self.sample_size * factor),
            Some(pixels) if pixels % factor == 0 => Ok(pixels),
            Some(pixels) => Err(usage(format!(
                "{flag}: found {pixels}, expected a multiple of {factor} for {}",
                self.files.name()
            ))),
        };
        let scheduler = match drawing.scheduler {
            Some(kind) => kind,
            None => self.scheduler_config.own_kind()?,
        };
        new_scheduler(scheduler, &self.scheduler_config, drawing.steps)?;
        Ok(ResolvedDrawing {
            width: side("--width", drawing.width)?,
            height: side("--height", drawing.height)?,
            scheduler,
        })
    }

    /// Refuses a prompt without one of the base words among the tokens that are read, and tells of a
    /// prompt whose end is cut off, of one that is read in several chunks, and of one with more
    /// subjects than the method is good for.
    ///
    /// # Errors
    /// Names prompt and word.
    pub fn check_prompt(
        &self,
        tokens: &PromptTokens,
        words: &[String],
        reporter: &Reporter,
    ) -> Result<()> {
        for word in words {
            tokens.word_positions(word)?;
        }
        if words.len() > MOST_SUBJECTS {
            reporter.warn(&format!(
                "the prompt \"{}\" has {} subjects; more than {MOST_SUBJECTS} are a limit of \
                 the method that the paper names (App. D): they may take each other's looks",
                tokens.prompt(),
                words.len()
            ));
        }
        if let Some(lost) = tokens.lost_text() {
            reporter.warn(&format!(
                "the model reads {} tokens of a prompt and will not see the end of this one: \
                 \"{}\"; --long-prompts has it read in chunks",
                self.tokenizers.model_max_length() - 2,
                lost.trim()
            ));
        }
        let chunks = tokens.chunk_texts();
        if chunks.len() > 1 {
            reporter.detail(&format!("chunks of a long prompt: {chunks:?}"));
        }
        Ok(())
    }

    /// Name of the precision, as `--dtype` has it.
    pub fn dtype(&self) -> &'static str {
        match self.kind {
            Kind::Half => "fp16",
            Kind::BFloat16 => "bf16",
            _ => "fp32",
        }
    }
}

/// The name that [`resolve_dtype`] knows.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Auto => "auto",
        Dtype::Fp32 => "fp32",
        Dtype::Fp16 => "fp16",
        Dtype::Bf16 => "bf16",
    }
}
