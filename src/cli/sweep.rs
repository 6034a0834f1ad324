//! Flags of `sweep`.

use std::path::PathBuf;

use super::sample::{GuidanceFlags, SubjectAs};
use super::setting::{any, settings};
use super::{AxisLists, ControlFlags, DrawingFlags, ModelFlags, SampleFlags, one_or_many};

settings! {
    /// Flags of `sweep`, and its batch keys. Each is also a flag of `sample`; six of them take lists here.
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [b] is the placeholder, not a link"
    )]
    pub struct SweepFlags {
        /// Actor: an actor.safetensors file or its folder. Give several actors to draw several subjects in one
        /// picture
        #[arg(value_name = "DIR|actor.safetensors")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub actors: Option<Vec<PathBuf>> = SampleFlags::actors(),

        /// What to draw; contains the actor's base word, or [b] in its place (with several actors, the base
        /// words of those to draw)
        #[arg(short, long, value_name = "TEXT")]
        pub prompt: Option<String> = any()
            .takes("text")
            .by_default("needed")
            .says("one prompt; contains the base word or `[b]`, with several actors the base words of those to draw"),

        /// Folder for the pictures, grid.png and manifest.jsonl [default: the folder sweep beside the actor;
        /// must be given with several actors]
        #[arg(short, long, value_name = "OUT")]
        pub output_dir: Option<PathBuf> = any()
            .takes("folder")
            .by_default("`sweep` beside the actor; needed with several actors")
            .says("folder for the pictures, `grid.png`, `manifest.jsonl`"),

        /// Number of images per value; all values use the same seeds [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub num_images: Option<i64> = SampleFlags::num_images(),

        /// What [b] stands for: the base word, or the target prompt up to its first comma
        /// [default: word]
        #[arg(long, value_name = "FORM", value_enum)]
        pub subject_as: Option<SubjectAs> = SampleFlags::subject_as(),

        /// The settings that vary.
        #[command(flatten)]
        #[serde(flatten)]
        pub axes: AxisLists,

        /// How the actor guides.
        #[command(flatten)]
        #[serde(flatten)]
        pub guidance: GuidanceFlags,

        /// How the images are drawn.
        #[command(flatten)]
        #[serde(flatten)]
        pub drawing: DrawingFlags,

        /// Control images of all pictures.
        #[command(flatten)]
        #[serde(flatten)]
        pub control: ControlFlags,

        /// Which model draws.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}
