//! CRC-32 of files, by which a file that was changed is told from the one before.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// CRC-32 of bytes as eight hexadecimal digits.
pub fn crc32(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// CRC-32 of the file at `path` as eight hexadecimal digits.
///
/// # Errors
/// When the file cannot be read.
pub fn crc32_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(crc32(&bytes))
}
