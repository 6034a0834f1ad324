//! Flags of ControlNets: the same in all commands that draw, except `story`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use super::setting::Acts::{self, With, WithValue};
use super::setting::Recorded::AsFound;
use super::setting::{any, number, settings, switch, words};
use super::{Method, one_or_many};

/// How a control image is prepared before it goes into the ControlNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preprocess {
    /// Not at all: the image is already a map of edges, depth, a pose or similar.
    #[default]
    None,
    /// Edges by Canny's method, as OpenCV finds them.
    Canny,
}

/// The thresholds of canny have an effect only with `canny`.
const CANNY: Acts = WithValue("control_preprocess", "canny");

/// Largest gradient that canny can find in 8-bit levels: 4 × 255 in each direction, summed.
const STEEPEST: f64 = 2040.0;

settings! {
    /// ControlNets and their control images.
    #[command(next_help_heading = "ControlNet")]
    pub struct ControlFlags {
        /// ControlNet that makes the drawing follow --control-image, with an optional weight after a colon, for
        /// instance diffusers/controlnet-canny-sdxl-1.0:0.8. Several may be given, each with its own image;
        /// their effects are added [default: none; weight 1]
        #[arg(long, value_name = "ID|FOLDER[:SCALE]")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub controlnet: Option<Vec<String>> = any().recorded(AsFound).other(r#""controlnet""#)
            .not_with(Method::Consistory, "would steer the anchors to its image too")
            .takes("repository or folder, optionally with a scale after a colon, `\"a/b:0.8\"`; or a list")
            .by_default("none; scale 1, allowed 0 to 10")
            .says("arXiv 2302.05543; the scale is diffusers' `controlnet_conditioning_scale`; the residuals of several \
                are added"),

        /// Input image of the ControlNet: a PNG or JPEG, resized to the size of the drawing; give one for each
        /// --controlnet, in the same order
        #[arg(long, value_name = "FILE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub control_image: Option<Vec<PathBuf>> = any()
            .acts(With("controlnet")).recorded(AsFound).other(r#""other.png""#)
            .takes("PNG or JPEG, or a list")
            .by_default("needed, one for each `controlnet`")
            .says("input image of the ControlNet, read as diffusers' `load_image` does: rotated by its EXIF \
                orientation, with the alpha channel dropped (a target photo is composited on white instead). \
                Unlike `load_image`, which cuts 16-bit channels (depth maps) off at 255, they are scaled to 8 \
                bits. At most 512 MiB as pixels. Resized to the size of the drawing with Pillow's LANCZOS, \
                width first, without keeping the proportions"),

        /// How the image is prepared first: none leaves it as it is, canny draws its edges; give one for all,
        /// or one for each --controlnet [default: none]
        #[arg(long, value_name = "METHOD", value_enum)]
        #[serde(default, deserialize_with = "one_or_many")]
        pub control_preprocess: Option<Vec<Preprocess>> = words("none")
            .acts(With("controlnet")).recorded(AsFound).other(r#""canny""#)
            .takes("`none`, `canny`, or a list")
            .says("how the resized image is prepared; one value for all images, or one for each"),

        /// Gradient down to which canny continues an edge [default: 100]
        #[arg(long, value_name = "SLOPE", allow_negative_numbers = true)]
        pub canny_low: Option<f64> = number(0.0, STEEPEST, Some(100.0)).acts(CANNY).recorded(AsFound).other("50")
            .says("thresholds of `cv2.Canny`"),

        /// Gradient from which canny starts an edge [default: 200]
        #[arg(long, value_name = "SLOPE", allow_negative_numbers = true)]
        pub canny_high: Option<f64> = number(0.0, STEEPEST, Some(200.0)).acts(CANNY).recorded(AsFound).other("2000")
            .says("thresholds of `cv2.Canny`"),

        /// Apply the ControlNet only to the prompt's rows, and to the outer layers less than to the inner ones:
        /// the drawing follows the image even with a poor prompt. A guidance scale of 3 to 5 suits this mode
        /// [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub guess_mode: Option<bool> = switch().acts(With("controlnet")).recorded(AsFound).other("true")
            .says("diffusers' guess mode: only the prompt's rows are controlled, with weights that rise from \
                0.1 at the outermost layer to 1"),

        /// Where the ControlNet starts, as a fraction of the steps [default: 0]
        #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
        pub control_start: Option<f64> = number(0.0, 1.0, Some(0.0))
            .acts(With("controlnet")).recorded(AsFound).other("0.5")
            .says("diffusers' `control_guidance_start` and `_end`: only steps that lie entirely between the \
                two are controlled; they apply to all ControlNets"),

        /// Where the ControlNet ends, as a fraction of the steps [default: 1]
        #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
        pub control_end: Option<f64> = number(0.0, 1.0, Some(1.0))
            .acts(With("controlnet")).recorded(AsFound).other("0.5")
            .says("diffusers' `control_guidance_start` and `_end`: only steps that lie entirely between the \
                two are controlled; they apply to all ControlNets"),
    }
}
