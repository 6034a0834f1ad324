//! Flags of `merge`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, RunFlags};

/// Flags of `merge`.
#[derive(Clone, Debug, Default, Args)]
pub struct MergeFlags {
    /// Folders that `sample --shard` has drawn in
    #[arg(value_name = "OUT", required = true)]
    pub folders: Vec<PathBuf>,

    /// How results are listed on stdout: paths, or one JSON object a line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Also show which parts are joined
    #[arg(short, long)]
    pub verbose: bool,

    /// Check everything and list the files that would be written, then stop; nothing is changed or removed
    #[arg(long)]
    pub dry_run: bool,
}

impl MergeFlags {
    /// As flags of a run.
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
