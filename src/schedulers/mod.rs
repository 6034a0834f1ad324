//! Noise schedules and samplers, one file per published algorithm. Tables are built in f64 once; a
//! step is addressed by its index. The reference is Python diffusers.

mod config;
mod ddim;
mod dpm_solver_multistep;
mod euler_discrete;
mod noise_schedule;
mod sigmas;
mod timesteps;

pub use config::{PredictionType, SchedulerConfig, SchedulerKind, TimestepSpacing};
pub use noise_schedule::NoiseSchedule;

use anyhow::Result;
use tch::Tensor;

use crate::error::usage;

/// A sampler for a number of steps. Steps are counted from 0; latents and arithmetic are f32.
pub trait Scheduler {
    /// The timestep that the network is told at each step; fractional with Karras sigmas.
    fn timesteps(&self) -> &[f64];

    /// Standard deviation of the latents that sampling begins with.
    fn init_noise_sigma(&self) -> f64;

    /// What the network is shown instead of the latents at step `i`.
    fn scale_model_input(&self, latents: &Tensor, i: usize) -> Tensor;

    /// Latents after step `i`, from the network's prediction and the latents before it. Steps must
    /// come in order: a multistep sampler remembers the step before.
    fn step(&mut self, noise_pred: &Tensor, i: usize, latents: &Tensor) -> Tensor;
}

/// A sampler of this kind, built on the checkpoint's schedule.
///
/// # Errors
/// When there are no steps or more than the schedule has.
pub fn new_scheduler(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>> {
    let most = config.num_train_timesteps - 1;
    if !(1..=most).contains(&num_inference_steps) {
        return Err(usage(format!(
            "steps: found {num_inference_steps}, expected 1 to {most}"
        )));
    }
    let n = num_inference_steps;
    Ok(match kind {
        SchedulerKind::Euler => Box::new(euler_discrete::EulerDiscrete::new(config, n)),
        SchedulerKind::DpmSolverMultistep => {
            Box::new(dpm_solver_multistep::DpmSolverMultistep::new(config, n))
        }
        SchedulerKind::Ddim => Box::new(ddim::Ddim::new(config, n)),
    })
}
