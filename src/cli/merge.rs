//! Flags of `merge`.

use std::path::PathBuf;

use clap::Args;

use super::SingleRunFlags;

/// Flags of `merge`.
#[derive(Clone, Debug, Default, Args)]
pub struct MergeFlags {
    /// Folders that `sample --shard` wrote
    #[arg(value_name = "OUT", required = true)]
    pub folders: Vec<PathBuf>,

    /// Flags of the run.
    #[command(flatten)]
    pub run: SingleRunFlags,
}
