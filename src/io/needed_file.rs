//! A file that something is read from, on this machine or still on a hub.

use std::path::PathBuf;

/// A file that something is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededFile {
    /// Its path among the model's files.
    pub name: String,
    /// Where it lies, or will lie; `None` for what is in the binary.
    pub path: Option<PathBuf>,
    /// Its length, where that is known.
    pub bytes: Option<u64>,
    /// How much of it is still to be fetched, where that is known.
    pub missing: Option<u64>,
}

impl NeededFile {
    /// Whether it can be read without being fetched.
    pub fn is_here(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.is_file())
    }
}
