//! How large networks and disks are.

use std::path::Path;

use anyhow::Result;
use tch::Kind;

use crate::io::model_files::{ModelFiles, NeededFile};
use crate::sdxl::memory::NetworkSize;

/// What the headers tell of a network's weights. Of files that are still to be fetched the names: `fp16` has two bytes
/// a value, and others are taken to have four.
///
/// # Errors
/// When a file is damaged.
pub(super) fn network_size(
    files: &ModelFiles,
    needed: &[NeededFile],
    kind: Kind,
) -> Result<NetworkSize> {
    let wanted = match kind {
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        _ => "F32",
    };
    let size = kind.elt_size_in_bytes() as u64;
    let mut network = NetworkSize {
        is_as_in_file: true,
        ..NetworkSize::default()
    };
    let weights = needed.iter();
    for file in weights.filter(|file| file.name.ends_with(".safetensors")) {
        let bytes = file.bytes.unwrap_or(0);
        network.file_bytes += bytes;
        match files.header(file)? {
            Some(header) => {
                for tensor in header.tensors {
                    network.used_bytes += tensor.shape.iter().product::<usize>() as u64 * size;
                    network.is_as_in_file &= tensor.dtype == wanted;
                }
            }
            None => {
                let there = if file.name.contains(".fp16.") { 2 } else { 4 };
                network.used_bytes += bytes / there * size;
                network.is_as_in_file &= there == size;
            }
        }
    }
    Ok(network)
}

/// Bytes that are free where a path lies or would lie; `None` where the system does not tell.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|path| path.exists())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}
