//! Noise schedules and samplers, one file per published algorithm. Tables are built in f64 once; a
//! step is addressed by its index. The reference is Python diffusers.

mod config;
mod ddim;
mod dpm_solver_multistep;
mod euler_discrete;
pub mod fields;
mod noise_schedule;
mod pndm;
mod sigmas;
mod timesteps;

pub use config::{PredictionType, SchedulerConfig, SchedulerFile, SchedulerKind, TimestepSpacing};
pub use noise_schedule::NoiseSchedule;

use anyhow::Result;
use tch::Tensor;

use crate::error::usage;

/// A sampler for a number of steps. Passes of the network are counted from 0, one a step in all
/// samplers but PNDM; latents and arithmetic are f32.
pub trait Scheduler {
    /// The timestep that the network is told at each step; fractional with Karras sigmas. One more
    /// than there are steps where the first step takes two passes, see
    /// [`step_of`](Self::step_of).
    fn timesteps(&self) -> &[f64];

    /// The step, counted from 1, that pass `i` of the network, counted from 0, belongs to.
    fn step_of(&self, i: usize) -> usize {
        i + 1
    }

    /// Standard deviation of the latents that sampling begins with.
    fn init_noise_sigma(&self) -> f64;

    /// What the network is shown instead of the latents at pass `i`.
    fn scale_model_input(&self, latents: &Tensor, i: usize) -> Tensor;

    /// Latents after pass `i`, from the network's prediction and the latents before it. Passes must
    /// come in order: a multistep sampler remembers those before.
    fn step(&mut self, noise_pred: &Tensor, i: usize, latents: &Tensor) -> Tensor;
}

/// A sampler of this kind, built on the checkpoint's schedule.
///
/// # Errors
/// When there are no steps or more than the schedule has, and where the checkpoint asks for a variant
/// of the sampler that is not here; see [`SchedulerFile::read_for`].
pub fn new_scheduler(
    kind: SchedulerKind,
    file: &SchedulerFile,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>> {
    let config = &file.read_for(kind)?;
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
        SchedulerKind::Pndm => Box::new(pndm::Pndm::new(config, n)),
    })
}
