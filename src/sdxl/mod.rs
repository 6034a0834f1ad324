//! The frozen backbone as one object (arXiv 2307.01952): two text encoders, U-Net, VAE, and the
//! schedule they were trained on. It knows no projector and no η.

pub mod denoise;
pub mod prompt;
pub mod prompt_pair;
mod prompt_weights;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use crate::error::model;
use crate::io::model_files::ModelFiles;
use crate::io::weights::{WeightPath, Weights};
use crate::models::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig};
use crate::models::clip_text_model::{ClipTextConfig, ClipTextModel};
use crate::models::unet_2d_condition::{
    AddedConditions, Encoded, UNet2DConditionConfig, UNet2DConditionModel,
};
use crate::schedulers::{NoiseSchedule, SchedulerConfig};
use prompt::Tokenizers;

/// Where the networks go and in which precision.
pub struct LoadOptions<'a> {
    /// The device.
    pub device: Device,
    /// Precision of U-Net and text encoders; of the VAE too, unless its config says that it
    /// overflows in half precision (`force_upcast`).
    pub kind: Kind,
    /// A VAE from elsewhere, in place of the model's own.
    pub vae: Option<&'a ModelFiles>,
}

/// What tells one model from another and what an actor has to fit.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// As the user named it.
    pub name: String,
    /// CRC-32 over the U-Net's first and last convolution in fp16, so that the fp16 and the fp32
    /// files of one model have the same.
    pub fingerprint: String,
}

/// A U-Net row's conditions, all in the network's precision.
#[derive(Debug)]
pub struct Conditioning {
    /// The prompt `[R, S, D]`.
    pub prompt_embeds: Tensor,
    /// Its pooled embedding `[R, D']`.
    pub pooled_prompt_embeds: Tensor,
    /// Original size, crop and target size in pixels `[R, 6]` f32.
    pub time_ids: Tensor,
}

impl Conditioning {
    /// The rows of all parts, one below the other.
    pub fn cat(parts: &[&Conditioning]) -> Conditioning {
        let join = |f: fn(&Conditioning) -> &Tensor| {
            Tensor::cat(&parts.iter().map(|part| f(part)).collect::<Vec<_>>(), 0)
        };
        Conditioning {
            prompt_embeds: join(|c| &c.prompt_embeds),
            pooled_prompt_embeds: join(|c| &c.pooled_prompt_embeds),
            time_ids: join(|c| &c.time_ids),
        }
    }

    /// Every row `n` times, copies side by side: rows of one branch for `n` images.
    pub fn repeat(&self, n: i64) -> Conditioning {
        let each = |t: &Tensor| t.repeat_interleave_self_int(n, 0, None);
        Conditioning {
            prompt_embeds: each(&self.prompt_embeds),
            pooled_prompt_embeds: each(&self.pooled_prompt_embeds),
            time_ids: each(&self.time_ids),
        }
    }

    /// The same with other prompt embeddings; pooled embedding and sizes stay.
    pub fn with_prompt_embeds(&self, prompt_embeds: Tensor) -> Conditioning {
        Conditioning {
            prompt_embeds,
            pooled_prompt_embeds: self.pooled_prompt_embeds.shallow_clone(),
            time_ids: self.time_ids.shallow_clone(),
        }
    }
}

/// SDXL, or any model of its architecture.
pub struct Backbone {
    /// Name and fingerprint.
    pub facts: ModelFacts,
    /// The checkpoint's schedule.
    pub scheduler_config: SchedulerConfig,
    /// The forward process of that schedule.
    pub noise_schedule: NoiseSchedule,
    /// Both tokenizers.
    pub tokenizers: Tokenizers,
    text_encoders: [ClipTextModel; 2],
    token_widths: [i64; 2],
    unet: UNet2DConditionModel,
    unet_config: UNet2DConditionConfig,
    vae: AutoencoderKl,
    vae_config: AutoencoderKlConfig,
    vae_kind: Kind,
    force_zeros_for_empty_prompt: bool,
    device: Device,
    kind: Kind,
}

/// The folder of the VAE among these files: `vae` in a whole model, none (`""`) in a repository that
/// holds a VAE alone.
///
/// # Errors
/// When the files can not be listed.
pub fn vae_folder(files: &ModelFiles) -> Result<&'static str> {
    let is_whole = files.optional_text("vae/config.json")?.is_some();
    Ok(if is_whole { "vae" } else { "" })
}

