//! How large networks and disks are.

use std::path::Path;

use anyhow::Result;
use tch::Kind;

use crate::backbone::memory::{ModelPart, NetworkSize};
use crate::io::header::TensorFacts;
use crate::io::model_files::{ModelFiles, NeededFile};

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
    let mut network = NetworkSize::default();
    let weights = needed.iter();
    for file in weights.filter(|file| file.name.ends_with(".safetensors")) {
        let bytes = file.bytes.unwrap_or(0);
        let size = match files.header(file)? {
            Some(header) => size_of_tensors(&header.tensors, kind),
            None => {
                let there = if file.name.contains(".fp16.") {
                    Kind::Half
                } else {
                    Kind::Float
                };
                let values = bytes / there.elt_size_in_bytes() as u64;
                size_of_values(values, there == kind, kind)
            }
        };
        network.file_bytes += bytes;
        network.tensors += size.tensors;
        network.used_bytes += size.used_bytes;
        network.converted_bytes += size.converted_bytes;
    }
    Ok(network)
}

/// The same of the tensors of a network. Those that are not of floats, such as saved positions, are not read.
pub(super) fn size_of_tensors(tensors: &[TensorFacts], kind: Kind) -> NetworkSize {
    let wanted = match kind {
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        _ => "F32",
    };
    let mut network = NetworkSize::default();
    let is_read = |tensor: &&TensorFacts| FLOATS.contains(&&*tensor.dtype);
    for tensor in tensors.iter().filter(is_read) {
        let values = tensor.shape.iter().product::<usize>() as u64;
        let size = size_of_values(values, tensor.dtype == wanted, kind);
        network.tensors += 1;
        network.file_bytes += tensor.bytes as u64;
        network.used_bytes += size.used_bytes;
        network.converted_bytes += size.converted_bytes;
    }
    network
}

/// The part of a model that lies in this folder.
pub(super) fn part_of(folder: &str) -> ModelPart {
    match folder {
        "unet" => ModelPart::Unet,
        "vae" => ModelPart::Vae,
        _ => ModelPart::Text,
    }
}

/// What `io/weights.rs` takes for weights.
const FLOATS: [&str; 4] = ["F16", "BF16", "F32", "F64"];

/// So many values of a file, used in this precision.
fn size_of_values(values: u64, is_as_in_file: bool, kind: Kind) -> NetworkSize {
    let used_bytes = values * kind.elt_size_in_bytes() as u64;
    NetworkSize {
        used_bytes,
        converted_bytes: if is_as_in_file { 0 } else { used_bytes },
        ..NetworkSize::default()
    }
}

/// Bytes that are free where a path lies or would lie; `None` where the system does not tell.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|path| path.exists())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_weights_of_another_precision_are_converted() {
        let tensor = |dtype: &str, values: usize, size: usize| TensorFacts {
            name: dtype.to_owned(),
            dtype: dtype.to_owned(),
            shape: vec![2, values / 2],
            bytes: values * size,
        };
        let tensors = [
            tensor("F32", 100, 4),
            tensor("F16", 10, 2),
            tensor("I64", 6, 8),
        ];
        let expected = |used_bytes, converted_bytes| NetworkSize {
            tensors: 2,
            file_bytes: 420,
            used_bytes,
            converted_bytes,
        };
        assert_eq!(size_of_tensors(&tensors, Kind::Float), expected(440, 40));
        assert_eq!(size_of_tensors(&tensors, Kind::Half), expected(220, 200));
        assert_eq!(
            size_of_tensors(&tensors, Kind::BFloat16),
            expected(220, 220)
        );
    }
}
