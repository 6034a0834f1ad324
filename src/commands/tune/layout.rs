//! Where tuning reads and writes.

use std::path::{Path, PathBuf};

use crate::cli::Method;
use crate::config::TuneJob;

/// The files of a base folder that belong to tuning, and those that come of it.
pub(super) struct TuneFiles<'a> {
    results: &'a Path,
    method: Method,
}

impl<'a> TuneFiles<'a> {
    pub(super) fn of(job: &'a TuneJob) -> Self {
        TuneFiles {
            results: &job.output_dir,
            method: job.method,
        }
    }
    /// The actor, or what a baseline has learnt.
    pub(super) fn result(&self) -> PathBuf {
        self.results.join(self.method.file())
    }
    pub(super) fn log(&self) -> PathBuf {
        self.named("jsonl")
    }
    pub(super) fn config(&self) -> PathBuf {
        self.named("json")
    }
    /// Where an interrupted run stopped …
    pub(super) fn checkpoint(&self) -> PathBuf {
        self.named("checkpoint.safetensors")
    }
    /// … and its settings.
    pub(super) fn checkpoint_config(&self) -> PathBuf {
        self.named("checkpoint.json")
    }
    fn named(&self, ending: &str) -> PathBuf {
        self.results.join(format!("{}.{ending}", self.method.log()))
    }
}
