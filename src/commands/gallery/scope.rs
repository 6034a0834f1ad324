//! Which files may be shown on a page, and the warnings about files that are left out.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::progress::Reporter;

/// The folders that the user named, and the reporter for warnings about files that are left out.
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

    /// Whether a file exists and lies below one of the named folders. A page is made to be given away, so it shows no
    /// file from elsewhere, whatever a manifest says.
    pub fn has(&self, path: &Path) -> bool {
        let is_below = |real: PathBuf| self.named.iter().any(|folder| real.starts_with(folder));
        path.canonicalize().is_ok_and(is_below)
    }

    /// The value of a result; an error is warned of, and the page continues without the value.
    pub fn readable<T>(&self, result: Result<T>) -> Option<T> {
        self.all_readable([result].into_iter()).pop()
    }

    /// The values of many results from one file. The warning has the first error and the number of the others.
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
                others => format!("; and {others} more in the same file"),
            };
            self.reporter.warn(&format!("left out: {first:#}{others}"));
        }
        found
    }
}
