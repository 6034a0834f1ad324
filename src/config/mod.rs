//! From flags and batch files to jobs that can not be wrong.
//!
//! [`batch`] reads a batch file and refuses what it does not know; [`environment`] puts what is typed over the
//! environment, and [`layers`] both over job and defaults; then each command's flags are checked
//! once, by `check` of [`GenerateBaseJob`], [`TuneJob`], [`SampleJob`], [`StoryJob`], [`SweepJob`],
//! [`AblateJob`] and [`EvaluateJob`], which also fill in the defaults. What depends on the model or on an actor is
//! checked later, where those are known.

pub mod ablate;
pub mod batch;
mod check;
mod consistory;
pub mod controlnet;
pub mod drawing;
pub mod effect;
pub mod environment;
pub mod evaluate;
pub mod folders;
pub mod gallery;
pub mod generate_base;
pub mod image_prompt;
pub mod layers;
pub mod model;
mod paths;
pub mod prompts;
pub mod recorded;
mod redraw;
pub mod sample;
pub mod shard;
pub mod shell;
pub mod story;
pub mod sweep;
pub mod tune;

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
