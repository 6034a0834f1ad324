//! Flags of `gallery`.

use std::path::PathBuf;

use clap::Args;

use super::SingleRunFlags;

/// Flags of `gallery`.
#[derive(Clone, Debug, Default, Args)]
pub struct GalleryFlags {
    /// Folders written by generate-base, tune, sample, story, sweep or ablate, or folders that contain such folders
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,

    /// The page; an existing one is overwritten [default: gallery.html in DIR; must be given with several folders]
    #[arg(short, long, value_name = "FILE.html")]
    pub output: Option<PathBuf>,

    /// Flags of the run.
    #[command(flatten)]
    pub run: SingleRunFlags,
}
