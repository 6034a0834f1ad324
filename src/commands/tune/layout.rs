//! Where tuning reads and writes.

use std::path::{Path, PathBuf};

use crate::config::TuneJob;
use crate::config::sample::ACTOR_FILE;

/// The files of a base folder that belong to tuning, and those that come of it.
pub(super) struct Layout<'a> {
    base: &'a Path,
    results: &'a Path,
}

impl<'a> Layout<'a> {
    pub(super) fn of(job: &'a TuneJob) -> Self {
        Layout {
            base: &job.dir,
            results: &job.output_dir,
        }
    }
    pub(super) fn base(&self) -> PathBuf {
        self.base.join("base.safetensors")
    }
    pub(super) fn base_config(&self) -> PathBuf {
        self.base.join("base.json")
    }
    pub(super) fn actor(&self) -> PathBuf {
        self.results.join(ACTOR_FILE)
    }
    pub(super) fn log(&self) -> PathBuf {
        self.results.join("tune.jsonl")
    }
    pub(super) fn config(&self) -> PathBuf {
        self.results.join("tune.json")
    }
    /// Where an interrupted run stopped …
    pub(super) fn checkpoint(&self) -> PathBuf {
        self.results.join("tune.checkpoint.safetensors")
    }
    /// … and its settings.
    pub(super) fn checkpoint_config(&self) -> PathBuf {
        self.results.join("tune.checkpoint.json")
    }
}
