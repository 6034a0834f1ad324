//! The small files of a model, which are read and checked before any weights.

use anyhow::{Context, Result};

use super::model_index::{ModelIndex, check_parts};
use super::pipeline::Pipeline;
use super::prompt::Tokenizers;
use crate::error::model;
use crate::io::model_files::ModelFiles;
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::clip_text_model::ClipTextConfig;
use crate::models::unet::unet_2d_condition::UNet2DConditionConfig;
use crate::schedulers::SchedulerFile;

/// The small files of a model, read and checked against each other.
pub struct ModelConfigs {
    /// The architecture of the model.
    pub pipeline: Pipeline,
    /// The parameters of the pipeline.
    pub index: ModelIndex,
    /// The checkpoint's schedule.
    pub scheduler_file: SchedulerFile,
    /// The tokenizers.
    pub tokenizers: Tokenizers,
    /// The config of each text encoder.
    pub text: Vec<ClipTextConfig>,
    /// The config of the U-Net.
    pub unet: UNet2DConditionConfig,
    /// The config of the VAE.
    pub vae: AutoencoderKlConfig,
}

impl ModelConfigs {
    /// Reads the small files of a model, and those of another VAE in place of its own.
    ///
    /// # Errors
    /// When a file is missing or damaged, needs an unsupported feature, or does not fit the others.
    pub fn read(files: &ModelFiles, vae: Option<&ModelFiles>) -> Result<Self> {
        let vae_files = vae.unwrap_or(files);
        let pipeline = Pipeline::of(files)?;
        let index = files.config("model_index.json")?;
        check_parts(&index, pipeline, vae.is_some()).with_context(|| files.name().to_owned())?;
        let text = pipeline.text_encoders().iter();
        let text = text
            .map(|component| pipeline.text_config(files, component))
            .collect::<Result<_>>();
        let configs = ModelConfigs {
            pipeline,
            index: ModelIndex::read(&index, pipeline)?,
            scheduler_file: pipeline.scheduler_file(files)?,
            tokenizers: Tokenizers::load(files, pipeline)?,
            text: text?,
            unet: pipeline.unet_config(files)?,
            vae: pipeline.vae_config(vae_files)?,
        };
        for ((i, component), config) in (0..).zip(pipeline.text_encoders()).zip(&configs.text) {
            let what = format!("{component} of {}", files.name());
            let told = configs.tokenizers.check_encoder(i, config);
            if let Some(told) = told.with_context(|| what.clone())? {
                files.note(format!("{what}: {told}"));
            }
        }
        configs.fit(files, vae_files)?;
        Ok(configs)
    }

    /// Refuses networks that do not fit together.
    fn fit(&self, files: &ModelFiles, vae_files: &ModelFiles) -> Result<()> {
        expect(
            || format!("{}: latent channels of the VAE", vae_files.name()),
            self.vae.latent_channels,
            self.unet.in_channels,
            "the U-Net's in_channels",
        )?;
        let field = |name: &str| format!("{}: unet/config.json: {name}", files.name());
        expect(
            || field("cross_attention_dim"),
            self.unet.cross_attention_dim,
            self.text.iter().map(|config| config.hidden_size).sum(),
            "the width of a prompt's tokens",
        )?;
        let (Some(width), Some(last)) = (self.unet.pooled_width(), self.text.last()) else {
            return Ok(());
        };
        expect(
            || field("projection_class_embeddings_input_dim less six sizes"),
            width,
            last.pooled_width(),
            "the width of a pooled prompt",
        )
    }
}

/// Refuses components that do not fit together.
fn expect(what: impl FnOnce() -> String, found: i64, expected: i64, other: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = what();
    Err(model(format!(
        "{what}: found {found}, expected {expected}, {other}"
    )))
}
