//! Standard output holds results and nothing else; standard error holds the rest. A failed write
//! does not panic. A lost result is reported as an error at the end of the run.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;

use crate::error::{printable, runtime};

/// The first error that kept a result from being written.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes results to standard output. After a failed write nothing more is written, so that the
/// output has no gap; see [`check`].
pub fn print(results: impl AsRef<[u8]>) {
    if LOST.get().is_some() {
        return;
    }
    note(io::stdout().write_all(results.as_ref()));
}

/// Records the outcome of a write to standard output. A closed pipe is not a failure: its reader
/// wants no more.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written.and_then(|()| io::stdout().flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first error is kept.
        let _ = LOST.set(error);
    }
}

/// Checks that all results were written. Call it once, at the end of the run: a lost result does
/// not keep files from being written.
///
/// # Errors
/// When a result was lost.
pub fn check() -> Result<()> {
    match LOST.get() {
        None => Ok(()),
        Some(error) => Err(runtime(format!(
            "standard output cannot be written: {error}; some results are missing from it, but every file was kept: \
             make room, or send the output elsewhere, and run the command again"
        ))),
    }
}

/// A path as a line of results. Its bytes are written unchanged and need not be UTF-8.
pub fn path_line(path: &Path) -> Vec<u8> {
    [path.as_os_str().as_encoded_bytes(), b"\n"].concat()
}

/// Writes a line to standard error, with control characters escaped. A failure is ignored because
/// there is nowhere left to report it.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}
