//! A job that is ready to be done: what it writes, loads and tells beforehand.

use std::path::PathBuf;

use anyhow::Result;

use super::session::Session;

/// A job that is ready to be done.
pub trait Prepared {
    /// Whether its files are those that it reads.
    fn only_reads(&self) -> bool {
        false
    }

    /// The files that it would write, those that are there and finished left out; of a job that writes
    /// none, those that it reads.
    fn files(&self) -> Vec<PathBuf>;

    /// Refuses networks that could not be loaded.
    ///
    /// # Errors
    /// Names file and tensor.
    fn check_networks(&self) -> Result<()> {
        Ok(())
    }

    /// Its resolved settings, for `--dry-run` and `--verbose`.
    fn settings(&self) -> serde_json::Value;

    /// What it loads, so that jobs which load the same are done one after the other.
    fn loads(&self) -> Loads {
        Loads::default()
    }

    /// What `--dry-run` tells: what would be written.
    ///
    /// # Errors
    /// When something is found that would go wrong, or not as it is meant.
    fn dry_run(&self, session: &Session) -> Result<()> {
        session.list_planned(&self.files());
        Ok(())
    }
}

/// What a job loads and reads.
#[derive(Default)]
pub(crate) struct Loads {
    /// What is loaded for it, the dearest first: the model with its LoRAs, what stands beside it, the actors. Equal
    /// texts are equal things.
    pub shared: Vec<String>,
    /// Files that it reads when its turn comes.
    pub reads: Vec<PathBuf>,
}