/// The config of the VAE among these files.
///
/// # Errors
/// When it is missing or damaged.
pub fn vae_config(files: &ModelFiles) -> Result<AutoencoderKlConfig> {
    match vae_folder(files)? {
        "" => files.json("config.json"),
        folder => files.json(&format!("{folder}/config.json")),
    }
}

/// Opens a component's weights, builds its network, and checks that both fit.
fn network<T>(
    files: &ModelFiles,
    component: &str,
    placement: (Device, Kind),
    build: impl FnOnce(&WeightPath) -> Result<T>,
) -> Result<T> {
    let load = || -> Result<T> {
        let weights = Weights::open(&files.weights(component)?, placement.0, placement.1)?;
        weights.allow_unused("embeddings.position_ids");
        let network = build(&weights.root())?;
        weights.finish()?;
        Ok(network)
    };
    load().with_context(|| format!("loading {component} of {}", files.name()))
}

impl Backbone {
    /// Loads a model from a diffusers folder, the hub or the binary itself. `progress` is told the
    /// name of each component before it is read.
    ///
    /// # Errors
    /// When a file is missing or does not fit; the message names file and tensor.
    pub fn load(
        files: &ModelFiles,
        options: &LoadOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Backbone> {
        let _frozen = tch::no_grad_guard();
        let index: serde_json::Value = files.json("model_index.json")?;
        if index["_class_name"] != "StableDiffusionXLPipeline" {
            return Err(model(format!(
                "{}: model_index.json: _class_name: found {}, expected \"StableDiffusionXLPipeline\"",
                files.name(),
                index["_class_name"]
            )));
        }
        let scheduler_config =
            SchedulerConfig::parse(&files.text("scheduler/scheduler_config.json")?)
                .with_context(|| files.name().to_string())?;
        let tokenizers = Tokenizers::load(files)?;
        let placement = (options.device, options.kind);

        let mut text_encoder = |component: &str| -> Result<(ClipTextModel, i64)> {
            progress(component);
            let config: ClipTextConfig = files.json(&format!("{component}/config.json"))?;
            let encoder = network(files, component, placement, |path| {
                ClipTextModel::new(path, &config)
            })?;
            Ok((encoder, config.hidden_size))
        };
        let (encoder_1, width_1) = text_encoder("text_encoder")?;
        let (encoder_2, width_2) = text_encoder("text_encoder_2")?;

        progress("unet");
        let unet_config: UNet2DConditionConfig = files.json("unet/config.json")?;
        let mut fingerprint = String::new();
        let unet = network(files, "unet", placement, |path| {
            let unet = UNet2DConditionModel::new(path, &unet_config)?;
            fingerprint = fingerprint_of(path, &unet_config);
            Ok(unet)
        })?;

        progress("vae");
        let vae_files = options.vae.unwrap_or(files);
        let vae_config = vae_config(vae_files)?;
        let vae_kind = if vae_config.force_upcast {
            Kind::Float
        } else {
            options.kind
        };
        let vae = network(
            vae_files,
            vae_folder(vae_files)?,
            (options.device, vae_kind),
            |path| AutoencoderKl::new(path, &vae_config),
        )?;

        Ok(Backbone {
            facts: ModelFacts {
                name: files.name().to_string(),
                fingerprint,
            },
            noise_schedule: NoiseSchedule::new(&scheduler_config),
            scheduler_config,
            tokenizers,
            text_encoders: [encoder_1, encoder_2],
            token_widths: [width_1, width_2],
            unet,
            unet_config,
            vae,
            vae_config,
            vae_kind,
            force_zeros_for_empty_prompt: index["force_zeros_for_empty_prompt"]
                .as_bool()
                .unwrap_or(true),
            device: options.device,
            kind: options.kind,
        })
    }

    /// The device of all networks.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision of U-Net and text encoders.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many pixels one latent is wide; sizes of pictures are multiples of it.
    pub fn vae_scale_factor(&self) -> i64 {
        self.vae_config.scale_factor()
    }

    /// Latents that sampling begins with, before the sampler scales them `[1, C, H/f, W/f]`: drawn
    /// on the CPU in f32 from the picture's own seed, so that neither device, precision nor batch
    /// changes them. Equal to what diffusers draws from `Generator("cpu").manual_seed(seed)`.
    pub fn initial_latents(&self, seed: i64, height: i64, width: i64) -> Tensor {
        let f = self.vae_scale_factor();
        tch::manual_seed(seed);
        Tensor::randn(
            [1, self.unet_config.in_channels, height / f, width / f],
            (Kind::Float, Device::Cpu),
        )
        .to_device(self.device)
    }

    /// The U-Net's first half, Eq. (7): `model_input [B, C, H, W]` at `timesteps [B]`.
    pub fn unet_encode(
        &self,
        model_input: &Tensor,
        timesteps: &Tensor,
        conditioning: &Conditioning,
    ) -> Encoded {
        let added = self
            .unet_config
            .addition_embed_type
            .as_ref()
            .map(|_| AddedConditions {
                text_embeds: conditioning.pooled_prompt_embeds.shallow_clone(),
                time_ids: conditioning.time_ids.shallow_clone(),
            });
        let model_input = model_input.to_kind(self.kind);
        self.unet.encode(
            &model_input,
            timesteps,
            &conditioning.prompt_embeds,
            added.as_ref(),
        )
    }

    /// The U-Net's second half: the prediction in f32.
    pub fn unet_decode(&self, encoded: Encoded, conditioning: &Conditioning) -> Tensor {
        self.unet
            .decode(encoded, &conditioning.prompt_embeds)
            .to_kind(Kind::Float)
    }

    /// Both halves.
    pub fn predict(
        &self,
        model_input: &Tensor,
        timesteps: &Tensor,
        conditioning: &Conditioning,
    ) -> Tensor {
        self.unet_decode(
            self.unet_encode(model_input, timesteps, conditioning),
            conditioning,
        )
    }

    /// Pictures of final latents `[B, C, H, W]`, in [0, 1], `[B, 3, H', W']` f32, decoded one at a
    /// time, which bounds the memory.
    ///
    /// # Errors
    /// When latents or picture hold a value that is not finite.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        finite(latents, "the final latents", "try --dtype fp32 or bf16")?;
        let latents = (latents / self.vae_config.scaling_factor)
            .to_device(self.device)
            .to_kind(self.vae_kind);
        let images = tch::no_grad(|| {
            let one = |i| {
                self.vae
                    .decode(&latents.narrow(0, i, 1))
                    .to_kind(Kind::Float)
                    .to_device(Device::Cpu)
            };
            Tensor::cat(&(0..latents.size()[0]).map(one).collect::<Vec<_>>(), 0)
        });
        finite(
            &images,
            "the VAE's picture",
            "try --dtype fp32, or an fp16-safe VAE with --vae",
        )?;
        Ok((images / 2.0 + 0.5).clamp(0.0, 1.0))
    }

