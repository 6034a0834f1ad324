//! `scheduler/scheduler_config.json`.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::model;

/// What the network predicts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise ε.
    Epsilon,
    /// `v = √ᾱ ε - √(1-ᾱ) z0` (arXiv 2202.00512).
    VPrediction,
}

/// How the steps are spread over the schedule (arXiv 2305.08891, table 2).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "the names say all there is; the samplers give the formulas"
)]
pub enum TimestepSpacing {
    Leading,
    Trailing,
    Linspace,
}

/// How β grows over the schedule.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum BetaSchedule {
    Linear,
    ScaledLinear,
}

/// The sigma that the last step ends at.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinalSigmas {
    #[default]
    Zero,
    SigmaMin,
}

/// Samplers that can be chosen.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum SchedulerKind {
    /// Euler steps on the probability flow (arXiv 2206.00364).
    #[serde(rename = "euler")]
    Euler,
    /// DPM-Solver++ 2M (arXiv 2211.01095).
    #[serde(rename = "dpm++2m")]
    DpmSolverMultistep,
    /// DDIM with η = 0 (arXiv 2010.02502).
    #[serde(rename = "ddim")]
    Ddim,
    /// PLMS, PNDM without Runge-Kutta steps (arXiv 2202.09778).
    #[serde(rename = "pndm")]
    Pndm,
}

impl SchedulerKind {
    /// The name that flags, files and metadata use.
    pub fn name(self) -> &'static str {
        match self {
            SchedulerKind::Euler => "euler",
            SchedulerKind::DpmSolverMultistep => "dpm++2m",
            SchedulerKind::Ddim => "ddim",
            SchedulerKind::Pndm => "pndm",
        }
    }
}

/// The checkpoint's schedule, read from its file.
#[derive(Clone, Debug, Deserialize)]
pub struct SchedulerConfig {
    /// The sampler that the checkpoint names.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Length of the schedule.
    pub num_train_timesteps: usize,
    /// What the network predicts.
    #[serde(default = "epsilon")]
    pub prediction_type: PredictionType,
    /// How the steps are spread; samplers have different defaults.
    #[serde(default)]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to every timestep with leading spacing.
    #[serde(default)]
    pub steps_offset: i64,
    /// Sigmas as arXiv 2206.00364 spreads them.
    #[serde(default)]
    pub use_karras_sigmas: Option<bool>,
    /// DDIM and PNDM: whether the last step ends at ᾱ = 1 rather than at the schedule's first ᾱ.
    /// Without it DDIM does, PNDM does not.
    #[serde(default)]
    pub set_alpha_to_one: Option<bool>,
    /// PNDM: whether it begins without Runge-Kutta steps.
    #[serde(default)]
    pub skip_prk_steps: bool,
    pub(super) beta_start: f64,
    pub(super) beta_end: f64,
    pub(super) beta_schedule: BetaSchedule,
    #[serde(default)]
    pub(super) final_sigmas_type: FinalSigmas,
    #[serde(default = "yes")]
    pub(super) lower_order_final: bool,
    #[serde(default)]
    pub(super) euler_at_final: bool,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn epsilon() -> PredictionType {
    PredictionType::Epsilon
}
fn yes() -> bool {
    true
}

/// Length of a schedule; all known models have 1000.
const TRAIN_TIMESTEPS: RangeInclusive<usize> = 2..=100_000;

/// Fields with the one value (besides null and absence) that the samplers here compute.
/// Latents have no bounds, so `clip_sample` has no meaning for them; SDXL's file says false.
const FIXED: [(&str, &str); 13] = [
    ("algorithm_type", "\"dpmsolver++\""),
    ("clip_sample", "false"),
    ("interpolation_type", "\"linear\""),
    ("rescale_betas_zero_snr", "false"),
    ("sigma_max", "null"),
    ("sigma_min", "null"),
    ("solver_order", "2"),
    ("solver_type", "\"midpoint\""),
    ("thresholding", "false"),
    ("timestep_type", "\"discrete\""),
    ("trained_betas", "null"),
    ("use_beta_sigmas", "false"),
    ("use_exponential_sigmas", "false"),
];

impl SchedulerConfig {
    /// Reads and checks the file's text.
    ///
    /// # Errors
    /// When it does not parse, or asks for something that no sampler here computes.
    pub fn parse(text: &str) -> Result<Self> {
        let file = "scheduler/scheduler_config.json";
        // Python writes the default of a field that is not used here in a way that JSON does not know.
        let text = text.replace(": -Infinity", ": null");
        let config: SchedulerConfig =
            serde_json::from_str(&text).map_err(|e| model(format!("{file}: {e}")))?;
        for (key, only) in FIXED {
            match config.rest.get(key).map(ToString::to_string).as_deref() {
                None | Some("null") => {}
                Some(found) if found == only => {}
                Some(found) => {
                    return Err(model(format!(
                        "{file}: {key}: found {found}, this port knows {only} only"
                    )));
                }
            }
        }
        if !TRAIN_TIMESTEPS.contains(&config.num_train_timesteps) {
            return Err(model(format!(
                "{file}: num_train_timesteps: found {}, expected {} to {}",
                config.num_train_timesteps,
                TRAIN_TIMESTEPS.start(),
                TRAIN_TIMESTEPS.end()
            )));
        }
        for (key, beta) in [
            ("beta_start", config.beta_start),
            ("beta_end", config.beta_end),
        ] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(model(format!(
                    "{file}: {key}: found {beta}, expected a number between 0 and 1"
                )));
            }
        }
        let last = config.num_train_timesteps as i64 - 1;
        if !(0..=last).contains(&config.steps_offset) {
            return Err(model(format!(
                "{file}: steps_offset: found {}, expected 0 to {last}",
                config.steps_offset
            )));
        }
        config.own_kind()?;
        Ok(config)
    }

    /// The sampler that the checkpoint names.
    ///
    /// # Errors
    /// When it is not one of the four.
    pub fn own_kind(&self) -> Result<SchedulerKind> {
        match self.class_name.as_str() {
            "EulerDiscreteScheduler" => Ok(SchedulerKind::Euler),
            "DPMSolverMultistepScheduler" => Ok(SchedulerKind::DpmSolverMultistep),
            "DDIMScheduler" => Ok(SchedulerKind::Ddim),
            "PNDMScheduler" => Ok(SchedulerKind::Pndm),
            other => Err(model(format!(
                "scheduler/scheduler_config.json: _class_name: found {other}, expected EulerDiscreteScheduler, DPMSolverMultistepScheduler, DDIMScheduler or PNDMScheduler"
            ))),
        }
    }

    pub(super) fn karras(&self) -> bool {
        self.use_karras_sigmas == Some(true)
    }
}
