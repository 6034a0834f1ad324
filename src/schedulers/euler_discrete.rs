//! Euler steps on the probability-flow ODE (arXiv 2206.00364, algorithm 2 without churn):
//! `EulerDiscreteScheduler`.

use tch::Tensor;

use super::Scheduler;
use super::config::{FinalSigmas, PredictionType, SchedulerConfig, TimestepSpacing};
use super::noise_schedule::NoiseSchedule;
use super::sigmas::{interpolate, karras, sigma_table, sigma_to_timestep};
use super::timesteps::{linspace, trailing};

/// The sampler that SDXL's checkpoint names.
pub(super) struct EulerDiscrete {
    timesteps: Vec<f64>,
    /// One more entry than there are steps.
    sigmas: Vec<f64>,
    init_noise_sigma: f64,
    prediction_type: PredictionType,
}

impl EulerDiscrete {
    pub(super) fn new(config: &SchedulerConfig, n: usize) -> Self {
        let total = config.num_train_timesteps as f64;
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let mut timesteps: Vec<f64> = (0..n)
            .map(|i| match spacing {
                TimestepSpacing::Linspace if n == 1 => 0.0,
                TimestepSpacing::Linspace => linspace(total - 1.0, n - 1, n - 1 - i),
                TimestepSpacing::Leading => {
                    ((config.num_train_timesteps / n) * (n - 1 - i)) as f64
                        + config.steps_offset as f64
                }
                TimestepSpacing::Trailing => trailing(total, n, i),
            })
            .collect();

        let table = sigma_table(&NoiseSchedule::new(config));
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(&table, t)).collect();
        if config.karras() {
            sigmas = karras(sigmas[n - 1], sigmas[0], n);
            timesteps = sigmas
                .iter()
                .map(|&s| sigma_to_timestep(&table, s))
                .collect();
        }
        let largest = sigmas[0];
        sigmas.push(match config.final_sigmas_type {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => table[0],
        });
        let init_noise_sigma = match spacing {
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
        };
        EulerDiscrete {
            timesteps,
            sigmas,
            init_noise_sigma,
            prediction_type: config.prediction_type,
        }
    }
}

impl Scheduler for EulerDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, latents: &Tensor, i: usize) -> Tensor {
        latents / (self.sigmas[i] * self.sigmas[i] + 1.0).sqrt()
    }

    fn step(&mut self, noise_pred: &Tensor, i: usize, latents: &Tensor) -> Tensor {
        let (sigma, next) = (self.sigmas[i], self.sigmas[i + 1]);
        let derivative = match self.prediction_type {
            PredictionType::Epsilon => noise_pred.shallow_clone(),
            PredictionType::VPrediction => {
                let c = sigma * sigma + 1.0;
                let z_0 = latents / c - noise_pred * (sigma / c.sqrt());
                (latents - z_0) / sigma
            }
        };
        latents + derivative * (next - sigma)
    }
}
