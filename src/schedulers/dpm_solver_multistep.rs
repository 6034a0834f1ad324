//! DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2): `DPMSolverMultistepScheduler`.
//!
//! With α = 1/√(σ²+1), σ_t = σ α and λ = ln(α/σ_t), each step computes the new latents from the
//! last two predictions of z_0.

use tch::Tensor;

use super::Scheduler;
use super::config::{FinalSigmas, PredictionType, SchedulerConfig, TimestepSpacing};
use super::noise_schedule::NoiseSchedule;
use super::sigmas::{interpolate, karras, sigma_table, sigma_to_timestep};
use super::timesteps::{linspace, trailing};

/// With fewer steps than this, and `lower_order_final` in the config, the last step is first-order.
const FEW_STEPS: usize = 15;

pub(super) struct DpmSolverMultistep {
    timesteps: Vec<f64>,
    /// One more entry than there are steps.
    sigmas: Vec<f64>,
    prediction_type: PredictionType,
    last_step_is_first_order: bool,
    previous_z_0: Option<Tensor>,
}

impl DpmSolverMultistep {
    pub(super) fn new(config: &SchedulerConfig, n: usize) -> Self {
        let train = config.num_train_timesteps;
        let total = train as f64;
        let mut timesteps: Vec<f64> = (0..n)
            .map(
                |i| match config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace) {
                    TimestepSpacing::Linspace => linspace(total - 1.0, n, n - i).round_ties_even(),
                    TimestepSpacing::Leading => {
                        ((train / (n + 1)) * (n - i)) as f64 + config.steps_offset as f64
                    }
                    TimestepSpacing::Trailing => trailing(total, n, i),
                },
            )
            .collect();

        let table = sigma_table(&NoiseSchedule::new(config));
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(&table, t)).collect();
        if config.karras() {
            sigmas = karras(table[0], table[train - 1], n);
            timesteps = sigmas
                .iter()
                .map(|&s| sigma_to_timestep(&table, s).round_ties_even())
                .collect();
        }
        let ends_at_zero = config.final_sigmas_type == FinalSigmas::Zero;
        sigmas.push(if ends_at_zero { 0.0 } else { table[0] });
        DpmSolverMultistep {
            timesteps,
            sigmas,
            prediction_type: config.prediction_type,
            last_step_is_first_order: ends_at_zero
                || config.euler_at_final
                || (config.lower_order_final && n < FEW_STEPS),
            previous_z_0: None,
        }
    }

    /// α, σ_t and λ at the end of step `i - 1`, which is the start of step `i`.
    fn point(&self, i: usize) -> (f64, f64, f64) {
        let sigma = self.sigmas[i];
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        (alpha, sigma * alpha, -sigma.ln())
    }
}

impl Scheduler for DpmSolverMultistep {
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
        let (alpha_s, sigma_s, lambda_s) = self.point(i);
        let (alpha_t, sigma_t, lambda_t) = self.point(i + 1);
        let z_0 = match self.prediction_type {
            PredictionType::Epsilon => (latents - noise_pred * sigma_s) / alpha_s,
            PredictionType::VPrediction => latents * alpha_s - noise_pred * sigma_s,
        };
        let h = lambda_t - lambda_s; // infinite where the last sigma is 0
        let shrink = -alpha_t * (-h).exp_m1();
        let mut next = latents * (sigma_t / sigma_s) + &z_0 * shrink;

        let is_last = i + 1 == self.timesteps.len();
        if let Some(previous) = self
            .previous_z_0
            .take()
            .filter(|_| !(is_last && self.last_step_is_first_order))
        {
            let (_, _, lambda_before) = self.point(i - 1);
            let r_0 = (lambda_s - lambda_before) / h;
            next += (&z_0 - previous) * (0.5 * shrink / r_0);
        }
        self.previous_z_0 = Some(z_0);
        next
    }
}
