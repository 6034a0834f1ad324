//! Flags of `story`.

use std::path::PathBuf;

use super::setting::{any, settings};
use super::{AxisFlags, DrawingFlags, GenerateBaseFlags, ModelFlags, TuneFlags};

settings! {
    /// Flags of `story`, and its batch keys. The contents of the story file are described in
    /// [`crate::config::story`].
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [NAME] is no link"
    )]
    pub struct StoryFlags {
        /// Story file: {"title": …, "characters": {"NAME": {"prompt": …, "subject": …} or {"actor": …}},
        /// "scenes": [{"prompt": "a [NAME] at the beach", "caption": …}, …]}; configs/README.md lists all keys
        #[arg(value_name = "STORY.json")]
        pub story: Option<PathBuf> = any(),

        /// Folder for characters/NAME, pictures/0000-SEED.png …, grid.png, manifest.jsonl and
        /// index.html
        #[arg(short, long, value_name = "OUT")]
        pub output_dir: Option<PathBuf> = any(),

        /// Number of base images for each character that the file describes [default: 11 (paper, Sec. 4)]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub num_images: Option<i64> = GenerateBaseFlags::num_images(),

        /// Maximum number of tuning steps for each character [default: 1000]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub max_steps: Option<i64> = TuneFlags::max_steps(),

        /// Scale of plain classifier-free guidance (Eq. 3) [default: 7.5 (paper, Sec. 4)]
        #[arg(
            long,
            visible_alias = "cfg-scale",
            value_name = "SCALE",
            allow_negative_numbers = true,
            help_heading = "Drawing"
        )]
        pub guidance_scale: Option<f64> = AxisFlags::guidance_scale(),

        /// How base images and scenes are drawn; the seed belongs to the first scene.
        #[command(flatten)]
        #[serde(flatten)]
        pub drawing: DrawingFlags,

        /// Which model draws.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}
