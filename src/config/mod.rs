//! From flags and batch files to jobs that can not be wrong.
//!
//! [`batch`] reads a batch file and refuses what it does not know; `environment` puts what is typed over the
//! environment, and [`layers`] both over job and defaults; then each command's flags are checked
//! once, by `check` of [`GenerateBaseJob`], [`TuneJob`], [`SampleJob`], [`StoryJob`], [`SweepJob`],
//! [`AblateJob`] and [`EvaluateJob`], which also fill in the defaults. What depends on the model or on an actor is
//! checked later, where those are known.

pub mod ablate;
pub mod batch;
mod check;
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
