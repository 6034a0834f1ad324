//! Files that the user names.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind as Io};
use std::path::Path;

use anyhow::Result;

use crate::error::{Error, ErrorKind, usage};
use crate::wording::no_file;

/// Opens a file; `expected` says what kind of file is needed.
///
/// # Errors
/// When there is no such file, or it cannot be opened.
pub fn open(path: &Path, expected: &str) -> Result<File> {
    File::open(path).map_err(|error| cannot_open(path, expected, error))
}

/// The error for a file that cannot be opened.
pub fn cannot_open(path: &Path, expected: &str, error: IoError) -> anyhow::Error {
    if error.kind() == Io::NotFound {
        return usage(no_file(path, expected));
    }
    let opening = format!("opening {}, expected {expected}", path.display());
    anyhow::Error::new(error).context(Error::new(ErrorKind::Usage, opening))
}
