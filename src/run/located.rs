//! A model whose files are known, and what its small files tell: all that jobs are checked against
//! before any weights are read.

use std::cell::OnceCell;
use std::rc::Rc;

use anyhow::{Context, Result};
use tch::{Device, Kind};

use super::kernel_flags;
use crate::backbone::configs::ModelConfigs;
use crate::backbone::controlnet::{ControlNet, ModelSide};
use crate::backbone::prompt::Tokenizers;
use crate::backbone::{Backbone, LoadOptions, MemoryOptions, Pipeline};
use crate::config::model::DEFAULT_MODEL;
use crate::config::{DrawingJob, ModelJob};
use crate::error::usage;
use crate::io::hub::HubSettings;
use crate::io::ip_adapter;
use crate::io::lora::{self, LoraFacts};
use crate::io::model_files::{ModelFiles, ModelOptions};
use crate::method::base_set::BaseFacts;
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::unet::unet_2d_condition::UNet2DConditionConfig;
use crate::progress::Reporter;
use crate::schedulers::{SchedulerFile, SchedulerKind, new_scheduler};
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
    /// Its architecture.
    pub pipeline: Pipeline,
    scheduler_file: SchedulerFile,
    /// The VAE's config.
    pub vae_config: AutoencoderKlConfig,
    /// Side of the VAE's tiles in pixels, where it works in tiles.
    pub vae_tile_size: Option<i64>,
    /// Pixels that one latent is wide.
    pub scale_factor: i64,
    /// The U-Net's config.
    pub unet: UNet2DConditionConfig,
    /// The networks without their values, once they have been looked at.
    outline: OnceCell<Backbone>,
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
        let device = job.device.resolve()?;
        let kind = job.dtype.resolve(device);
        kernel_flags::check_flags(job, device)?;
        let find = |name: &str, revision: Option<String>, variant: Option<String>| {
            let options = ModelOptions {
                model: name.to_owned(),
                variant,
                revision,
                offline: job.offline,
            };
            find(&options, quiet)
        };
        let name = job.model.as_deref().unwrap_or(DEFAULT_MODEL);
        let mut files = find(name, job.revision.clone(), job.variant.clone())?;
        let loras = job
            .loras
            .iter()
            .map(|(path, scale)| (path.as_path(), *scale))
            .chain(job.tuned_lora.iter().map(|path| (path.as_path(), 1.0)));
        files.add_loras(&loras.collect::<Vec<_>>())?;
        let vae = match &job.vae {
            Some(name) => Some(find(name, None, None).context("--vae")?),
            None => None,
        };
        let configs = ModelConfigs::read(&files, vae.as_ref())?;
        let located = Self {
            device,
            kind,
            job: job.clone(),
            tokenizers: configs.tokenizers,
            pipeline: configs.pipeline,
            scheduler_file: configs.scheduler_file,
            vae_tile_size: vae_tile_size(job, &configs.vae)?,
            scale_factor: configs.vae.scale_factor(),
            unet: configs.unet,
            vae_config: configs.vae,
            files,
            vae,
            outline: OnceCell::new(),
        };
        located.check_attention(None)?;
        Ok(located)
    }

    /// Refuses networks that could not be loaded: damaged files, tensors that are missing or do not fit, LoRAs of another
    /// model. No values are read, and of what is still to be fetched nothing is known.
    ///
    /// # Errors
    /// As [`Backbone::load`] and, for the ControlNets `beside` the model, [`ControlNet::load`].
    pub fn check_networks<'a>(
        &self,
        beside: impl Iterator<Item = &'a Rc<ModelFiles>>,
    ) -> Result<()> {
        let outline = match self.outline.get() {
            Some(outline) => outline,
            None => {
                let vae = self.vae.as_ref().map(ModelFiles::outlined);
                let options = LoadOptions {
                    device: Device::Cpu,
                    kind: self.kind,
                    vae: vae.as_ref(),
                    memory: MemoryOptions::default(),
                };
                let outline = Backbone::load(&self.files.outlined(), &options, &mut |_| ())?;
                self.outline.get_or_init(|| outline)
            }
        };
        for files in beside {
            ControlNet::load(&files.outlined(), outline)?;
        }
        Ok(())
    }

    /// Where its networks go, and how.
    pub fn load_options(&self) -> LoadOptions<'_> {
        LoadOptions {
            device: self.device,
            kind: self.kind,
            vae: self.vae.as_ref(),
            memory: MemoryOptions {
                vae_tile_size: self.vae_tile_size,
                cpu_offload: self.job.cpu_offload,
            },
        }
    }

    /// What tells it from others: models with the same key are loaded once.
    pub fn key(&self) -> String {
        format!("{:?}", self.job)
    }

    /// Fills in what the model decides: the size of a picture and the sampler.
    ///
    /// # Errors
    /// When the size or the number of steps does not suit the model.
    pub fn resolve(&self, drawing: &DrawingJob) -> Result<ResolvedDrawing> {
        let factor = self.scale_factor;
        let side = |flag: &str, pixels: Option<i64>| match pixels {
            None => {
                let side = self.unet.sample_size;
                Ok(side.unwrap_or(self.pipeline.default_sample_size()) * factor)
            }
            Some(pixels) if pixels % factor == 0 => Ok(pixels),
            Some(pixels) => Err(usage(format!(
                "{flag}: found {pixels}, expected a multiple of {factor} for {}",
                self.files.name()
            ))),
        };
        let scheduler = match drawing.scheduler {
            Some(kind) => kind,
            None => self.scheduler_file.own_kind()?,
        };
        new_scheduler(scheduler, &self.scheduler_file, drawing.steps)?;
        Ok(ResolvedDrawing {
            width: side("--width", drawing.width)?,
            height: side("--height", drawing.height)?,
            scheduler,
        })
    }

    /// For each pass of the U-Net that a picture takes, the step that it belongs to, from 1.
    ///
    /// # Errors
    /// When the sampler does not suit the model.
    pub fn passes(&self, scheduler: SchedulerKind, steps: usize) -> Result<Vec<usize>> {
        let scheduler = new_scheduler(scheduler, &self.scheduler_file, steps)?;
        let passes = 0..scheduler.timesteps().len();
        Ok(passes.map(|pass| scheduler.step_of(pass)).collect())
    }

    /// Side of the tiles in which the VAE works on pictures of this size; `None` where it takes them
    /// whole.
    pub fn tiles_of(&self, width: i64, height: i64) -> Option<i64> {
        self.vae_tile_size.filter(|&tile| width.max(height) > tile)
    }

    /// Tells where tiling changes nothing, for pictures of this size.
    pub fn check_tiles(&self, width: i64, height: i64, reporter: &Reporter) {
        if let (Some(tile), None) = (self.vae_tile_size, self.tiles_of(width, height)) {
            reporter.warn(&format!(
                "--vae-tiling saves nothing here: a picture of {width} x {height} is no larger than \
                 one tile of {tile} pixels; --vae-tile-size makes tiles smaller"
            ));
        }
    }

    /// The LoRAs that the flags name.
    fn named_loras(&self) -> Vec<LoraFacts> {
        let mut loras = self.files.loras().facts();
        loras.truncate(self.job.loras.len());
        loras
    }

    /// CRC-32 of the LoRA files that the settings only name, in their order; `None` without any.
    pub fn lora_crc32(&self) -> Option<String> {
        lora::checksums(&self.named_loras())
    }

    /// Tells where other LoRAs are merged than when `what` was made.
    pub fn check_loras(&self, made_with: &BaseFacts, what: &str, reporter: &Reporter) {
        if let Some(warning) = made_with.other_loras(&self.named_loras(), what) {
            reporter.warn(&warning);
        }
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

    /// Tells of the end of base images' own prompt that `whose` is drawn from without it.
    ///
    /// # Errors
    /// When the prompt is absurdly long.
    pub fn check_base_prompt(&self, prompt: &str, whose: &str, reporter: &Reporter) -> Result<()> {
        let tokens = self.tokenizers.plain_tokens(prompt)?;
        if let Some(lost) = tokens.lost_text() {
            reporter.warn(&format!(
                "{whose} has the prompt of the base images, of which the model reads {} tokens here, whether or not \
                 they were drawn with --long-prompts, and not the end: \"{}\"",
                self.tokenizers.model_max_length() - 2,
                lost.trim()
            ));
        }
        Ok(())
    }

    /// The width of the text that the U-Net reads.
    pub fn text_width(&self) -> i64 {
        self.unet.cross_attention_dim
    }

    /// The files of `name`, a ControlNet or an adapter, of the model's variant where it has that.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find_beside(&self, name: &str, quiet: bool) -> Result<ModelFiles> {
        let options = ModelOptions {
            model: name.to_owned(),
            variant: self.job.variant.clone(),
            revision: None,
            offline: self.job.offline,
        };
        find(&options, quiet)
    }

    /// Which of the adapters in a repository was made for this kind of model.
    pub fn ip_adapter_layout(&self) -> ip_adapter::IpAdapterLayout {
        match self.pipeline {
            Pipeline::StableDiffusionXl => ip_adapter::SDXL,
            Pipeline::StableDiffusion => ip_adapter::STABLE_DIFFUSION,
        }
    }

    /// What a ControlNet has to fit.
    pub fn side(&self) -> ModelSide<'_> {
        ModelSide {
            name: self.files.name(),
            unet: &self.unet,
            scale_factor: self.scale_factor,
        }
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

/// Side of the VAE's tiles in pixels. Overlaps are a quarter of a tile, in whole latents.
fn vae_tile_size(job: &ModelJob, config: &AutoencoderKlConfig) -> Result<Option<i64>> {
    if !job.vae_tiling {
        return Ok(None);
    }
    let size = job.vae_tile_size.unwrap_or(config.sample_size);
    let unit = 4 * config.scale_factor();
    if size % unit != 0 {
        let whose = match job.vae_tile_size {
            Some(_) => "",
            None => " the VAE's own size,",
        };
        return Err(usage(format!(
            "--vae-tile-size: found {size},{whose} expected a multiple of {unit}"
        )));
    }
    Ok(Some(size))
}

/// Finds files with the hub's settings from the environment.
///
/// # Errors
/// As [`ModelFiles::locate_with`].
pub fn find(options: &ModelOptions, quiet: bool) -> Result<ModelFiles> {
    ModelFiles::locate_with(options, &|| {
        let settings = HubSettings::from_env(options.offline)?;
        Ok(if quiet { settings.quiet() } else { settings })
    })
}
