//! Standard output, which holds results and nothing else, and standard error, which holds the rest. A write that fails
//! is no panic; a result that is lost is an error at the end of the run.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;

use crate::error::{printable, runtime};

/// Why a result could not be written, once that has happened.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes results on standard output. After a failure nothing more is written there, so that what has arrived has no
/// gap; see [`check`].
pub fn print(results: impl AsRef<[u8]>) {
    if LOST.get().is_some() {
        return;
    }
    note(io::stdout().write_all(results.as_ref()));
}

/// Records the outcome of a write on standard output. A reader that has closed the pipe wants no more: that is no
/// failure.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written.and_then(|()| io::stdout().flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        // The first reason counts.
        let _ = LOST.set(error);
    }
}

/// Whether all results have been written, to be asked once at the end of the run: files are written all the same.
///
/// # Errors
/// When a result is lost.
pub fn check() -> Result<()> {
    match LOST.get() {
        None => Ok(()),
        Some(error) => Err(runtime(format!(
            "standard output cannot be written: {error}; results are missing there, files that were written are kept: \
             make room, or send the output elsewhere, and run the command again"
        ))),
    }
}

/// A path as a line of results: its own bytes, which need not be UTF-8.
pub fn path_line(path: &Path) -> Vec<u8> {
    [path.as_os_str().as_encoded_bytes(), b"\n"].concat()
}

/// Writes a line on standard error, without what a terminal would obey. Nobody can be told where that fails.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}
