//! The supported architectures, named after their pipelines in diffusers, and how each reads a checkpoint's
//! small files. Missing values are those of the diffusers pipeline.

use anyhow::{Context, Result};
use tch::Kind;

use super::part::{network, part};
use crate::error::model;
use crate::io::config_file::ConfigFile;
use crate::io::model_files::ModelFiles;
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::clip_text_model::ClipTextConfig;
use crate::models::unet::unet_2d_condition::UNet2DConditionConfig;
use crate::schedulers::SchedulerFile;

/// An architecture. Components that do not draw, such as a safety checker, are not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// SDXL: two text encoders; conditioned on the prompt's tokens, the pooled prompt and sizes.
    StableDiffusionXl,
    /// SD 1.x and 2.x: one text encoder; conditioned only on the prompt's tokens.
    StableDiffusion,
}

/// What to do about a pipeline of diffusers that is not for text-to-image; empty for unknown ones.
fn hint(class: &str) -> &'static str {
    if class.contains("Inpaint") {
        ": a model for inpainting has other inputs; give the model that it was made from"
    } else if class == "StableDiffusionXLImg2ImgPipeline" {
        ": SDXL's refiner has this class and cannot draw alone; if this is a base model that was saved for \
         image-to-image, write \"StableDiffusionXLPipeline\" here"
    } else if ["Img2Img", "ControlNet", "PAG"]
        .iter()
        .any(|part| class.contains(part))
    {
        ": if the model is one for text-to-image that was saved in another pipeline, write that class here"
    } else {
        ""
    }
}

impl Pipeline {
    /// The pipeline that `model_index.json` names.
    ///
    /// # Errors
    /// When the file names another pipeline, or is missing or damaged.
    pub fn of(files: &ModelFiles) -> Result<Pipeline> {
        let index = files.config("model_index.json")?;
        match index.text("_class_name") {
            Some("StableDiffusionXLPipeline") => Ok(Pipeline::StableDiffusionXl),
            Some("StableDiffusionPipeline") => Ok(Pipeline::StableDiffusion),
            other => {
                let hint = other.map_or("", hint);
                let expected = "\"StableDiffusionXLPipeline\" (SDXL) or \"StableDiffusionPipeline\" (SD 1.5, SD 2.1)";
                let wrong = index.wrong("_class_name", &format!("{expected}{hint}"));
                Err(wrong.context(files.name().to_owned()))
            }
        }
    }

