//! `scheduler/scheduler_config.json`, read as diffusers' `from_config` reads the file for one of
//! the samplers here, whichever class the file names.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fields;
use crate::error::model;
use crate::io::config_file::{Class, ConfigFile};
use crate::wording::counted;

/// The quantity that the network predicts.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise ε.
    #[default]
    Epsilon,
    /// `v = √ᾱ ε - √(1-ᾱ) z0` (arXiv 2202.00512).
    VPrediction,
}

/// How the steps are spread over the schedule (arXiv 2305.08891, table 2).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "the names are diffusers'; the samplers give the formulas"
)]
pub enum TimestepSpacing {
    Leading,
    Trailing,
    Linspace,
}

/// How β grows over the schedule.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum BetaSchedule {
    #[default]
    Linear,
    ScaledLinear,
}

/// The sigma at the end of the last step.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinalSigmas {
    #[default]
    Zero,
    SigmaMin,
}

/// The samplers that can be chosen.
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
    /// PLMS: PNDM without Runge-Kutta steps (arXiv 2202.09778).
    #[serde(rename = "pndm")]
    Pndm,
}

impl SchedulerKind {
    /// All samplers.
    pub const ALL: [SchedulerKind; 4] = [
        SchedulerKind::Euler,
        SchedulerKind::DpmSolverMultistep,
        SchedulerKind::Ddim,
        SchedulerKind::Pndm,
    ];

    /// The sampler's class in diffusers, with how each parameter is treated.
    pub fn class(self) -> &'static Class {
        match self {
            SchedulerKind::Euler => &fields::EULER_DISCRETE,
            SchedulerKind::DpmSolverMultistep => &fields::DPM_SOLVER_MULTISTEP,
            SchedulerKind::Ddim => &fields::DDIM,
            SchedulerKind::Pndm => &fields::PNDM,
        }
    }

    /// The name used in flags, files and metadata.
    pub fn name(self) -> &'static str {
        match self {
            SchedulerKind::Euler => "euler",
            SchedulerKind::DpmSolverMultistep => "dpm++2m",
            SchedulerKind::Ddim => "ddim",
            SchedulerKind::Pndm => "pndm",
        }
    }
}

/// The schedule as one sampler reads it. Missing fields have the defaults of the sampler's class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Length of the schedule.
    pub num_train_timesteps: usize,
    /// The quantity that the network predicts.
    pub prediction_type: PredictionType,
    /// How the steps are spread; the default depends on the sampler.
    pub(super) timestep_spacing: Option<TimestepSpacing>,
    /// With leading spacing, added to every timestep.
    pub(super) steps_offset: i64,
    /// Whether sigmas are spread as in arXiv 2206.00364.
    pub(super) use_karras_sigmas: Option<bool>,
    /// DDIM and PNDM: whether the last step ends at ᾱ = 1 instead of the schedule's first ᾱ. The
    /// default is true for DDIM and false for PNDM.
    pub(super) set_alpha_to_one: Option<bool>,
    /// DDIM: whether diffusers would clip z_0 to ±1; the default is true.
    clip_sample: Option<bool>,
    /// PNDM: whether the Runge-Kutta steps at the start are left out.
    pub(super) skip_prk_steps: bool,
    pub(super) beta_start: f64,
    pub(super) beta_end: f64,
    pub(super) beta_schedule: BetaSchedule,
    pub(super) final_sigmas_type: FinalSigmas,
    pub(super) lower_order_final: bool,
    pub(super) euler_at_final: bool,
}

impl Default for SchedulerConfig {
    /// The defaults that the four classes share.
    fn default() -> Self {
        SchedulerConfig {
            num_train_timesteps: 1000,
            prediction_type: PredictionType::default(),
            timestep_spacing: None,
            steps_offset: 0,
            use_karras_sigmas: None,
            set_alpha_to_one: None,
            clip_sample: None,
            skip_prk_steps: false,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::default(),
            final_sigmas_type: FinalSigmas::default(),
            lower_order_final: true,
            euler_at_final: false,
        }
    }
}

impl SchedulerConfig {
    pub(super) fn karras(&self) -> bool {
        self.use_karras_sigmas == Some(true)
    }
}

/// Allowed lengths of a schedule; all known models have 1000.
const TRAIN_TIMESTEPS: RangeInclusive<usize> = 2..=100_000;

/// The checkpoint's file. Which fields matter depends on the sampler, see
/// [`read_for`](Self::read_for).
#[derive(Clone, Debug)]
pub struct SchedulerFile {
    file: ConfigFile,
}

