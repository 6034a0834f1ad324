//! DDIM without added noise (arXiv 2010.02502, Eq. (12) with η = 0): `DDIMScheduler`.

use tch::Tensor;

use super::Scheduler;
use super::config::{PredictionType, SchedulerConfig};
use super::noise_schedule::NoiseSchedule;
use super::timesteps::evenly_spread;

pub(super) struct Ddim {
    timesteps: Vec<f64>,
    /// ᾱ before and after each step.
    alphas: Vec<(f64, f64)>,
    prediction_type: PredictionType,
}

impl Ddim {
    /// No timestep may be beyond the schedule, see [`last_offset`](super::timesteps::last_offset).
    pub(super) fn new(config: &SchedulerConfig, n: usize) -> Self {
        let train = config.num_train_timesteps;
        let timesteps = evenly_spread(config, n);
        let table = NoiseSchedule::new(config).alphas_cumprod;
        let to_one = config.set_alpha_to_one.unwrap_or(true);
        let last = if to_one { 1.0 } else { table[0] };
        let alphas = timesteps
            .iter()
            .map(|&t| {
                let t = t as usize;
                (
                    table[t],
                    t.checked_sub(train / n)
                        .map_or(last, |before| table[before]),
                )
            })
            .collect();
        Ddim {
            timesteps,
            alphas,
            prediction_type: config.prediction_type,
        }
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, latents: &Tensor, _i: usize) -> Tensor {
        latents.shallow_clone()
    }

    fn step(&mut self, noise_pred: &Tensor, i: usize, latents: &Tensor) -> Tensor {
        let (alpha, alpha_next) = self.alphas[i];
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (z_0, eps) = match self.prediction_type {
            PredictionType::Epsilon => (
                (latents - noise_pred * noise) / signal,
                noise_pred.shallow_clone(),
            ),
            PredictionType::VPrediction => (
                latents * signal - noise_pred * noise,
                noise_pred * signal + latents * noise,
            ),
        };
        z_0 * alpha_next.sqrt() + eps * (1.0 - alpha_next).sqrt()
    }
}
