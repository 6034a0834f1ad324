//! Flags of `ablate`.

use std::path::PathBuf;

use super::sample::{GuidanceFlags, SubjectAs};
use super::setting::{any, settings, whole};
use super::{AxisFlags, ControlFlags, DrawingFlags, ModelFlags, SampleFlags, one_or_many};

settings! {
    /// Flags of `ablate`, and its batch keys. The variants are tuned with the settings of the actor in `dir`.
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [b] is the placeholder, not a link"
    )]
    pub struct AblateFlags {
        /// Folder with an actor made by tune; the variants are tuned with that actor's settings
        #[arg(value_name = "DIR")]
        pub dir: Option<PathBuf> = any()
            .takes("folder")
            .by_default("needed")
            .says("folder with an actor that `tune` made with all losses"),

        /// What to draw; contains the actor's base word, or [b] in its place; may be given several times
        #[arg(short, long, value_name = "TEXT")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub prompt: Option<Vec<String>> = SampleFlags::prompt(),

        /// Text file with one prompt per line, or - for standard input
        #[arg(long, value_name = "FILE|-")]
        pub prompts_file: Option<PathBuf> = SampleFlags::prompts_file(),

        /// Folder for the pictures, grid.png and manifest.jsonl [default: DIR/ablation]
        #[arg(short, long, value_name = "OUT")]
        pub output_dir: Option<PathBuf> = any()
            .takes("folder")
            .by_default("`ablation` in `dir`")
            .says("folder for `plain_0000-<seed>.png`, `without-aux-aver_…`, `without-aver_…`, `full_…`, `grid.png`, \
                `manifest.jsonl`"),

        /// Number of images per prompt [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub num_images: Option<i64> = SampleFlags::num_images(),

        /// What [b] stands for: the base word, or the target prompt up to its first comma
        /// [default: word]
        #[arg(long, value_name = "FORM", value_enum)]
        pub subject_as: Option<SubjectAs> = SampleFlags::subject_as(),

        /// The photo that the actor was made from, needed only if it was made from one: the variants are tuned
        /// on it too
        #[arg(long, value_name = "FILE")]
        pub target_image: Option<PathBuf> = any()
            .takes("PNG or JPEG")
            .by_default("needed if the actor was made from a photo")
            .says("that photo; `tune.json` records only its name and checksum"),

        /// Rows of a tuning step that pass through the U-Net together; fewer rows need less memory [default:
        /// all K + 2]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub tune_batch_size: Option<i64> = whole(1, 1024, None)
            .takes("rows, 1 to 1024")
            .by_default("all K + 2")
            .says("`micro_batch` of `tune`"),

        /// How strongly the actors guide.
        #[command(flatten)]
        #[serde(flatten)]
        pub axes: AxisFlags,

        /// How the actors guide.
        #[command(flatten)]
        #[serde(flatten)]
        pub guidance: GuidanceFlags,

        /// How the images are drawn.
        #[command(flatten)]
        #[serde(flatten)]
        pub drawing: DrawingFlags,

        /// Control images of the drawings; tuning does not use them.
        #[command(flatten)]
        #[serde(flatten)]
        pub control: ControlFlags,

        /// Which model draws.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}
