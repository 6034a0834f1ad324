//! What a safetensors file tells about itself, without its values.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::tensor::Metadata;

use super::model_layout::refuse_pickled;
use crate::error::usage;

/// A longer header is no file of weights; safetensors' own limit.
const LONGEST: u64 = 100_000_000;

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
    /// As safetensors spells it: F32, BF16 …
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: usize,
}

impl Header {
    /// Reads the header of the file at `path`, however long the file is.
    ///
    /// # Errors
    /// When it can not be read, is no safetensors file, or is shorter or longer than its header says.
    pub fn read(path: &Path) -> Result<Header> {
        let doing = || format!("reading {}", path.display());
        refuse_pickled(path)?;
        let file = File::open(path).with_context(doing)?;
        let whole = file.metadata().with_context(doing)?.len();
        Header::parse(file, whole).map_err(|error| {
            let shown = path.display();
            usage(format!("{shown}: not a whole safetensors file ({error})"))
        })
    }

    /// As [`Header::read`], of the content of a file of `whole` bytes. No more is read than it has, whatever it says.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn parse(mut content: impl Read, whole: u64) -> Result<Header> {
        let mut bytes = Vec::new();
        content.by_ref().take(8).read_to_end(&mut bytes)?;
        let Ok(length) = <[u8; 8]>::try_from(&bytes[..]).map(u64::from_le_bytes) else {
            bail!("{whole} bytes");
        };
        if length > LONGEST.min(whole.saturating_sub(8)) {
            bail!("a header of {length} bytes in a file of {whole}");
        }
        content.take(length).read_to_end(&mut bytes)?;
        let header: Metadata = serde_json::from_slice(&bytes[8..])?;
        let expected = 8 + length + header.data_len() as u64;
        if expected != whole {
            bail!("{whole} bytes, expected {expected}");
        }
        Ok(Header::of(&header))
    }

    /// The header of a whole file in memory; `None` where it is no safetensors file.
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
        let mut absurd = bytes.clone();
        absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        for cut in [
            &bytes[..bytes.len() - 1],
            &bytes[..20],
            &bytes[..4],
            &longer,
            &absurd,
        ] {
            let error = read(cut).expect_err("it is not whole").to_string();
            assert!(error.contains("not a whole safetensors file"), "{error}");
        }
        std::fs::remove_file(&path)?;
        Ok(())
    }
}