    /// Folders of the text encoders, in the order of their columns in a prompt embedding.
    pub fn text_encoders(self) -> &'static [&'static str] {
        match self {
            Pipeline::StableDiffusionXl => &["text_encoder", "text_encoder_2"],
            Pipeline::StableDiffusion => &["text_encoder"],
        }
    }

    /// Folders of the tokenizers, one for each text encoder.
    pub fn tokenizers(self) -> &'static [&'static str] {
        match self {
            Pipeline::StableDiffusionXl => &["tokenizer", "tokenizer_2"],
            Pipeline::StableDiffusion => &["tokenizer"],
        }
    }

    /// The checked config of the U-Net.
    ///
    /// # Errors
    /// When the config is missing or damaged, or does not describe a U-Net of this pipeline.
    pub fn unet_config(self, files: &ModelFiles) -> Result<UNet2DConditionConfig> {
        let named = || files.name().to_owned();
        let file = network(files, "unet")?;
        let mut config = UNet2DConditionConfig::read(&file).with_context(named)?;
        if self == Pipeline::StableDiffusion && is_before_0_9(&file) {
            // The first versions of diffusers wrote 32 for all SD models; its pipeline uses 64 in place of
            // smaller values.
            config.sample_size = config.sample_size.map(|side| side.max(64));
        }
        if config.in_channels != config.out_channels {
            return Err(model(format!(
                "{}: unet/config.json: in_channels: found {}, expected {} as in out_channels: a model that \
                needs a picture as input, such as one for inpainting, cannot draw from a prompt alone",
                files.name(),
                config.in_channels,
                config.out_channels
            )));
        }
        let expected = (self == Pipeline::StableDiffusionXl).then_some("text_time");
        let found = config.addition_embed_type.as_deref();
        if found != expected {
            let json = |kind: Option<&str>| kind.map_or("null".to_owned(), |k| format!("\"{k}\""));
            return Err(model(format!(
                "{}: unet/config.json: addition_embed_type: found {}, expected {} for the pipeline that model_index.json names",
                files.name(),
                json(found),
                json(expected)
            )));
        }
        Ok(config)
    }

    /// The checkpoint's schedule, with the pipeline's corrections.
    ///
    /// # Errors
    /// When the file is missing or damaged, or describes an unsupported forward process.
    pub fn scheduler_file(self, files: &ModelFiles) -> Result<SchedulerFile> {
        let named = || files.name().to_owned();
        let file = files.config("scheduler/scheduler_config.json")?;
        let file = SchedulerFile::new(part(files, "scheduler", file, "_class_name")?);
        let file = match self {
            Pipeline::StableDiffusion => file.corrected(),
            Pipeline::StableDiffusionXl => file,
        };
        file.noise_schedule().with_context(named)?;
        Ok(file)
    }

    /// The checked config of a text encoder.
    ///
    /// # Errors
    /// When the config is missing or damaged, or describes an unsupported network.
    pub fn text_config(self, files: &ModelFiles, name: &str) -> Result<ClipTextConfig> {
        let mut file = files.config(&format!("{name}/config.json"))?;
        // transformers also reads a text encoder from the file of a whole CLIP model.
        if file.text("model_type") == Some("clip") {
            file = file.part("text_config")?;
        }
        let file = part(files, name, file, "architectures")?;
        ClipTextConfig::read(&file).with_context(|| files.name().to_owned())
    }

    /// The checked config of the VAE among these files, which may be another model's.
    ///
    /// # Errors
    /// When the config is missing or damaged, or describes an unsupported network.
    pub fn vae_config(self, files: &ModelFiles) -> Result<AutoencoderKlConfig> {
        let named = || files.name().to_owned();
        let file = match vae_folder(files)? {
            "" => files.config("config.json")?,
            folder => network(files, folder)?,
        };
        let config = AutoencoderKlConfig::read(&file).with_context(named)?;
        if self == Pipeline::StableDiffusion && config.has_latent_statistics() {
            // The SD pipeline of diffusers ignores these fields without a warning.
            let wrong = file.wrong("latents_mean", "none: only SDXL's pipeline reads it");
            return Err(wrong.context(named()));
        }
        Ok(config)
    }

    /// Side of the latents if the U-Net's file does not give one.
    pub fn default_sample_size(self) -> i64 {
        match self {
            Pipeline::StableDiffusionXl => 128,
            Pipeline::StableDiffusion => 64,
        }
    }

    /// The VAE's precision if the other networks have `kind`. Only SDXL's pipeline uses `force_upcast`, because
    /// SDXL's VAE overflows in fp16. The VAEs of SD 1.5 and 2.1 do not; their files lack the field, although
    /// its default is true.
    pub fn vae_kind(self, config: &AutoencoderKlConfig, kind: Kind) -> Kind {
        match self {
            Pipeline::StableDiffusionXl if config.force_upcast => Kind::Float,
            _ => kind,
        }
    }
}

/// Whether a version of diffusers before 0.9 wrote this file.
fn is_before_0_9(file: &ConfigFile) -> bool {
    let version = file.text("_diffusers_version").unwrap_or_default();
    let numbers = version.split('.').map_while(|part| part.parse().ok());
    matches!(numbers.collect::<Vec<u32>>()[..], [0, minor, ..] if minor < 9)
}

/// The folder of the VAE among these files: `vae` in a whole model, `""` in a repository that contains only a VAE.
///
/// # Errors
/// When the files cannot be listed.
pub fn vae_folder(files: &ModelFiles) -> Result<&'static str> {
    let is_whole = files.optional_text("vae/config.json")?.is_some();
    Ok(if is_whole { "vae" } else { "" })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Tensor};

    use super::*;
    use crate::io::config_file::{ConfigFile, Notes};

    #[test]
    fn the_vae_of_sd_stays_in_half_precision_and_has_the_old_scale() -> Result<()> {
        // The fields of SD 1.5's file.
        let text = r#"{"act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "in_channels": 3,
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
        let file = ConfigFile::parse("vae/config.json", text, Notes::default())?;
        let config = AutoencoderKlConfig::read(&file)?;
        let kind = |pipeline: Pipeline, kind| pipeline.vae_kind(&config, kind);
        assert_eq!(kind(Pipeline::StableDiffusion, Kind::Half), Kind::Half);
        assert_eq!(kind(Pipeline::StableDiffusionXl, Kind::Half), Kind::Float);
        let scaled = config.from_vae(&Tensor::ones([1, 4, 1, 1], (Kind::Float, Device::Cpu)));
        assert!((scaled.double_value(&[0, 0, 0, 0]) - 0.18215).abs() < 1e-7);
        Ok(())
    }
}
