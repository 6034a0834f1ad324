//! Flags of `ablate`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::sample::{GuidanceFlags, SubjectAs};
use super::{ControlFlags, DrawingFlags, ModelFlags, one_or_many};

/// Flags of `ablate`, and its batch keys. How the variants are tuned follows from the actor in `dir`.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help text: [b] is the placeholder, not a link"
)]
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct AblateFlags {
    /// Folder that tune has worked in; the variants are tuned as its actor was
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// What to draw, with the actor's base word or [b] for it; may be given several times
    #[arg(short, long, value_name = "TEXT")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub prompt: Option<Vec<String>>,

    /// Text file with prompts, one a line, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    pub prompts_file: Option<PathBuf>,

    /// Folder for the pictures, grid.png and manifest.jsonl [default: DIR/ablation]
    #[arg(short, long, value_name = "OUT")]
    pub output_dir: Option<PathBuf>,

    /// Images of each prompt [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub num_images: Option<i64>,

    /// What [b] stands for: the base word, or the target prompt up to its first comma
    /// [default: word]
    #[arg(long, value_name = "FORM", value_enum)]
    pub subject_as: Option<SubjectAs>,

    /// The photo that the actor was made from, where it was made from one: tuning needs it again
    #[arg(long, value_name = "FILE")]
    pub target_image: Option<PathBuf>,

    /// Rows of a tuning step that go through the U-Net at once: fewer need less memory
    /// [default: all K + 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tune_batch_size: Option<i64>,

    /// How the actors guide.
    #[command(flatten)]
    #[serde(flatten)]
    pub guidance: GuidanceFlags,

    /// Scale of plain classifier-free guidance (Eq. 3) [default: 7.5 (paper, Sec. 4)]
    #[arg(
        long,
        visible_alias = "cfg-scale",
        value_name = "SCALE",
        allow_negative_numbers = true,
        help_heading = "Drawing"
    )]
    pub guidance_scale: Option<f64>,

    /// How the images are drawn.
    #[command(flatten)]
    #[serde(flatten)]
    pub drawing: DrawingFlags,

    /// Pictures that the drawings keep to; tuning knows none of them.
    #[command(flatten)]
    #[serde(flatten)]
    pub control: ControlFlags,

    /// Which model draws.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelFlags,
}
