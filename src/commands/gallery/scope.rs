//! What may stand on a page, and what is said of the rest.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::progress::Reporter;

/// The folders that were named, and where to tell of what is left out.
pub(super) struct Scope<'a> {
    named: Vec<PathBuf>,
    reporter: &'a Reporter,
}

impl<'a> Scope<'a> {
    pub fn of(folders: &[PathBuf], reporter: &'a Reporter) -> Self {
        let real = |folder: &PathBuf| folder.canonicalize().ok();
        Self {
            named: folders.iter().filter_map(real).collect(),
            reporter,
        }
    }

    /// Whether a file is there and lies below one of the folders. A page is made to be given away: what lies elsewhere
    /// has no place on it, whatever a manifest says.
    pub fn has(&self, path: &Path) -> bool {
        let is_below = |real: PathBuf| self.named.iter().any(|folder| real.starts_with(folder));
        path.canonicalize().is_ok_and(is_below)
    }

    /// Tells of what can not be read: the page goes on without it.
    pub fn readable<T>(&self, result: Result<T>) -> Option<T> {
        self.all_readable([result].into_iter()).pop()
    }

    /// The same of many of one file, of which the first is told and the others are counted.
    pub fn all_readable<T>(&self, results: impl Iterator<Item = Result<T>>) -> Vec<T> {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(value) => found.push(value),
                Err(error) => errors.push(error),
            }
        }
        if let [first, others @ ..] = &errors[..] {
            let others = match others.len() {
                0 => String::new(),
                others => format!("; and {others} more of the same file"),
            };
            self.reporter.warn(&format!("left out: {first:#}{others}"));
        }
        found
    }
}
