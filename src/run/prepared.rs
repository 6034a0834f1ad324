//! A job that was checked and can be done: what it writes, what it loads and what a dry run says about it.

use std::path::PathBuf;

use anyhow::Result;

use super::session::Session;

/// A job that was checked and can be done.
pub trait Prepared {
    /// What the jobs are called in messages.
    const JOBS: &str = "jobs";

    /// Whether [`Prepared::files`] lists files that the job reads, instead of files that it writes.
    fn only_reads(&self) -> bool {
        false
    }

    /// The files that the job would write, without those that are finished. For a job that writes no files, the files
    /// that it reads.
    fn files(&self) -> Vec<PathBuf>;

    /// Refuses networks that cannot be loaded, and actors and base images of another model.
    ///
    /// # Errors
    /// With the file and the tensor, or with both models.
    fn check_networks(&self) -> Result<()> {
        Ok(())
    }

    /// The resolved settings of the job, for `--dry-run` and `--verbose`.
    fn settings(&self) -> serde_json::Value;

    /// What the job loads, so that jobs that load the same follow each other.
    fn loads(&self) -> Loads {
        Loads::default()
    }

    /// Prints what `--dry-run` shows; by default the files that would be written.
    ///
    /// # Errors
    /// When the job would fail, or when it would cut a prompt.
    fn dry_run(&self, session: &Session) -> Result<()> {
        session.list_planned(&self.files());
        Ok(())
    }
}

/// What a job loads and reads.
#[derive(Default)]
pub(crate) struct Loads {
    /// What is loaded for the job, the most expensive first: the model with its LoRAs, then ControlNets and adapters,
    /// then the actors. Equal texts stand for equal things.
    pub shared: Vec<String>,
    /// Files that the job reads when it runs.
    pub reads: Vec<PathBuf>,
}
