//! A model whose files are found and whose small files (configs, tokenizers) are read. Jobs are checked against it
//! before any weights are read.

use std::cell::OnceCell;
use std::rc::Rc;

use anyhow::{Context, Result};
use tch::{Device, Kind};

use super::kernel_flags;
use crate::backbone::configs::ModelConfigs;
use crate::backbone::controlnet::{ControlNet, ModelSide};
use crate::backbone::prompt::Tokenizers;
use crate::backbone::{Backbone, LoadOptions, MemoryOptions, ModelFacts, Pipeline, fingerprint_of};
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
use crate::wording::excerpt;

/// The most subjects in one picture for which the paper says that its method works (App. D).
const MOST_SUBJECTS: usize = 4;

/// A model whose files are found and whose small files are read.
pub struct LocatedModel {
    /// Its files.
    pub files: ModelFiles,
    /// The files of the VAE that `--vae` names.
    pub vae: Option<ModelFiles>,
    /// The device that it runs on.
    pub device: Device,
    /// Its precision.
    pub kind: Kind,
    /// The flags that describe the model.
    pub job: ModelJob,
    /// Its tokenizers.
    pub tokenizers: Tokenizers,
    /// Its architecture.
    pub pipeline: Pipeline,
    scheduler_file: SchedulerFile,
    /// The VAE's config.
    pub vae_config: AutoencoderKlConfig,
    /// Side of the VAE's tiles in pixels, if it works in tiles.
    pub vae_tile_size: Option<i64>,
    /// Width in pixels of the square that one latent stands for.
    pub scale_factor: i64,
    /// The U-Net's config.
    pub unet: UNet2DConditionConfig,
    /// The networks without their values, once [`LocatedModel::check_networks`] has built them.
    outline: OnceCell<Backbone>,
    /// The model's fingerprint, once it was needed.
    fingerprint: OnceCell<String>,
}

