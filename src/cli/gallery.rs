//! Flags of `gallery`.

use std::path::PathBuf;

use clap::Args;

use super::SingleRunFlags;

/// Flags of `gallery`.
#[derive(Clone, Debug, Default, Args)]
pub struct GalleryFlags {
    /// Folders of generate-base, tune, sample, story, sweep or ablate, or folders that hold such
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,

    /// The page, which is written anew where it is there [default: gallery.html in DIR; with several
    /// folders it must be named]
    #[arg(short, long, value_name = "FILE.html")]
    pub output: Option<PathBuf>,

    /// Flags of the run.
    #[command(flatten)]
    pub run: SingleRunFlags,
}
