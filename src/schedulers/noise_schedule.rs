//! The forward process: how much of a picture is left at each timestep (arXiv 2006.11239).

use std::cell::OnceCell;
use std::rc::Rc;

use tch::Tensor;

use super::config::{BetaSchedule, PredictionType, SchedulerConfig};

/// `z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε`, Eq. (1).
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    /// ᾱ for each timestep, falling.
    pub alphas_cumprod: Vec<f64>,
    prediction_type: PredictionType,
    /// √ᾱ and √(1-ᾱ), `[2, n]` f32 on the device of the timesteps; made on first use.
    table: OnceCell<Rc<Tensor>>,
}

impl NoiseSchedule {
    /// The checkpoint's schedule.
    pub fn new(config: &SchedulerConfig) -> Self {
        let n = config.num_train_timesteps;
        let (from, to) = match config.beta_schedule {
            BetaSchedule::Linear => (config.beta_start, config.beta_end),
            BetaSchedule::ScaledLinear => (config.beta_start.sqrt(), config.beta_end.sqrt()),
        };
        let mut product = 1.0;
        let alphas_cumprod = (0..n)
            .map(|i| {
                let value = from + (to - from) * i as f64 / (n - 1) as f64;
                let beta = match config.beta_schedule {
                    BetaSchedule::Linear => value,
                    BetaSchedule::ScaledLinear => value * value,
                };
                product *= 1.0 - beta;
                product
            })
            .collect();
        NoiseSchedule {
            alphas_cumprod,
            prediction_type: config.prediction_type,
            table: OnceCell::new(),
        }
    }

    /// Number of timesteps.
    pub fn num_train_timesteps(&self) -> i64 {
        self.alphas_cumprod.len() as i64
    }

    /// `(√ᾱ, √(1-ᾱ))` for each row, `[B, 1, 1, 1]` f32.
    fn scales(&self, timesteps: &Tensor) -> (Tensor, Tensor) {
        let device = timesteps.device();
        let table = || {
            let signal = self.alphas_cumprod.iter().map(|alpha| alpha.sqrt());
            let noise = self.alphas_cumprod.iter().map(|alpha| (1.0 - alpha).sqrt());
            let both: Vec<f32> = signal.chain(noise).map(|scale| scale as f32).collect();
            Rc::new(Tensor::from_slice(&both).view([2, -1]).to_device(device))
        };
        let table = self.table.get_or_init(table).to_device(device);
        let rows = table.index_select(1, timesteps).view([2, -1, 1, 1, 1]);
        (rows.get(0), rows.get(1))
    }

    /// Eq. (1): latents `z_0 [B, C, H, W]` with noise `eps` of the same shape at `timesteps [B]`
    /// (i64).
    pub fn add_noise(&self, z_0: &Tensor, eps: &Tensor, timesteps: &Tensor) -> Tensor {
        let (signal, noise) = self.scales(timesteps);
        z_0 * signal + eps * noise
    }

    /// z_0 of the latents `z_t [B, C, H, W]` of Eq. (1), where the network predicts `prediction` of
    /// the same shape at `timestep`: the picture if the prediction were exact. A fractional
    /// timestep is rounded to the nearest.
    pub fn z_0(&self, z_t: &Tensor, prediction: &Tensor, timestep: f64) -> Tensor {
        let last = self.alphas_cumprod.len() - 1;
        let alpha = self.alphas_cumprod[(timestep.max(0.0).round() as usize).min(last)];
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        match self.prediction_type {
            PredictionType::Epsilon => (z_t - prediction * noise) / signal,
            PredictionType::VPrediction => z_t * signal - prediction * noise,
        }
    }

    /// The exact prediction for [`add_noise`](Self::add_noise) with the same arguments.
    pub fn target(&self, z_0: &Tensor, eps: &Tensor, timesteps: &Tensor) -> Tensor {
        match self.prediction_type {
            PredictionType::Epsilon => eps.shallow_clone(),
            PredictionType::VPrediction => {
                let (signal, noise) = self.scales(timesteps);
                eps * signal - z_0 * noise
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::seeded;
    use tch::{Device, Kind};

    #[test]
    fn what_was_mixed_is_found_again_where_the_prediction_is_right() {
        for prediction_type in [PredictionType::Epsilon, PredictionType::VPrediction] {
            let schedule = NoiseSchedule {
                alphas_cumprod: vec![0.99, 0.5, 0.04],
                prediction_type,
                table: OnceCell::new(),
            };
            let _drawing = seeded(0);
            let draw = || Tensor::randn([1, 4, 2, 2], (Kind::Float, Device::Cpu));
            let (z_0, eps) = (draw(), draw());
            for (t, told) in [(0, 0.0), (1, 1.3), (2, 1.6), (2, 9.0)] {
                let timesteps = Tensor::from_slice(&[t as i64]);
                let z_t = schedule.add_noise(&z_0, &eps, &timesteps);
                let right = schedule.target(&z_0, &eps, &timesteps);
                let gap = schedule.z_0(&z_t, &right, told) - &z_0;
                // Rounding of f32, multiplied by 1/√ᾱ, which is at most 5.
                assert!(gap.abs().max().double_value(&[]) < 1e-5);
            }
        }
    }
}