/// How a picture is drawn, with the model's defaults filled in.
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
            fingerprint: OnceCell::new(),
        };
        located.check_attention(None)?;
        Ok(located)
    }

    /// Refuses networks that cannot be loaded: damaged files, tensors that are missing or do not fit, LoRAs of another
    /// model. No values are read, and files that are not downloaded yet are not checked.
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

    /// Refuses what another model has made, before anything is loaded. If the U-Net is not downloaded yet, nothing is
    /// checked here.
    ///
    /// # Errors
    /// With both models.
    pub fn check_model(&self, made_with: &BaseFacts, what: &str) -> Result<()> {
        if !self.files.has_weights("unet")? {
            return Ok(());
        }
        let fingerprint = match self.fingerprint.get() {
            Some(known) => known,
            None => {
                let fingerprint = fingerprint_of(&self.files, &self.unet)?;
                self.fingerprint.get_or_init(|| fingerprint)
            }
        };
        let facts = ModelFacts {
            name: self.files.name().to_owned(),
            fingerprint: fingerprint.clone(),
            loras: Vec::new(),
        };
        made_with.check_model(&facts, what)
    }

    /// The options with which its networks are loaded.
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

    /// A text that identifies the model: models with the same key are loaded once.
    pub fn key(&self) -> String {
        format!("{:?}", self.job)
    }

    /// Fills in what the model decides: the size of a picture and the sampler.
    ///
    /// # Errors
    /// When the model cannot draw pictures of this size or in this number of steps.
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

    /// For each U-Net pass of a picture, the step that the pass belongs to, counted from 1.
    ///
    /// # Errors
    /// When the sampler cannot be used with the model.
    pub fn passes(&self, scheduler: SchedulerKind, steps: usize) -> Result<Vec<usize>> {
        let scheduler = new_scheduler(scheduler, &self.scheduler_file, steps)?;
        let passes = 0..scheduler.timesteps().len();
        Ok(passes.map(|pass| scheduler.step_of(pass)).collect())
    }

    /// Side in pixels of the tiles in which the VAE works on pictures of this size; `None` if it works on whole
    /// pictures.
    pub fn tiles_of(&self, width: i64, height: i64) -> Option<i64> {
        self.vae_tile_size.filter(|&tile| width.max(height) > tile)
    }

    /// Warns if `--vae-tiling` has no effect on pictures of this size.
    pub fn check_tiles(&self, width: i64, height: i64, reporter: &Reporter) {
        if let (Some(tile), None) = (self.vae_tile_size, self.tiles_of(width, height)) {
            reporter.warn(&format!(
                "--vae-tiling saves no memory here, because a picture of {width} x {height} fits into one tile of \
                 {tile} x {tile} pixels: choose smaller tiles with --vae-tile-size"
            ));
        }
    }

    /// The LoRAs that the flags name.
    fn named_loras(&self) -> Vec<LoraFacts> {
        let mut loras = self.files.loras().facts();
        loras.truncate(self.job.loras.len());
        loras
    }

    /// CRC-32 of the LoRA files that the settings only name, in their order; `None` if there are no LoRAs.
    pub fn lora_crc32(&self) -> Option<String> {
        lora::checksums(&self.named_loras())
    }

    /// Warns if the LoRAs that are merged now differ from the LoRAs with which `what` was made.
    pub fn check_loras(&self, made_with: &BaseFacts, what: &str, reporter: &Reporter) {
        if let Some(warning) = made_with.other_loras(&self.named_loras(), what) {
            reporter.warn(&warning);
        }
    }

    /// Refuses a prompt that lacks one of the base words among the tokens that the model reads. Warns if the end of the
    /// prompt is cut off, or if the prompt has more subjects than the method works for.
    ///
    /// # Errors
    /// With the prompt and the word.
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
                "the prompt \"{}\" has {} subjects; the paper says that the method is limited to {MOST_SUBJECTS} \
                 (App. D): with more, the subjects may take each other's looks",
                excerpt(tokens.prompt()),
                words.len()
            ));
        }
        if let Some(lost) = tokens.lost_text() {
            reporter.warn(&format!(
                "the model reads {} tokens of a prompt and will not see the end of this one: \
                 \"{}\": shorten it, or have it read in chunks with --long-prompts",
                self.tokenizers.model_max_length() - 2,
                excerpt(lost.trim())
            ));
        }
        let chunks = tokens.chunk_texts();
        if chunks.len() > 1 {
            reporter.detail(&format!("chunks of a long prompt: {chunks:?}"));
        }
        Ok(())
    }

    /// Warns if `whose` reads the prompt of the base images without its end.
    ///
    /// # Errors
    /// When the prompt has more tokens than are allowed.
    pub fn check_base_prompt(&self, prompt: &str, whose: &str, reporter: &Reporter) -> Result<()> {
        let tokens = self.tokenizers.plain_tokens(prompt)?;
        if let Some(lost) = tokens.lost_text() {
            reporter.warn(&format!(
                "{whose} uses the prompt of the base images, but only its first {} tokens, even if the base images \
                 were drawn with --long-prompts; the end is not read: \"{}\"",
                self.tokenizers.model_max_length() - 2,
                excerpt(lost.trim())
            ));
        }
        Ok(())
    }

    /// The width of a text embedding that the U-Net reads.
    pub fn text_width(&self) -> i64 {
        self.unet.cross_attention_dim
    }

    /// The files of the ControlNet or adapter `name`, in the model's variant if it has that variant.
    ///
    /// # Errors
    /// When nothing of that name is found.
    pub fn find_beside(&self, name: &str, quiet: bool) -> Result<ModelFiles> {
        let options = ModelOptions {
            model: name.to_owned(),
            variant: self.job.variant.clone(),
            revision: None,
            offline: self.job.offline,
        };
        find(&options, quiet)
    }

    /// Where a repository of IP-Adapters has the adapter for this kind of model.
    pub fn ip_adapter_layout(&self) -> ip_adapter::IpAdapterLayout {
        match self.pipeline {
            Pipeline::StableDiffusionXl => ip_adapter::SDXL,
            Pipeline::StableDiffusion => ip_adapter::STABLE_DIFFUSION,
        }
    }

    /// The properties of the model that a ControlNet must match.
    pub fn side(&self) -> ModelSide<'_> {
        ModelSide {
            name: self.files.name(),
            unet: &self.unet,
            scale_factor: self.scale_factor,
        }
    }

    /// Name of the precision, as `--dtype` takes it.
    pub fn dtype(&self) -> &'static str {
        match self.kind {
            Kind::Half => "fp16",
            Kind::BFloat16 => "bf16",
            _ => "fp32",
        }
    }
}

/// Side of the VAE's tiles in pixels. Tiles overlap by a quarter, which must be a whole number of latents.
fn vae_tile_size(job: &ModelJob, config: &AutoencoderKlConfig) -> Result<Option<i64>> {
    if !job.vae_tiling {
        return Ok(None);
    }
    let size = job.vae_tile_size.unwrap_or(config.sample_size);
    let unit = 4 * config.scale_factor();
    if size % unit != 0 {
        let whose = match job.vae_tile_size {
            Some(_) => "",
            None => " which is the VAE's own size,",
        };
        return Err(usage(format!(
            "--vae-tile-size: found {size},{whose} expected a multiple of {unit}"
        )));
    }
    Ok(Some(size))
}

/// Finds the files of a model, with the settings of the hub from the environment.
///
/// # Errors
/// As [`ModelFiles::locate_with`].
pub fn find(options: &ModelOptions, quiet: bool) -> Result<ModelFiles> {
    ModelFiles::locate_with(options, &|| {
        let settings = HubSettings::from_env(options.offline)?;
        Ok(if quiet { settings.quiet() } else { settings })
    })
}
