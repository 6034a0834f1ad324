//! Flags of `sweep`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Deserializer, Serialize};

use super::sample::{Preset, SubjectAs};
use super::{ControlFlags, DrawingFlags, ModelFlags, one_or_many};

/// Flags of `sweep`, and its batch keys. Each is a flag of `sample` too; six of them take lists here.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help text: [b] is the placeholder, not a link"
)]
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct SweepFlags {
    /// Actor: an actor.safetensors, or the folder it lies in; several for several subjects in one
    /// picture
    #[arg(value_name = "DIR|actor.safetensors")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub actors: Option<Vec<PathBuf>>,

    /// What to draw, with the actor's base word or [b] for it (with several actors, the base words
    /// of those that are to be in it)
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Option<String>,

    /// Folder for the pictures, grid.png and manifest.jsonl [default: the folder sweep beside the
    /// actor; with several actors it must be named]
    #[arg(short, long, value_name = "OUT")]
    pub output_dir: Option<PathBuf>,

    /// Images of each value, with the same seeds for all values [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub num_images: Option<i64>,

    /// What [b] stands for: the base word, or the target prompt up to its first comma
    /// [default: word]
    #[arg(long, value_name = "FORM", value_enum)]
    pub subject_as: Option<SubjectAs>,

    /// How much of the target's offset is added to the base word: v in Eq. 15; a list makes it an
    /// axis of the grid, as for the flags below [default: 0.8 (paper, Sec. 4)]
    #[arg(
        long,
        value_name = "V,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Values: at most two lists"
    )]
    #[serde(default, deserialize_with = "numbers")]
    pub semantic_scale: Option<Vec<f64>>,

    /// Pull towards the target: the first eta in Eq. 19 [default: guidance scale + eta_2, so 8.5
    /// (paper, Sec. 4)]
    #[arg(
        long,
        value_name = "SCALE,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Values: at most two lists"
    )]
    #[serde(default, deserialize_with = "numbers")]
    pub eta_1: Option<Vec<f64>>,

    /// Push away from the average of the auxiliary samples: the second eta in Eq. 19
    /// [default: 1 (paper, Sec. 4)]
    #[arg(
        long,
        value_name = "SCALE,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Values: at most two lists"
    )]
    #[serde(default, deserialize_with = "numbers")]
    pub eta_2: Option<Vec<f64>>,

    /// Steps that the actor guides, first-last, counted from 1 [default: 1-20 (paper, Sec. 4), or to
    /// the last step where there are fewer]
    #[arg(
        long,
        value_name = "A-B,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Values: at most two lists"
    )]
    #[serde(default, deserialize_with = "one_or_many")]
    pub guided_steps: Option<Vec<String>>,

    /// Scale of plain classifier-free guidance (Eq. 3) [default: 7.5 (paper, Sec. 4)]
    #[arg(
        long,
        visible_alias = "cfg-scale",
        value_name = "SCALE,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Values: at most two lists"
    )]
    #[serde(default, deserialize_with = "numbers")]
    pub guidance_scale: Option<Vec<f64>>,

    /// With --no-actor: how far the prompt's embedding goes from the empty prompt (0) to the prompt
    /// (1) and beyond (Fig. 3) [default: 1]
    #[arg(
        long,
        value_name = "G,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Values: at most two lists"
    )]
    #[serde(default, deserialize_with = "numbers")]
    pub semantic_interpolation: Option<Vec<f64>>,

    /// How much of the average offset is added in the branch of eta_2
    /// [default: 1 (Eq. 19 as printed)]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub average_scale: Option<f64>,

    /// Defaults to start from: paper, or release (eta_1 7.5, eta_2 0, dpm++2m, as in the authors'
    /// code) [default: paper]
    #[arg(long, value_name = "PRESET", value_enum)]
    pub preset: Option<Preset>,

    /// The plain model, without the actor, for sweeps of guidance scale and semantic interpolation
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub no_actor: Option<bool>,

    /// How the images are drawn.
    #[command(flatten)]
    #[serde(flatten)]
    pub drawing: DrawingFlags,

    /// Pictures that all images keep to.
    #[command(flatten)]
    #[serde(flatten)]
    pub control: ControlFlags,

    /// Which model draws.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelFlags,
}

/// A batch file may give a list or a single number.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f64>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number or a list of numbers")]
    enum Numbers {
        One(f64),
        Many(Vec<f64>),
    }
    let found = Option::<Numbers>::deserialize(deserializer)?;
    Ok(found.map(|numbers| match numbers {
        Numbers::One(number) => vec![number],
        Numbers::Many(numbers) => numbers,
    }))
}