impl SchedulerFile {
    /// A file with these values.
    pub fn new(file: ConfigFile) -> Self {
        Self { file }
    }

    /// Corrects the file as diffusers' SD pipeline does: `steps_offset` is set to 1 and
    /// `clip_sample` to false.
    pub fn corrected(mut self) -> Self {
        self.file.set("steps_offset", json!(1));
        self.file.set("clip_sample", json!(false));
        self
    }

    /// The sampler that the file names.
    ///
    /// # Errors
    /// When the file names none of the four samplers.
    pub fn own_kind(&self) -> Result<SchedulerKind> {
        let found = self.file.text("_class_name").unwrap_or("no _class_name");
        let mut kinds = SchedulerKind::ALL.into_iter();
        let kind = kinds.find(|kind| kind.class().name == found);
        kind.ok_or_else(|| {
            self.with_way_out(
                &self
                    .file
                    .wrong("_class_name", "the class of a supported sampler"),
            )
        })
    }

    /// Adds to an error about the file's sampler the names of the samplers that can use this
    /// schedule.
    fn with_way_out(&self, error: &anyhow::Error) -> anyhow::Error {
        let fits = |kind: &SchedulerKind| self.read(*kind).is_ok();
        let kinds: Vec<&str> = SchedulerKind::ALL
            .into_iter()
            .filter(fits)
            .map(SchedulerKind::name)
            .collect();
        model(if kinds.is_empty() {
            format!("{error:#}")
        } else {
            format!(
                "{error:#}; samplers that can draw on this schedule: {}",
                kinds.join(", ")
            )
        })
    }

    /// Reads the file for a sampler of this kind.
    ///
    /// # Errors
    /// When a field does not parse, or asks for something that the sampler does not compute.
    pub fn read_for(&self, kind: SchedulerKind) -> Result<SchedulerConfig> {
        let config = self.read(kind).map_err(|error| self.with_way_out(&error))?;
        if kind == SchedulerKind::Ddim && config.clip_sample != Some(false) {
            self.file.note(
                "clip_sample is true or absent: diffusers' DDIM then clips each step to values between -1 and 1, which spoils \
                 latents; this program does not clip",
            );
        }
        Ok(config)
    }

    fn read(&self, kind: SchedulerKind) -> Result<SchedulerConfig> {
        let config = self.file.read_with(kind.class(), &fields::OTHERS)?;
        self.check(&config)?;
        // PNDM is implemented without its Runge-Kutta steps.
        if kind == SchedulerKind::Pndm && !config.skip_prk_steps {
            return Err(self.file.wrong("skip_prk_steps", "true"));
        }
        Ok(config)
    }

    /// The forward process, which does not depend on the sampler.
    ///
    /// # Errors
    /// As [`read_for`](Self::read_for), and when the file omits a value whose default depends on a
    /// class that is not supported.
    pub fn noise_schedule(&self) -> Result<SchedulerConfig> {
        for key in ["beta_start", "beta_end", "beta_schedule"] {
            if self.file.get(key).is_none() && self.own_kind().is_err() {
                return Err(self
                    .file
                    .wrong(key, "the value with which the model was trained"));
            }
        }
        let config = self
            .file
            .read_with(&fields::NOISE_SCHEDULE, &fields::OTHERS)?;
        self.check(&config)?;
        Ok(config)
    }

    /// The error for a `steps_offset` that moves the first of `n` steps beyond the schedule.
    pub(super) fn wrong_offset(&self, last: i64, n: usize) -> anyhow::Error {
        let expected = format!("0 to {last} with {}", counted(n, "step", "steps"));
        self.with_way_out(&self.file.wrong("steps_offset", &expected))
    }

    fn check(&self, config: &SchedulerConfig) -> Result<()> {
        let file = &self.file;
        if !TRAIN_TIMESTEPS.contains(&config.num_train_timesteps) {
            let (least, most) = (TRAIN_TIMESTEPS.start(), TRAIN_TIMESTEPS.end());
            return Err(file.wrong("num_train_timesteps", &format!("{least} to {most}")));
        }
        for (key, beta) in [
            ("beta_start", config.beta_start),
            ("beta_end", config.beta_end),
        ] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(file.wrong(key, "a number between 0 and 1"));
            }
        }
        let last = config.num_train_timesteps as i64 - 1;
        if (0..=last).contains(&config.steps_offset) {
            Ok(())
        } else {
            Err(file.wrong("steps_offset", &format!("0 to {last}")))
        }
    }
}
