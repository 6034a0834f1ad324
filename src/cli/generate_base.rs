//! Flags of `generate-base`.

use std::path::PathBuf;

use super::setting::{any, settings, whole};
use super::{AxisFlags, ControlFlags, DrawingFlags, ModelFlags, one_or_many};

settings! {
    /// Flags of `generate-base`, and its batch keys.
    pub struct GenerateBaseFlags {
        /// Target prompt: describes the subject, its look and the style, and contains the base word
        #[arg(short, long, value_name = "TEXT")]
        pub prompt: Option<String> = any()
            .takes("text")
            .by_default("needed")
            .says("target prompt; contains the base word"),

        /// Base word: the word or words in the prompt that name the subject. May be given several times: all
        /// these subjects are then drawn and tuned together, as one actor
        #[arg(long, value_name = "WORD")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub subject: Option<Vec<String>> = any()
            .takes("word or words, or a list of them")
            .by_default("needed")
            .says("base word (Sec. 3.1); each word of a list is a separate subject, and all are drawn and \
                tuned together as one actor"),

        /// Folder for base/00.png …, grid.png, base.safetensors and base.json
        #[arg(short, long, value_name = "DIR")]
        pub output_dir: Option<PathBuf> = any()
            .takes("folder")
            .by_default("needed")
            .says("folder for `base/00.png` …, `grid.png`, `base.safetensors`, `base.json`"),

        /// Number of base images, N: one target and N - 1 auxiliary images [default: 11 (paper, Sec. 4)]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub num_images: Option<i64> = whole(2, 1000, Some(11))
            .says("N (Sec. 4): one target and N - 1 auxiliary images"),

        /// Scale of plain classifier-free guidance (Eq. 3) [default: 7.5 (paper, Sec. 4)]
        #[arg(
            long,
            visible_alias = "cfg-scale",
            value_name = "SCALE",
            allow_negative_numbers = true,
            help_heading = "Drawing"
        )]
        pub guidance_scale: Option<f64> = AxisFlags::guidance_scale(),

        /// How the images are drawn.
        #[command(flatten)]
        #[serde(flatten)]
        pub drawing: DrawingFlags,

        /// Control images of the drawing.
        #[command(flatten)]
        #[serde(flatten)]
        pub control: ControlFlags,

        /// Which model draws.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}
