//! Flags of drawing, the same in all commands that draw.

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

/// How a picture is drawn by the frozen model: the same in all commands that draw. The guidance scale
/// is a flag of each, for `sweep` takes a list of them.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help text: [b] and [word] are no links"
)]
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Drawing")]
pub struct DrawingFlags {
    /// What the picture must not show; "" is encoded as an empty text, none at all as zeros (SD: as
    /// an empty text) [default: none]
    #[arg(short, long, value_name = "TEXT")]
    pub negative_prompt: Option<String>,

    /// Read prompts and negative prompts that are longer than the model's limit in chunks, 75 tokens
    /// each for SDXL, instead of cutting their end off [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub long_prompts: Option<bool>,

    /// Read brackets in prompts as weights: (word) is 1.1, [word] 1/1.1, (some words:1.3) 1.3,
    /// \( a bracket; [b] stays the base word [default: false, brackets are text]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub prompt_weights: Option<bool>,

    /// Seed of the first image; image i (from 0) has seed + i. Only the lowest 32 bits of a seed count:
    /// 4294967296 draws what 0 draws [default: 0]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<i64>,

    /// Denoising steps [default: 30 (paper, Sec. 4)]
    #[arg(
        long,
        visible_alias = "num-inference-steps",
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub steps: Option<i64>,

    /// Width in pixels, a multiple of 8 [default: the model's own, 1024 for SDXL, 512 for SD 1.5]
    #[arg(
        short = 'W',
        long,
        value_name = "PIXELS",
        allow_negative_numbers = true
    )]
    pub width: Option<i64>,

    /// Height in pixels, a multiple of 8 [default: the model's own, 1024 for SDXL, 512 for SD 1.5]
    #[arg(
        short = 'H',
        long,
        value_name = "PIXELS",
        allow_negative_numbers = true
    )]
    pub height: Option<i64>,

    /// euler, dpm++2m, ddim or pndm [default: the model's own, euler for SDXL, pndm for SD 1.5]
    #[arg(long, value_name = "NAME")]
    pub scheduler: Option<String>,

    /// Images drawn at once: more is faster on a GPU and needs more memory [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<i64>,

    /// Show every N steps what is being drawn, and what is finished, on preview.png in the folder of the results: colours
    /// from the latents without the VAE, one pixel each. The file goes when the run ends [default: no preview]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub preview_every: Option<i64>,

    /// Redo what is already there [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub overwrite: Option<bool>,
}
