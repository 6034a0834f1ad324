//! Checks that a fetched file is the expected one.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The number of bytes that are hashed at a time.
const CHUNK: usize = 1 << 20;

/// Compares the length and the SHA-256 of a file with the expected ones, if they are known.
///
/// # Errors
/// When they differ; the text says what was found and what was expected.
pub(super) fn check(path: &Path, size: Option<u64>, sha256: Option<&str>) -> Result<(), String> {
    let length = path.metadata().map_err(|error| error.to_string())?.len();
    if let Some(size) = size.filter(|&size| size != length) {
        return Err(format!("found {length} bytes, expected {size}"));
    }
    if let Some(expected) = sha256 {
        let found = hash(path).map_err(|error| error.to_string())?;
        if !found.eq_ignore_ascii_case(expected) {
            return Err(format!("found SHA-256 {found}, expected {expected}"));
        }
    }
    Ok(())
}

/// Whether `text` is a SHA-256 in hexadecimal. For files kept outside git the hub's etag is one.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// `5.14 GB`, `167.3 MB`, `1 kB`: decimal units, as the hub's pages show them.
pub fn human_size(bytes: u64) -> String {
    let size = bytes as f64;
    match bytes {
        1_000_000_000.. => format!("{:.2} GB", size / 1e9),
        1_000_000.. => format!("{:.1} MB", size / 1e6),
        1_000.. => format!("{:.0} kB", size / 1e3),
        _ => format!("{bytes} B"),
    }
}
