//! Unfinished downloads of Python's `huggingface_hub`: `blobs/<etag>.incomplete` of older versions,
//! which continue that file, and `blobs/<etag>.<8 hexadecimal digits>.incomplete` of a killed
//! process.
//!
//! The files are copied and not changed: an older version may still continue its file. On a file
//! system that grants every lock to everyone, Python may even be writing at this moment; a copy of
//! what is written so far is still useful. Some of these files are not the beginning of the
//! content, because Python's other ways of fetching write the parts in any order.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::CachedRepo;
use super::listing::RemoteFile;

/// Copies the longest of these files for the content `etag`, whose length is `size`, into the
/// folder `blobs` as the part fetched so far. Returns its length. If the copy fails, the whole file
/// is fetched.
pub(super) fn copy_longest(cache: &CachedRepo, etag: &str, size: u64, blobs: &Path) -> Option<u64> {
    let (leftover, _) = longest(cache, etag, size)?;
    let part = blobs.join(format!("{etag}.part"));
    let copied = fs::create_dir_all(blobs).and_then(|()| fs::copy(leftover, &part));
    // The file may have grown meanwhile, or there is no space for the copy.
    match copied {
        Ok(length) if length <= size => Some(length),
        _ => {
            fs::remove_file(part).ok();
            None
        }
    }
}

/// Bytes of the file that need not be fetched: those fetched here before, otherwise those that
/// Python left.
pub(super) fn head_start(cache: &CachedRepo, file: &RemoteFile) -> u64 {
    let Some(etag) = &file.etag else {
        return 0;
    };
    let ours = cache.bytes_staged(etag);
    match (ours, file.size, &file.sha256) {
        (0, Some(size), Some(_)) => longest(cache, etag, size).map_or(0, |(_, length)| length),
        _ => ours,
    }
}

fn longest(cache: &CachedRepo, etag: &str, size: u64) -> Option<(PathBuf, u64)> {
    let leftovers = cache.leftovers(etag).into_iter();
    leftovers
        .filter(|&(_, length)| length > 0 && length <= size)
        .max_by_key(|&(_, length)| length)
}
