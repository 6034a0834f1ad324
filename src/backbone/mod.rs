//! The frozen backbone as one object: text encoders, U-Net, VAE, and the schedule that they were trained with.
//! It is SDXL (arXiv 2307.01952), with two text encoders, or SD 1.5 or 2.1 (arXiv 2112.10752), with one; see
//! [`Pipeline`]. The backbone knows neither the projector nor η.

pub mod attention_guide;
mod conditioning;
pub(crate) mod configs;
pub mod controlnet;
pub mod denoise;
pub(crate) mod files;
pub mod guidance;
mod guided_unet;
pub mod latent_colours;
pub(crate) mod load;
pub(crate) mod memory;
pub mod model_index;
mod network;
mod part;
pub(crate) mod pipeline;
pub mod prompt;
pub mod prompt_pair;
mod prompt_weights;
pub mod shortcuts;
pub mod step_rows;
pub mod unet_pass;

use std::rc::Rc;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use crate::io::finite_scan::FiniteScan;
use crate::io::lora::LoraFacts;
use crate::io::low_rank::LowRankSet;
use crate::io::values::is_finite;
use crate::libtorch;
use crate::models::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig};
use crate::models::clip_text_model::ClipTextModel;
use crate::models::unet::unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::schedulers::{NoiseSchedule, SchedulerFile};
pub use conditioning::Conditioning;
pub use load::{LoadOptions, MemoryOptions, fingerprint_of};
use network::Reloadable;
pub use pipeline::Pipeline;
use prompt::Tokenizers;

/// The identity of a model, which an actor must match.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// The name that the user gave.
    pub name: String,
    /// CRC-32 of the U-Net's first and last convolution in fp16, so that the fp16 and the fp32 files of one
    /// model have the same fingerprint.
    pub fingerprint: String,
    /// The LoRAs that are merged into the model.
    pub loras: Vec<LoraFacts>,
}

/// A model of one of the architectures that [`Pipeline`] lists.
pub struct Backbone {
    /// Name and fingerprint.
    pub facts: ModelFacts,
    /// The checkpoint's schedule.
    pub scheduler_file: SchedulerFile,
    /// The forward process of that schedule.
    pub noise_schedule: NoiseSchedule,
    /// A tokenizer for each text encoder.
    pub tokenizers: Tokenizers,
    pipeline: Pipeline,
    text_encoders: Vec<Reloadable<ClipTextModel>>,
    token_widths: Vec<i64>,
    unet: Reloadable<UNet2DConditionModel>,
    unet_config: UNet2DConditionConfig,
    vae: Reloadable<AutoencoderKl>,
    vae_config: AutoencoderKlConfig,
    vae_kind: Kind,
    cpu_offload: bool,
    force_zeros_for_empty_prompt: bool,
    device: Device,
    kind: Kind,
    scan: FiniteScan,
}

impl Backbone {
    /// The device of all networks.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision of U-Net and text encoders.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The precision of the VAE.
    pub fn vae_kind(&self) -> Kind {
        self.vae_kind
    }

    /// Waits for the check that all weights are finite, which starts when the model is loaded.
    /// [`denoise`](denoise::denoise) and [`Backbone::decode`] wait before they return a result.
    ///
    /// # Errors
    /// Names file and tensor of all weights with a value that is not finite.
    pub fn weights_are_finite(&self) -> Result<()> {
        let scanned = self.scan.wait();
        scanned.with_context(|| format!("checking the weights of {}", self.facts.name))
    }

    /// Unloads the text encoders. The next prompt loads them again.
    pub fn release_text_encoders(&self) {
        self.text_encoders.iter().for_each(Reloadable::release);
    }

    /// Unloads the VAE. The next picture loads it again.
    pub fn release_vae(&self) {
        self.vae.release();
    }

    /// Loads the U-Net again with trainable low-rank updates of its attention layers; with `None` without updates.
    pub fn update_unet(&self, updates: Option<&Rc<LowRankSet>>) {
        self.unet.set_updates(updates.cloned());
        if updates.is_some() {
            self.unet();
        }
    }

    /// The text encoders in order. With `cpu_offload` the other networks are unloaded.
    fn text_encoders(&self) -> Vec<Rc<ClipTextModel>> {
        if self.cpu_offload {
            self.unet.release();
            self.vae.release();
        }
        self.text_encoders.iter().map(Reloadable::get).collect()
    }

