//! Flags of ControlNets: the same in all commands that draw but `story`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::one_or_many;

/// What is made of a control image before the ControlNet sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preprocess {
    /// Nothing: it is a map of edges, depth, pose or the like already.
    #[default]
    None,
    /// Edges by Canny's method, as OpenCV finds them.
    Canny,
}

/// Pictures that the drawing keeps to.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "ControlNet")]
pub struct ControlFlags {
    /// ControlNet that makes the drawing keep to --control-image, with its weight after a colon,
    /// for instance diffusers/controlnet-canny-sdxl-1.0:0.8; several add up, each with an image of
    /// its own [default: none; of the weight: 1]
    #[arg(long, value_name = "ID|FOLDER[:SCALE]")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub controlnet: Option<Vec<String>>,

    /// What the ControlNet sees: a PNG or JPEG, resized to the size of the drawing; once for each
    /// --controlnet, in the same order
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub control_image: Option<Vec<PathBuf>>,

    /// What is made of the image first: none, or canny for its edges; once for all, or once for
    /// each --controlnet [default: none]
    #[arg(long, value_name = "METHOD", value_enum)]
    #[serde(default, deserialize_with = "one_or_many")]
    pub control_preprocess: Option<Vec<Preprocess>>,

    /// Slope at which canny lets a line go on [default: 100]
    #[arg(long, value_name = "SLOPE", allow_negative_numbers = true)]
    pub canny_low: Option<f64>,

    /// Slope at which canny begins a line [default: 200]
    #[arg(long, value_name = "SLOPE", allow_negative_numbers = true)]
    pub canny_high: Option<f64>,

    /// Control only the rows with a prompt, and the outer layers less than the inner: follows the
    /// image even with a poor prompt; a guidance scale of 3 to 5 suits it [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub guess_mode: Option<bool>,

    /// Where in the steps the ControlNet begins, as a fraction of them [default: 0]
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub control_start: Option<f64>,

    /// Where in the steps it ends [default: 1]
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub control_end: Option<f64>,
}
