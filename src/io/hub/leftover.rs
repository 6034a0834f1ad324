//! Downloads that Python's `huggingface_hub` left half-done: `blobs/<etag>.incomplete` of its older versions, which
//! continue that file, and `blobs/<etag>.<8 hexadecimal digits>.incomplete` of a process that was killed.
//!
//! They are copied and stay as they are: an older version may still continue its own, and where a file system grants
//! every lock to everyone, Python may be writing at this moment. A copy of what is being written is a beginning too.
//! Not every one is the file's beginning, because Python's other ways of fetching write the parts in any order.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::CachedRepo;
use super::listing::RemoteFile;

/// Copies the longest one of the content `etag`, which is `size` long, into the folder `blobs`, as what was fetched
/// so far. Returns its length. Where the copy fails, the file is fetched whole.
pub(super) fn copy_longest(cache: &CachedRepo, etag: &str, size: u64, blobs: &Path) -> Option<u64> {
    let (leftover, _) = longest(cache, etag, size)?;
    let part = blobs.join(format!("{etag}.part"));
    let copied = fs::create_dir_all(blobs).and_then(|()| fs::copy(leftover, &part));
    // It may have grown meanwhile, or there is no space for it.
    match copied {
        Ok(length) if length <= size => Some(length),
        _ => {
            fs::remove_file(part).ok();
            None
        }
    }
}

/// Bytes of the file that need not be fetched: those fetched here before, or else those that Python left.
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
