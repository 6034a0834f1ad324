//! The denoising loop, the only one in the program.

use anyhow::Result;
use tch::Tensor;

use super::controlnet::Control;
use super::guidance::Guidance;
use super::guided_unet::GuidedUnet;
use super::{Backbone, finite};
use crate::schedulers::{NoiseSchedule, Scheduler};

/// A step that was just taken.
pub struct StepTaken<'a> {
    /// The number of the step, counted from 1.
    pub step: usize,
    /// The timestep of the step's last pass.
    timestep: f64,
    /// The input of that pass `[B, C, H, W]`, companions last.
    z_t: &'a Tensor,
    /// The prediction after guidance, of the same shape.
    noise_pred: &'a Tensor,
    /// Number of images, without companions.
    asked_for: i64,
}

impl StepTaken<'_> {
    /// The estimate of the latents without noise `[B, C, H, W]`, computed from the prediction, without companions.
    pub fn z_0(&self, schedule: &NoiseSchedule) -> Tensor {
        let z_0 = schedule.z_0(self.z_t, self.noise_pred, self.timestep);
        z_0.narrow(0, 0, self.asked_for)
    }
}

/// The result of the denoising loop.
pub struct Denoised {
    /// Final latents `[B, C, H, W]` f32, not divided by the VAE's scaling factor.
    pub latents: Tensor,
    /// Eq. (7): the encoder's output for the conditional row at the last step `[B, C', h, w]` f32.
    pub encoder_features: Tensor,
}

/// Draws B pictures that share prompt and guidance from their initial latents `[B, C, H, W]`, with the
/// ControlNets of `control`, if any, and together with the guidance's companions. `progress` is called after
/// each step; an error from it ends the loop.
///
/// # Errors
/// When `progress` returns an error, or weights or latents contain a value that is not finite.
pub fn denoise(
    backbone: &Backbone,
    scheduler: &mut dyn Scheduler,
    initial_latents: &Tensor,
    guidance: &dyn Guidance,
    control: Option<&Control>,
    progress: &mut dyn FnMut(&StepTaken) -> Result<()>,
) -> Result<Denoised> {
    let _frozen = tch::no_grad_guard();
    let mut unet = GuidedUnet::new(backbone, guidance, control, scheduler, initial_latents);
    let asked_for = initial_latents.size()[0];
    let mut latents = unet.initial_latents() * scheduler.init_noise_sigma(); // [B, C, H, W]
    let mut encoder_features = None;
    let passes = scheduler.timesteps().len();
    for i in 0..passes {
        let step = scheduler.step_of(i);
        let z_t = scheduler.scale_model_input(&latents, i); // [B, C, H, W]
        let predictions = unet.predict(&z_t, i, step);
        let noise_pred = guidance.combine(step, &predictions.rows); // [B, C, H, W]
        latents = scheduler.step(&noise_pred, i, &latents);
        encoder_features = predictions.encoder_features;
        if i + 1 == passes || scheduler.step_of(i + 1) > step {
            progress(&StepTaken {
                step,
                timestep: scheduler.timesteps()[i],
                z_t: &z_t,
                noise_pred: &noise_pred,
                asked_for,
            })?;
        }
    }
    backbone.weights_are_finite()?;
    finite(&latents, "the latents after the last step", backbone.kind())?;
    Ok(Denoised {
        latents: latents.narrow(0, 0, asked_for),
        encoder_features: encoder_features.expect("a sampler has at least one pass"),
    })
}
