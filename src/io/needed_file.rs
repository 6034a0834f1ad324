//! A file that a part of the program needs, on this machine or still on a hub.

use std::path::PathBuf;

/// A file that a part of the program needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededFile {
    /// The file's path among the model's files.
    pub name: String,
    /// The file's path on this machine, now or after it is fetched; `None` for a file in the
    /// binary.
    pub path: Option<PathBuf>,
    /// The file's length in bytes, if it is known.
    pub bytes: Option<u64>,
    /// The number of bytes still to be fetched, if it is known.
    pub missing: Option<u64>,
}

impl NeededFile {
    /// Whether the file can be read without being fetched.
    pub fn is_here(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.is_file())
    }
}
