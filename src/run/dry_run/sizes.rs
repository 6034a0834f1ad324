//! Sizes of networks, and free space on disks.

use std::path::Path;

use anyhow::Result;
use tch::Kind;

use crate::backbone::memory::{ModelPart, NetworkSize};
use crate::io::header::TensorFacts;
use crate::io::model_files::{ModelFiles, NeededFile};

/// The size of a network, from the headers of its weight files. For files that are not downloaded yet, the name
/// decides: `.fp16.` means two bytes a value, and all others are assumed to have four.
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
        let size = match files.header(file)? {
            Some(header) if file.path.is_none() => embedded(&header.tensors, kind),
            Some(header) => size_of_tensors(&header.tensors, kind),
            None => {
                let there = if file.name.contains(".fp16.") {
                    Kind::Half
                } else {
                    Kind::Float
                };
                let bytes = file.bytes.unwrap_or(0);
                let size = size_of_values(bytes, there, kind);
                NetworkSize {
                    largest_read: size.largest_read / LARGEST,
                    ..size
                }
            }
        };
        add(&mut network, size);
    }
    Ok(network)
}

/// In a file whose header is not known yet, the largest tensor is assumed to be one tenth: the token embedding of
/// OpenCLIP bigG has 63 of 695 million values.
const LARGEST: u64 = 10;

fn add(network: &mut NetworkSize, size: NetworkSize) {
    network.tensors += size.tensors;
    network.file_bytes += size.file_bytes;
    network.used_bytes += size.used_bytes;
    network.converted_bytes += size.converted_bytes;
    network.largest_read = network.largest_read.max(size.largest_read);
    network.is_embedded |= size.is_embedded;
}

/// The size of a network whose weights are inside the program; they are never released.
fn embedded(tensors: &[TensorFacts], kind: Kind) -> NetworkSize {
    NetworkSize {
        file_bytes: tensors.iter().map(|tensor| tensor.bytes as u64).sum(),
        largest_read: 0,
        is_embedded: true,
        ..size_of_tensors(tensors, kind)
    }
}

/// The size of a network with these tensors. Tensors that are not floats, such as saved positions, are not read and do
/// not count.
pub(super) fn size_of_tensors(tensors: &[TensorFacts], kind: Kind) -> NetworkSize {
    let mut network = NetworkSize::default();
    for tensor in tensors {
        let there = FLOATS.iter().find(|(name, _)| *name == tensor.dtype);
        let Some((_, there)) = there else {
            continue;
        };
        let size = size_of_values(tensor.bytes as u64, *there, kind);
        add(&mut network, NetworkSize { tensors: 1, ..size });
    }
    network
}

/// The part of a model whose files are in this folder.
pub(super) fn part_of(folder: &str) -> ModelPart {
    match folder {
        "unet" => ModelPart::Unet,
        "vae" => ModelPart::Vae,
        _ => ModelPart::Text,
    }
}

/// The types that `io/weights.rs` reads.
const FLOATS: [(&str, Kind); 4] = [
    ("F16", Kind::Half),
    ("BF16", Kind::BFloat16),
    ("F32", Kind::Float),
    ("F64", Kind::Double),
];

/// The size of `bytes` bytes of a mapped file that has the precision `there` and is used in the precision `kind`.
fn size_of_values(bytes: u64, there: Kind, kind: Kind) -> NetworkSize {
    if there == kind {
        return NetworkSize {
            file_bytes: bytes,
            used_bytes: bytes,
            ..NetworkSize::default()
        };
    }
    let values = bytes / there.elt_size_in_bytes() as u64;
    let used_bytes = values * kind.elt_size_in_bytes() as u64;
    NetworkSize {
        used_bytes,
        converted_bytes: used_bytes,
        largest_read: bytes,
        ..NetworkSize::default()
    }
}

/// Free bytes on the disk where a path is or would be; `None` if the system does not say.
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
        // The F32 tensor has 400 bytes in the file, the F16 tensor 20.
        let expected = |file_bytes, used_bytes, converted_bytes, largest_read| NetworkSize {
            tensors: 2,
            file_bytes,
            used_bytes,
            converted_bytes,
            largest_read,
            is_embedded: false,
        };
        let size = |kind| size_of_tensors(&tensors, kind);
        assert_eq!(size(Kind::Float), expected(400, 440, 40, 20));
        assert_eq!(size(Kind::Half), expected(20, 220, 200, 400));
        assert_eq!(size(Kind::BFloat16), expected(0, 220, 220, 400));
        let inside = embedded(&tensors, Kind::Half);
        assert_eq!((inside.file_bytes, inside.largest_read), (468, 0));
    }
}