    /// Latents of pictures in [0, 1] `[B, 3, H, W]`: the mean of the VAE's distribution, scaled.
    pub fn encode(&self, images: &Tensor) -> Tensor {
        let images = (images * 2.0 - 1.0)
            .to_device(self.device)
            .to_kind(self.vae_kind);
        tch::no_grad(|| {
            let one = |i| {
                self.vae
                    .encode(&images.narrow(0, i, 1))
                    .mean
                    .to_kind(Kind::Float)
            };
            Tensor::cat(&(0..images.size()[0]).map(one).collect::<Vec<_>>(), 0)
                * self.vae_config.scaling_factor
        })
    }
}

/// A black picture helps nobody: says which stage went wrong instead.
///
/// # Errors
/// When any value is not finite.
pub fn finite(tensor: &Tensor, stage: &str, way_out: &str) -> Result<()> {
    if tensor.isfinite().all().int64_value(&[]) == 1 {
        return Ok(());
    }
    anyhow::bail!("{stage} hold a value that is not finite (NaN or infinite); {way_out}")
}

fn fingerprint_of(path: &WeightPath, config: &UNet2DConditionConfig) -> String {
    let c = config.block_out_channels[0];
    let first = (path / "conv_in").tensor("weight", &[c, config.in_channels, 3, 3]);
    let last = (path / "conv_out").tensor("weight", &[config.out_channels, c, 3, 3]);
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
