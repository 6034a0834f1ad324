//! Flags of `gallery`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, RunFlags};

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

    /// How the page's path is listed on stdout: as it is, or as a JSON object
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Also show which folders are on the page
    #[arg(short, long)]
    pub verbose: bool,

    /// Check everything, list the page that would be written and tell how many pictures it would have, then stop
    #[arg(long)]
    pub dry_run: bool,
}

impl GalleryFlags {
    /// As flags of a run, which is not shared with other processes.
    pub fn run(&self) -> RunFlags {
        RunFlags {
            format: self.format,
            quiet: self.quiet,
            verbose: self.verbose,
            dry_run: self.dry_run,
            shard: Some("1/1".to_owned()),
            ..RunFlags::default()
        }
    }
}
