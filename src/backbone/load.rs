//! Loads a backbone: reads its files, one component after the other, and builds the networks on a device.

use anyhow::Result;
use tch::{Device, Kind};

use super::configs::ModelConfigs;
use super::network::{Placement, Reloadable};
use super::pipeline::{Pipeline, vae_folder};
use super::{Backbone, ModelFacts};
use crate::io::finite_scan::{FiniteScan, FloatBytes};
use crate::io::model_files::ModelFiles;
use crate::io::values::bytes;
use crate::io::weights::{WeightPath, Weights};
use crate::models::autoencoder_kl::AutoencoderKl;
use crate::models::clip_text_model::{ClipTextConfig, ClipTextModel};
use crate::models::unet::unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::schedulers::NoiseSchedule;

/// The device and the precision of the networks.
pub struct LoadOptions<'a> {
    /// The device.
    pub device: Device,
    /// Precision of U-Net and text encoders; of the VAE too, unless it overflows in half precision,
    /// see [`Pipeline::vae_kind`].
    pub kind: Kind,
    /// Another VAE, in place of the model's own.
    pub vae: Option<&'a ModelFiles>,
    /// Settings that save memory.
    pub memory: MemoryOptions,
}

/// Settings that save memory and cost time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryOptions {
    /// Side in pixels of the VAE's tiles, see [`AutoencoderKl::with_tiles`]; `None` for none.
    pub vae_tile_size: Option<i64>,
    /// Whether only the running network is in the device's memory: the text encoders, the U-Net or the VAE.
    /// Each is loaded again from its mapped files before it runs.
    pub cpu_offload: bool,
}

/// The pipeline's text encoders.
fn text_encoders(
    files: &ModelFiles,
    (pipeline, configs): (Pipeline, &[ClipTextConfig]),
    placement: Placement,
    values: &mut Vec<FloatBytes>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Reloadable<ClipTextModel>>> {
    let mut text_encoder = |(component, config): (&&str, &ClipTextConfig)| {
        progress(component);
        let config = config.clone();
        let build = move |path: &WeightPath| Ok(ClipTextModel::new(path, &config));
        Reloadable::load(files, component, placement, values, build)
    };
    let components = pipeline.text_encoders().iter().zip(configs);
    components.map(&mut text_encoder).collect()
}

impl Backbone {
    /// Loads a model from a diffusers folder, the hub or the binary itself. `progress` is called with the name
    /// of each component before it is read.
    ///
    /// # Errors
    /// When a file is missing or does not fit. The message names file and tensor. Values that are not finite
    /// are reported later, see [`Backbone::weights_are_finite`].
    pub fn load(
        files: &ModelFiles,
        options: &LoadOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Backbone> {
        let memory = options.memory;
        let vae_files = options.vae.unwrap_or(files);
        let ModelConfigs {
            pipeline,
            index,
            scheduler_file,
            tokenizers,
            text,
            unet: unet_config,
            vae: vae_config,
        } = ModelConfigs::read(files, options.vae)?;
        let placement = Placement {
            device: options.device,
            kind: options.kind,
        };

        let mut values = Vec::new();
        let text_encoders =
            text_encoders(files, (pipeline, &text), placement, &mut values, progress)?;
        let token_widths: Vec<i64> = text.iter().map(|config| config.hidden_size).collect();
        if memory.cpu_offload {
            text_encoders.iter().for_each(Reloadable::release);
        }

        progress("unet");
        let config = unet_config.clone();
        let unet = Reloadable::load(files, "unet", placement, &mut values, move |path| {
            UNet2DConditionModel::new(path, &config)
        })?;
        if memory.cpu_offload {
            unet.release();
        }
        let fingerprint = fingerprint_of(files, &unet_config)?;
        files.loras().finish()?;

        progress("vae");
        let vae_kind = pipeline.vae_kind(&vae_config, options.kind);
        let placement = Placement {
            kind: vae_kind,
            ..placement
        };
        let folder = vae_folder(vae_files)?;
        let config = vae_config.clone();
        let vae = Reloadable::load(vae_files, folder, placement, &mut values, move |path| {
            let vae = AutoencoderKl::new(path, &config);
            Ok(match memory.vae_tile_size {
                Some(size) => vae.with_tiles(size, config.scale_factor()),
                None => vae,
            })
        })?;
        if memory.cpu_offload {
            vae.release();
        }

        Ok(Backbone {
            facts: ModelFacts {
                name: files.name().to_string(),
                fingerprint,
                loras: files.loras().facts(),
            },
            noise_schedule: NoiseSchedule::new(&scheduler_file.noise_schedule()?),
            scheduler_file,
            tokenizers,
            pipeline,
            text_encoders,
            token_widths,
            unet,
            unet_config,
            vae,
            vae_config,
            vae_kind,
            cpu_offload: memory.cpu_offload,
            force_zeros_for_empty_prompt: index.force_zeros_for_empty_prompt,
            device: options.device,
            kind: options.kind,
            scan: FiniteScan::start(values),
        })
    }
}

/// Computes the fingerprint from two tensors of the U-Net's files. It always uses fp16, so that it does not depend on
/// the precision of the files.
///
/// # Errors
/// When a file cannot be read.
pub fn fingerprint_of(files: &ModelFiles, config: &UNet2DConditionConfig) -> Result<String> {
    let weights = Weights::open(&files.weights("unet")?, Device::Cpu, Kind::Half)?;
    let path = weights.root();
    let c = config.block_out_channels[0];
    let first = (&path / "conv_in").tensor_of_checkpoint("weight", &[c, config.in_channels, 3, 3]);
    let last = (&path / "conv_out").tensor_of_checkpoint("weight", &[config.out_channels, c, 3, 3]);
    let mut hasher = crc32fast::Hasher::new();
    for half in [first, last] {
        hasher.update(&bytes(&half)?);
    }
    Ok(format!("{:08x}", hasher.finalize()))
}
