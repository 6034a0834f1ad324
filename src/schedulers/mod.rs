//! Noise schedules and samplers, one file per published algorithm. Tables are built once in f64,
//! and a step is addressed by its index. The reference is Python diffusers.

mod config;
mod ddim;
mod dpm_solver_multistep;
mod euler_discrete;
pub mod fields;
pub(crate) mod names;
mod noise_schedule;
mod pndm;
mod sigmas;
mod timesteps;

pub use config::{PredictionType, SchedulerConfig, SchedulerFile, SchedulerKind, TimestepSpacing};
pub use noise_schedule::NoiseSchedule;

use anyhow::Result;
use tch::Tensor;

use crate::error::usage;

/// A sampler for a fixed number of steps. Passes of the network are counted from 0; there is one
/// pass a step in all samplers but PNDM. Latents and arithmetic are f32.
pub trait Scheduler {
    /// The timestep given to the network at each pass; fractional with Karras sigmas. There is one
    /// entry more than there are steps if the first step takes two passes, see
    /// [`step_of`](Self::step_of).
    fn timesteps(&self) -> &[f64];

    /// The step, counted from 1, that pass `i`, counted from 0, belongs to.
    fn step_of(&self, i: usize) -> usize {
        i + 1
    }

    /// Standard deviation of the initial latents.
    fn init_noise_sigma(&self) -> f64;

    /// The network's input at pass `i`, scaled from the latents.
    fn scale_model_input(&self, latents: &Tensor, i: usize) -> Tensor;

    /// The latents after pass `i`, from the network's prediction and the latents before the pass.
    /// Passes must come in order, because a multistep sampler keeps earlier outputs.
    fn step(&mut self, noise_pred: &Tensor, i: usize, latents: &Tensor) -> Tensor;
}

/// A sampler of this kind, built on the checkpoint's schedule.
///
/// # Errors
/// When the number of steps is 0 or exceeds the length of the schedule, or when the checkpoint asks
/// for a variant of the sampler that is not supported; see [`SchedulerFile::read_for`].
pub fn new_scheduler(
    kind: SchedulerKind,
    file: &SchedulerFile,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>> {
    let config = &file.read_for(kind)?;
    let most = config.num_train_timesteps - 1;
    if !(1..=most).contains(&num_inference_steps) {
        return Err(usage(format!(
            "steps: found {num_inference_steps}, expected 1 to {most}: fewer than the model has noise levels, which are {}",
            config.num_train_timesteps
        )));
    }
    let n = num_inference_steps;
    if let SchedulerKind::Ddim | SchedulerKind::Pndm = kind {
        let last = timesteps::last_offset(config, n);
        if config.steps_offset > last {
            return Err(file.wrong_offset(last, n));
        }
    }
    Ok(match kind {
        SchedulerKind::Euler => Box::new(euler_discrete::EulerDiscrete::new(config, n)),
        SchedulerKind::DpmSolverMultistep => {
            Box::new(dpm_solver_multistep::DpmSolverMultistep::new(config, n))
        }
        SchedulerKind::Ddim => Box::new(ddim::Ddim::new(config, n)),
        SchedulerKind::Pndm => Box::new(pndm::Pndm::new(config, n)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::config_file::{ConfigFile, Notes};

    fn with_offset(kind: SchedulerKind, offset: i64, n: usize) -> Result<Box<dyn Scheduler>> {
        let text = format!(
            r#"{{"skip_prk_steps": true, "clip_sample": false, "timestep_spacing": "leading", "steps_offset": {offset}}}"#
        );
        let file = ConfigFile::parse("scheduler_config.json", &text, Notes::default())?;
        new_scheduler(kind, &SchedulerFile::new(file), n)
    }

    /// The largest offsets that work in diffusers 0.42.1.
    #[test]
    fn an_offset_beyond_the_schedule_is_refused_with_the_largest_that_works() {
        use SchedulerKind::{Ddim, DpmSolverMultistep, Euler, Pndm};
        for (n, last) in [(1, 999), (2, 499), (4, 249), (7, 147)] {
            for kind in [Ddim, Pndm] {
                assert!(with_offset(kind, last, n).is_ok(), "{n} {last}");
                if last < 999 {
                    let error = with_offset(kind, last + 1, n).err().expect("too large");
                    let expected =
                        format!("steps_offset: found {}, expected 0 to {last}", last + 1);
                    assert!(error.to_string().contains(&expected), "{error}");
                }
            }
            for kind in [Euler, DpmSolverMultistep] {
                assert!(with_offset(kind, 999, n).is_ok());
            }
        }
    }

    /// The latents after seven steps on made-up outputs equal those of diffusers 0.42.1.
    #[test]
    fn null_is_false_for_ddim_and_refused_where_diffusers_refuses_it() -> Result<()> {
        let scheduler = |kind, key: &str, value: &str| {
            let text =
                format!(r#"{{"skip_prk_steps": true, "clip_sample": false, "{key}": {value}}}"#);
            let file = ConfigFile::parse("scheduler_config.json", &text, Notes::default())?;
            new_scheduler(kind, &SchedulerFile::new(file), 7)
        };
        for (value, expected) in [
            ("null", [27.838_774, 47.707_485, 17.848_435]),
            ("true", [27.837_166, 47.711_872, 17.789_32]),
        ] {
            let mut ddim = scheduler(SchedulerKind::Ddim, "set_alpha_to_one", value)?;
            let mut latents = Tensor::ones([3], (tch::Kind::Double, tch::Device::Cpu));
            for i in 0..7 {
                let output = Tensor::from_slice(&[0.3, -0.2, f64::from(i)]);
                latents = ddim.step(&output, i as usize, &latents);
            }
            let found = Vec::<f64>::try_from(&latents)?;
            let is_close = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-4;
            assert!(found.iter().zip(&expected).all(is_close), "{found:?}");
        }
        for kind in SchedulerKind::ALL {
            for key in ["timestep_spacing", "use_karras_sigmas", "beta_schedule"] {
                let is_known = kind
                    .class()
                    .fields
                    .iter()
                    .any(|list| list.iter().any(|(k, _)| *k == key));
                if is_known {
                    let error = scheduler(kind, key, "null").err().expect(key).to_string();
                    assert!(error.contains(&format!("{key}: found null")), "{error}");
                }
            }
        }
        Ok(())
    }
}
