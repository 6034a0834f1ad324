//! PLMS, pseudo linear multistep steps (arXiv 2202.09778, Eqs. (9) and (12)): diffusers'
//! `PNDMScheduler` with `skip_prk_steps`, which SD 1.5's file names.
//!
//! At the start there are no earlier outputs. Instead of the paper's Runge-Kutta steps, the first
//! step is taken twice, as in the latent-diffusion code: first with the network's first output,
//! then from the same latents with the mean of that output and the output at the end of the step.
//! `n` steps therefore take `n + 1` outputs.

use std::collections::VecDeque;

use tch::Tensor;

use super::Scheduler;
use super::config::{PredictionType, SchedulerConfig};
use super::noise_schedule::NoiseSchedule;
use super::timesteps::evenly_spread;

/// Number of outputs that a step of full order combines.
const ORDER: usize = 4;

pub(super) struct Pndm {
    /// One timestep for each output of the network.
    timesteps: Vec<f64>,
    /// ᾱ before and after each output.
    alphas: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    /// The last outputs, newest last. The second output is left out, because it only corrects the
    /// first step.
    outputs: VecDeque<Tensor>,
    first_latents: Option<Tensor>,
}

impl Pndm {
    /// No timestep may be beyond the schedule, see [`last_offset`](super::timesteps::last_offset).
    pub(super) fn new(config: &SchedulerConfig, n: usize) -> Self {
        let mut timesteps = evenly_spread(config, n);
        if n > 1 {
            timesteps.insert(1, timesteps[1]);
        }
        let train = config.num_train_timesteps;
        let stride = (train / n) as i64;
        let table = NoiseSchedule::new(config).alphas_cumprod;
        let to_one = config.set_alpha_to_one.unwrap_or(false);
        let last = if to_one { 1.0 } else { table[0] };
        let alpha = |t: i64| match usize::try_from(t) {
            Ok(t) => table[t],
            Err(_) => last,
        };
        let alphas = timesteps
            .iter()
            .enumerate()
            .map(|(i, &t)| match i {
                1 => (alpha(t as i64 + stride), alpha(t as i64)),
                _ => (alpha(t as i64), alpha(t as i64 - stride)),
            })
            .collect();
        Pndm {
            timesteps,
            alphas,
            prediction_type: config.prediction_type,
            outputs: VecDeque::with_capacity(ORDER),
            first_latents: None,
        }
    }

    /// Eq. (12), or the formula of lower order if there are fewer outputs.
    fn combined(&self) -> Tensor {
        let newest: Vec<&Tensor> = self.outputs.iter().rev().collect();
        match newest[..] {
            [e] => e.shallow_clone(),
            [e, e_1] => (e * 3.0 - e_1) / 2.0,
            [e, e_1, e_2] => (e * 23.0 - e_1 * 16.0 + e_2 * 5.0) / 12.0,
            [e, e_1, e_2, e_3] => (e * 55.0 - e_1 * 59.0 + e_2 * 37.0 - e_3 * 9.0) / 24.0,
            _ => unreachable!("one to four outputs are kept"),
        }
    }

    /// Eq. (9): the latents at the end of the step.
    fn transfer(&self, latents: &Tensor, output: &Tensor, i: usize) -> Tensor {
        let (alpha, next) = self.alphas[i];
        let eps = match self.prediction_type {
            PredictionType::Epsilon => output.shallow_clone(),
            PredictionType::VPrediction => output * alpha.sqrt() + latents * (1.0 - alpha).sqrt(),
        };
        let below = alpha * (1.0 - next).sqrt() + (alpha * (1.0 - alpha) * next).sqrt();
        latents * (next / alpha).sqrt() - eps * ((next - alpha) / below)
    }
}

impl Scheduler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step_of(&self, i: usize) -> usize {
        i.max(1)
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, latents: &Tensor, _i: usize) -> Tensor {
        latents.shallow_clone()
    }

    fn step(&mut self, noise_pred: &Tensor, i: usize, latents: &Tensor) -> Tensor {
        if let (1, Some(first)) = (i, self.first_latents.take()) {
            let mean = (noise_pred + &self.outputs[0]) / 2.0;
            return self.transfer(&first, &mean, i);
        }
        if i == 0 {
            self.outputs.clear();
            self.first_latents = Some(latents.shallow_clone());
        }
        if self.outputs.len() == ORDER {
            self.outputs.pop_front();
        }
        self.outputs.push_back(noise_pred.shallow_clone());
        self.transfer(latents, &self.combined(), i)
    }
}
