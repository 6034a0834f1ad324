//! Turns flags and batch files into checked jobs, whose values are all valid.
//!
//! [`batch`] reads a batch file and refuses unknown keys. `environment` lets typed flags override environment
//! variables, and [`layers`] lets both override a job of the batch file and its defaults. Then the flags of
//! each command are checked once, by `check` of [`GenerateBaseJob`], [`TuneJob`], [`SampleJob`], [`StoryJob`],
//! [`SweepJob`], [`AblateJob`] and [`EvaluateJob`], which also fills in the defaults. Values that depend on the
//! model or on an actor are checked later, when the model and the actor are known.

pub mod ablate;
pub mod batch;
mod check;
mod clap_errors;
pub(crate) mod controlnet;
pub(crate) mod drawing;
pub(crate) mod effect;
pub(crate) mod environment;
pub(crate) mod evaluate;
pub(crate) mod folders;
pub(crate) mod gallery;
pub(crate) mod generate_base;
pub(crate) mod image_prompt;
pub mod layers;
pub(crate) mod model;
mod overridden;
mod paths;
pub mod prompts;
pub(crate) mod recorded;
mod redraw;
pub(crate) mod sample;
pub(crate) mod shard;
pub(crate) mod shell;
pub mod story;
pub(crate) mod sweep;
pub(crate) mod tune;

pub use ablate::AblateJob;
pub use controlnet::ControlJob;
pub use drawing::DrawingJob;
pub use environment::command_line;
pub use evaluate::EvaluateJob;
pub use folders::Writes;
pub use gallery::GalleryJob;
pub use generate_base::GenerateBaseJob;
pub use image_prompt::ImagePromptJob;
pub use layers::{Planned, plan};
pub use model::ModelJob;
pub use sample::{GuidanceJob, SampleJob};
pub use story::StoryJob;
pub use sweep::SweepJob;
pub use tune::TuneJob;
