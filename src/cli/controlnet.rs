//! Flags of ControlNets: the same in all commands that draw but `story`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use super::setting::Acts::{self, With, WithValue};
use super::setting::Recorded::AsFound;
use super::setting::{any, number, settings, switch, words};
use super::{Method, one_or_many};

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

/// What the thresholds of canny act with.
const CANNY: Acts = WithValue("control_preprocess", "canny");

/// Steepest slope that canny can find in 8-bit levels: 4 × 255 both ways.
const STEEPEST: f64 = 2040.0;

settings! {
    /// Pictures that the drawing keeps to.
    #[command(next_help_heading = "ControlNet")]
    pub struct ControlFlags {
        /// ControlNet that makes the drawing keep to --control-image, with its weight after a colon,
        /// for instance diffusers/controlnet-canny-sdxl-1.0:0.8; several add up, each with an image of
        /// its own [default: none; of the weight: 1]
        #[arg(long, value_name = "ID|FOLDER[:SCALE]")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub controlnet: Option<Vec<String>> = any().recorded(AsFound).other(r#""controlnet""#)
            .not_with(Method::Consistory, "would steer the anchors to its image too")
            .takes("repository or folder, and perhaps a colon and a scale, `\"a/b:0.8\"`; or a list")
            .by_default("none; of the scale, 0 to 10: 1")
            .says("arXiv 2302.05543; the scale is diffusers' `controlnet_conditioning_scale`; the residuals of several \
                are added"),

        /// What the ControlNet sees: a PNG or JPEG, resized to the size of the drawing; once for each
        /// --controlnet, in the same order
        #[arg(long, value_name = "FILE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub control_image: Option<Vec<PathBuf>> = any()
            .acts(With("controlnet")).recorded(AsFound).other(r#""other.png""#)
            .takes("PNG or JPEG, or a list")
            .by_default("needed, one for each `controlnet`")
            .says("what the ControlNet sees, read as by diffusers' `load_image`: turned as its EXIF orientation says, \
                without transparency, whose places have the colours stored there (a photo lies on white instead); but 16 bits \
                a channel, as of depth maps, are scaled to 8, which `load_image` cuts off at 255; at most 512 MiB as pixels; \
                resized to the drawing by Pillow's LANCZOS, widths first, in whatever shape it has"),

        /// What is made of the image first: none, or canny for its edges; once for all, or once for
        /// each --controlnet [default: none]
        #[arg(long, value_name = "METHOD", value_enum)]
        #[serde(default, deserialize_with = "one_or_many")]
        pub control_preprocess: Option<Vec<Preprocess>> = words("none")
            .acts(With("controlnet")).recorded(AsFound).other(r#""canny""#)
            .takes("`none`, `canny`, or a list")
            .says("what is made of the resized image; one for all, or one for each"),

        /// Slope at which canny lets a line go on [default: 100]
        #[arg(long, value_name = "SLOPE", allow_negative_numbers = true)]
        pub canny_low: Option<f64> = number(0.0, STEEPEST, Some(100.0)).acts(CANNY).recorded(AsFound).other("50")
            .says("thresholds of `cv2.Canny`"),

        /// Slope at which canny begins a line [default: 200]
        #[arg(long, value_name = "SLOPE", allow_negative_numbers = true)]
        pub canny_high: Option<f64> = number(0.0, STEEPEST, Some(200.0)).acts(CANNY).recorded(AsFound).other("2000")
            .says("thresholds of `cv2.Canny`"),

        /// Control only the rows with a prompt, and the outer layers less than the inner: follows the
        /// image even with a poor prompt; a guidance scale of 3 to 5 suits it [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub guess_mode: Option<bool> = switch().acts(With("controlnet")).recorded(AsFound).other("true")
            .says("diffusers' guess mode: the rows with a prompt alone are controlled, the outer layers from a tenth on"),

        /// Where in the steps the ControlNet begins, as a fraction of them [default: 0]
        #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
        pub control_start: Option<f64> = number(0.0, 1.0, Some(0.0))
            .acts(With("controlnet")).recorded(AsFound).other("0.5")
            .says("diffusers' `control_guidance_start` and `_end`: only steps that lie wholly between them are \
                controlled; the same for all ControlNets"),

        /// Where in the steps it ends [default: 1]
        #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
        pub control_end: Option<f64> = number(0.0, 1.0, Some(1.0))
            .acts(With("controlnet")).recorded(AsFound).other("0.5")
            .says("diffusers' `control_guidance_start` and `_end`: only steps that lie wholly between them are \
                controlled; the same for all ControlNets"),
    }
}
