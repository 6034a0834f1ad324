//! Loading a backbone: its files, one component after the other, to networks on a device.

use anyhow::{Context, Result};
use tch::{Device, Kind};

use super::pipeline::{Pipeline, vae_config, vae_folder};
use super::prompt::Tokenizers;
use super::{Backbone, ModelFacts};
use crate::error::model;
use crate::io::finite_scan::{FiniteScan, Values};
use crate::io::model_files::ModelFiles;
use crate::io::weights::{WeightPath, Weights};
use crate::models::autoencoder_kl::AutoencoderKl;
use crate::models::clip_text_model::{ClipTextConfig, ClipTextModel};
use crate::models::unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::schedulers::NoiseSchedule;

/// Where the networks go and in which precision.
pub struct LoadOptions<'a> {
    /// The device.
    pub device: Device,
    /// Precision of U-Net and text encoders; of the VAE too, unless it overflows in half precision,
    /// see [`Pipeline::vae_kind`].
    pub kind: Kind,
    /// A VAE from elsewhere, in place of the model's own.
    pub vae: Option<&'a ModelFiles>,
}

/// Opens a component's weights, builds its network, and checks that both fit. The values that were
/// read are added to `values`.
fn network<T>(
    files: &ModelFiles,
    component: &str,
    placement: (Device, Kind),
    values: &mut Vec<Values>,
    build: impl FnOnce(&WeightPath) -> Result<T>,
) -> Result<T> {
    let load = || -> Result<T> {
        let weights = Weights::open(&files.weights(component)?, placement.0, placement.1)?
            .with_loras(files.loras(), component);
        weights.allow_unused("embeddings.position_ids");
        let network = build(&weights.root())?;
        values.extend(weights.finish()?);
        Ok(network)
    };
    load().with_context(|| format!("loading {component} of {}", files.name()))
}

/// The pipeline's text encoders, each with the width of its tokens.
fn text_encoders(
    files: &ModelFiles,
    pipeline: Pipeline,
    placement: (Device, Kind),
    values: &mut Vec<Values>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<(ClipTextModel, i64)>> {
    let mut text_encoder = |component: &&str| -> Result<(ClipTextModel, i64)> {
        progress(component);
        let config: ClipTextConfig = files.json(&format!("{component}/config.json"))?;
        let build = |path: &WeightPath| ClipTextModel::new(path, &config);
        let encoder = network(files, component, placement, values, build)?;
        Ok((encoder, config.hidden_size))
    };
    let components = pipeline.text_encoders().iter();
    components.map(&mut text_encoder).collect()
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

impl Backbone {
    /// Loads a model from a diffusers folder, the hub or the binary itself. `progress` is told the
    /// name of each component before it is read.
    ///
    /// # Errors
    /// When a file is missing or does not fit; the message names file and tensor. Values that are not
    /// finite are reported later, see [`Backbone::weights_are_finite`].
    pub fn load(
        files: &ModelFiles,
        options: &LoadOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Backbone> {
        let _frozen = tch::no_grad_guard();
        let pipeline = Pipeline::of(files)?;
        let scheduler_config = pipeline.scheduler_config(files)?;
        let tokenizers = Tokenizers::load(files, pipeline)?;
        let unet_config = pipeline.unet_config(files)?;
        let vae_files = options.vae.unwrap_or(files);
        let vae_config = vae_config(vae_files)?;
        expect(
            || format!("{}: latent channels of the VAE", vae_files.name()),
            vae_config.latent_channels,
            unet_config.in_channels,
            "the U-Net's in_channels",
        )?;
        let placement = (options.device, options.kind);

        let mut values = Vec::new();
        let text_encoders = text_encoders(files, pipeline, placement, &mut values, progress)?;
        let (text_encoders, token_widths): (Vec<_>, Vec<_>) = text_encoders.into_iter().unzip();
        expect(
            || format!("{}: unet/config.json: cross_attention_dim", files.name()),
            unet_config.cross_attention_dim,
            token_widths.iter().sum(),
            "the width of a prompt's tokens",
        )?;

        progress("unet");
        let mut fingerprint = String::new();
        let unet = network(files, "unet", placement, &mut values, |path| {
            let unet = UNet2DConditionModel::new(path, &unet_config)?;
            fingerprint = fingerprint_of(path, &unet_config);
            Ok(unet)
        })?;
        files.loras().finish()?;

        progress("vae");
        let vae_kind = pipeline.vae_kind(&vae_config, options.kind);
        let placement = (options.device, vae_kind);
        let folder = vae_folder(vae_files)?;
        let vae = network(vae_files, folder, placement, &mut values, |path| {
            AutoencoderKl::new(path, &vae_config)
        })?;

        Ok(Backbone {
            facts: ModelFacts {
                name: files.name().to_string(),
                fingerprint,
                loras: files.loras().facts(),
            },
            noise_schedule: NoiseSchedule::new(&scheduler_config),
            scheduler_config,
            tokenizers,
            pipeline,
            text_encoders,
            token_widths,
            unet,
            unet_config,
            vae,
            vae_config,
            vae_kind,
            force_zeros_for_empty_prompt: force_zeros_for_empty_prompt(files, pipeline)?,
            device: options.device,
            kind: options.kind,
            scan: FiniteScan::start(values),
        })
    }
}

/// Whether no negative prompt means zeros. SD encodes the empty text, and has no such field.
fn force_zeros_for_empty_prompt(files: &ModelFiles, pipeline: Pipeline) -> Result<bool> {
    let index: serde_json::Value = files.json("model_index.json")?;
    let value = index["force_zeros_for_empty_prompt"].as_bool();
    Ok(pipeline == Pipeline::StableDiffusionXl && value.unwrap_or(true))
}

fn fingerprint_of(path: &WeightPath, config: &UNet2DConditionConfig) -> String {
    let c = config.block_out_channels[0];
    let first = (path / "conv_in").tensor_of_checkpoint("weight", &[c, config.in_channels, 3, 3]);
    let last = (path / "conv_out").tensor_of_checkpoint("weight", &[config.out_channels, c, 3, 3]);
    let mut hasher = crc32fast::Hasher::new();
    for tensor in [first, last] {
        let half = tensor
            .to_device(Device::Cpu)
            .to_kind(Kind::Half)
            .contiguous();
        let mut bytes = vec![0; half.numel() * 2];
        half.copy_data_u8(&mut bytes, half.numel());
        hasher.update(&bytes);
    }
    format!("{:08x}", hasher.finalize())
}