    /// The U-Net. With `cpu_offload` the other networks are unloaded.
    fn unet(&self) -> Rc<UNet2DConditionModel> {
        if self.cpu_offload {
            self.release_text_encoders();
            self.vae.release();
        }
        self.unet.get()
    }

    /// The VAE. With `cpu_offload` the other networks are unloaded.
    fn vae(&self) -> Rc<AutoencoderKl> {
        if self.cpu_offload {
            self.release_text_encoders();
            self.unet.release();
        }
        self.vae.get()
    }

    /// The U-Net's config.
    pub fn unet_config(&self) -> &UNet2DConditionConfig {
        &self.unet_config
    }

    /// Width of a latent in pixels. The sides of pictures are multiples of this width.
    pub fn vae_scale_factor(&self) -> i64 {
        self.vae_config.scale_factor()
    }

    /// Initial latents before the sampler scales them `[1, C, H/f, W/f]`. They are drawn on the CPU in f32 from
    /// the picture's own seed, so that they do not depend on device, precision and batch. They are equal to
    /// those of diffusers with `Generator("cpu").manual_seed(seed)`.
    pub fn initial_latents(&self, seed: i64, height: i64, width: i64) -> Tensor {
        let f = self.vae_scale_factor();
        let size = [1, self.unet_config.in_channels, height / f, width / f];
        libtorch::noise(seed, &size).to_device(self.device)
    }

    /// Decodes final latents `[B, C, H, W]` to pictures in [0, 1], `[B, 3, H', W']` f32, one at a time to limit
    /// memory.
    ///
    /// # Errors
    /// When weights, latents or picture contain a value that is not finite.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.weights_are_finite()?;
        finite(latents, "the final latents", self.kind)?;
        let latents = self
            .vae_config
            .to_vae(latents)
            .to_device(self.device)
            .to_kind(self.vae_kind);
        let vae = self.vae();
        // The VAE's single attention head is as wide as its channels, which few kernels support.
        let _any = libtorch::any_attention();
        let images = tch::no_grad(|| {
            let one = |i| {
                vae.decode(&latents.narrow(0, i, 1))
                    .to_kind(Kind::Float)
                    .to_device(Device::Cpu)
            };
            Tensor::cat(&(0..latents.size()[0]).map(one).collect::<Vec<_>>(), 0)
        });
        finite(&images, "the VAE's picture", self.vae_kind)?;
        Ok((images / 2.0 + 0.5).clamp(0.0, 1.0))
    }

    /// Latents of pictures in [0, 1] `[B, 3, H, W]`: the mean of the VAE's distribution, scaled.
    pub fn encode(&self, images: &Tensor) -> Tensor {
        let images = (images * 2.0 - 1.0)
            .to_device(self.device)
            .to_kind(self.vae_kind);
        let vae = self.vae();
        let _any = libtorch::any_attention();
        tch::no_grad(|| {
            let one = |i| {
                vae.encode(&images.narrow(0, i, 1))
                    .mean
                    .to_kind(Kind::Float)
            };
            let z = Tensor::cat(&(0..images.size()[0]).map(one).collect::<Vec<_>>(), 0);
            self.vae_config.from_vae(&z)
        })
    }
}

/// Refuses values that are not finite, which would give a black picture. The message names the stage that made
/// them, and what to change where a network computes in `kind`.
///
/// # Errors
/// When a value is not finite.
pub fn finite(tensor: &Tensor, stage: &str, kind: Kind) -> Result<()> {
    if is_finite(tensor) {
        return Ok(());
    }
    anyhow::bail!(
        "{stage}: found a value that is not finite (NaN or infinite): {}",
        way_out(kind)
    )
}

/// What to change when numbers become too large in this format.
fn way_out(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => {
            "fp16 ends at 65504; use the dtype bf16 or fp32, or, for the VAE, one that was made for fp16"
        }
        _ => {
            "this dtype has room for larger numbers, so that weights or settings are wrong: lower the guidance \
             scale and the strength of LoRAs and adapters, or try the model without them"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_range_recommends_another_dtype_only_where_that_helps() {
        let nan = Tensor::from_slice(&[f32::NAN]);
        let message = |kind| {
            finite(&nan, "the latents", kind)
                .expect_err("NaN")
                .to_string()
        };
        assert!(message(Kind::Half).contains("use the dtype bf16 or fp32"));
        for kind in [Kind::Float, Kind::BFloat16] {
            assert!(!message(kind).contains("fp32"), "{}", message(kind));
        }
        assert!(finite(&Tensor::from_slice(&[1f32]), "the latents", Kind::Half).is_ok());
    }
}
