//! The header of a safetensors file: names, shapes and metadata, without the values.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use safetensors::tensor::Metadata;

use super::model_layout::refuse_pickled;
use crate::error::usage;
use crate::pictures::photo::picture_kind;

/// The limit for a header's length in bytes, which is safetensors' own.
const LONGEST: u64 = 100_000_000;

/// Enough bytes to know the kind of a file.
const BEGINNING: u64 = 64;

/// The header of a file.
#[derive(Debug)]
pub struct Header {
    /// The `__metadata__` table, by key.
    pub metadata: Vec<(String, String)>,
    /// The tensors, by name.
    pub tensors: Vec<TensorFacts>,
}

/// One tensor.
#[derive(Debug)]
pub struct TensorFacts {
    /// Its name.
    pub name: String,
    /// The number format in safetensors' spelling: F32, BF16 …
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The tensor's size in the file, in bytes.
    pub bytes: usize,
}

impl Header {
    /// Reads the header of the file at `path`; the length of the file does not matter.
    ///
    /// # Errors
    /// When the file cannot be read, is not a safetensors file, or is shorter or longer than its
    /// header says.
    pub fn read(path: &Path) -> Result<Header> {
        let doing = || format!("reading {}", path.display());
        refuse_pickled(path)?;
        let file = File::open(path).with_context(doing)?;
        let whole = file.metadata().with_context(doing)?.len();
        Header::parse(file, whole).map_err(|error| {
            let shown = path.display();
            usage(format!("{shown}: {error}"))
        })
    }

    /// As [`Header::read`], from the content of a file of `whole` bytes. Never reads more bytes
    /// than the content has, whatever the header says.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn parse(mut content: impl Read, whole: u64) -> Result<Header> {
        let mut bytes = Vec::new();
        content.by_ref().take(8).read_to_end(&mut bytes)?;
        let Ok(length) = <[u8; 8]>::try_from(&bytes[..]).map(u64::from_le_bytes) else {
            return Err(not_whole(&format!("found {whole} bytes")));
        };
        content.by_ref().take(1).read_to_end(&mut bytes)?;
        if length > LONGEST || bytes.get(8).is_some_and(|first| *first != b'{') {
            content.take(BEGINNING).read_to_end(&mut bytes)?;
            bail!(
                "not a safetensors file (found {}): check the path, or download the file again",
                kind_of(&bytes)
            );
        }
        if length > whole.saturating_sub(8) {
            return Err(not_whole(&format!(
                "found {whole} bytes, expected a header of {length} bytes and more"
            )));
        }
        content
            .take(length.saturating_sub(1))
            .read_to_end(&mut bytes)?;
        let header: Metadata =
            serde_json::from_slice(&bytes[8..]).map_err(|_| not_whole("its header is damaged"))?;
        let expected = 8 + length + header.data_len() as u64;
        if expected != whole {
            return Err(not_whole(&format!(
                "found {whole} bytes, expected {expected}"
            )));
        }
        Ok(Header::of(&header))
    }

    /// The header of a complete file in memory; `None` if it is not a safetensors file.
    pub fn of_bytes(bytes: &[u8]) -> Option<Header> {
        Header::parse(bytes, bytes.len() as u64).ok()
    }

    fn of(header: &Metadata) -> Header {
        let mut metadata: Vec<(String, String)> =
            header.metadata().clone().into_iter().flatten().collect();
        metadata.sort();
        let mut tensors: Vec<TensorFacts> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| TensorFacts {
                name,
                dtype: format!("{:?}", info.dtype),
                shape: info.shape.clone(),
                bytes: info.data_offsets.1 - info.data_offsets.0,
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Header { metadata, tensors }
    }
}

/// Why these bytes of a file, which the safetensors parser has refused, are not a safetensors file.
pub(super) fn defect(bytes: &[u8]) -> anyhow::Error {
    match Header::parse(bytes, bytes.len() as u64) {
        Err(error) => error,
        Ok(_) => not_whole("its header is damaged"),
    }
}

/// The error for a safetensors file that is cut off or damaged.
fn not_whole(found: &str) -> anyhow::Error {
    anyhow!("not a whole safetensors file ({found}): copy or download it again")
}

/// The kind of a file that begins with these bytes, with its article.
fn kind_of(beginning: &[u8]) -> String {
    if let Some(kind) = picture_kind(beginning) {
        let article = if kind == "AVIF" { "an" } else { "a" };
        return format!("{article} {kind} picture");
    }
    let known = match beginning.trim_ascii_start() {
        [b'<', ..] => "a web page",
        [b'P', b'K', 3, 4, ..] => "a zip archive or PyTorch pickle",
        [b'G', b'G', b'U', b'F', ..] => "GGUF weights",
        [0x80, 2..=5, ..] => "a pickle",
        [0x1f, 0x8b, ..] => "a gzip archive",
        _ if beginning
            .iter()
            .all(|byte| (b' '..=b'~').contains(byte) || b"\t\r\n".contains(byte)) =>
        {
            "text"
        }
        _ => "another kind of file",
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tensors::TensorFile;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn a_header_is_read_and_a_cut_file_refused() -> Result<()> {
        let path = std::env::temp_dir().join(format!(
            "oneactor-header-{}.safetensors",
            std::process::id()
        ));
        let mut file = TensorFile::default();
        file.insert("b", &Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)));
        file.insert("a", &Tensor::zeros([4], (Kind::Int64, Device::Cpu)));
        file.metadata.insert("format".into(), "test/v1".into());
        let bytes = file.to_bytes()?;
        let read = |bytes: &[u8]| -> Result<Header> {
            std::fs::write(&path, bytes)?;
            Header::read(&path)
        };
        let header = read(&bytes)?;
        assert_eq!(header.metadata, [("format".into(), "test/v1".into())]);
        let found: Vec<(&str, &str, &[usize], usize)> = header
            .tensors
            .iter()
            .map(|t| (&*t.name, &*t.dtype, &t.shape[..], t.bytes))
            .collect();
        assert_eq!(
            found,
            [("a", "I64", &[4][..], 32), ("b", "F32", &[2, 3][..], 24)]
        );
        let mut longer = bytes.clone();
        longer.push(0);
        let mut damaged = bytes.clone();
        damaged[10] = 0;
        for cut in [
            &bytes[..bytes.len() - 1],
            &bytes[..20],
            &bytes[..4],
            &longer,
            &damaged,
        ] {
            let error = read(cut).expect_err("it is not whole").to_string();
            assert!(error.contains("not a whole safetensors file"), "{error}");
            assert_eq!(error, format!("{}: {}", path.display(), defect(cut)));
        }
        for (other, kind) in [
            (&b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01"[..], "a JPEG picture"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG picture"),
            (b"\n<!doctype html>", "a web page"),
            (
                b"PK\x03\x04archive/data.pkl",
                "a zip archive or PyTorch pickle",
            ),
            (b"a text and no header", "text"),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                "another kind of file",
            ),
        ] {
            let error = read(other).expect_err("another kind of file").to_string();
            let expected = format!("not a safetensors file (found {kind}): check the path");
            assert!(error.contains(&expected), "{error}");
        }
        std::fs::remove_file(&path)?;
        Ok(())
    }
}
