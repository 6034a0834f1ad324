//! Small safetensors files that this program writes: base sets, actors, offsets, latents.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use safetensors::{Dtype, SafeTensors, View};
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use super::header::defect;
use super::model_layout::refuse_pickled;
use super::values::{bytes, is_finite};
use crate::error::usage;

/// Named tensors with text metadata: the content of one safetensors file.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// Tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The `__metadata__` table.
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Adds a tensor; it is copied to the CPU.
    pub fn insert(&mut self, name: &str, tensor: &Tensor) {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        self.tensors.insert(name.to_string(), tensor);
    }

    /// The file's bytes; equal contents give equal bytes.
    ///
    /// # Errors
    /// When a tensor has a number format that cannot be saved.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let views = self
            .tensors
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), HeaderEntry::new(tensor)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        let bytes = safetensors::serialize(views, Some(metadata)).context("writing safetensors")?;
        with_sorted_header(bytes)
    }

    /// Reads a complete file.
    ///
    /// # Errors
    /// When the file cannot be read, is not a safetensors file, or contains a value that is not
    /// finite; the message names it.
    pub fn read(path: &Path) -> Result<TensorFile> {
        TensorFile::read_named(path, &path.display().to_string())
    }

    fn read_named(path: &Path, shown: &str) -> Result<TensorFile> {
        refuse_pickled(path)?;
        let bytes = std::fs::read(path).with_context(|| format!("reading {shown}"))?;
        let file =
            TensorFile::from_bytes(&bytes).map_err(|error| usage(format!("{shown}: {error:#}")))?;
        match file.tensors.iter().find(|(_, tensor)| !is_finite(tensor)) {
            None => Ok(file),
            Some((name, _)) => Err(usage(format!(
                "{shown}: tensor {name} holds a value that is not finite (NaN or infinite): the file is damaged, make it again"
            ))),
        }
    }

    /// Reads a file whose metadata give its layout as `format`. Messages call the file `what`, such as "the actor".
    ///
    /// # Errors
    /// As [`TensorFile::read`], and when the file has another layout.
    pub fn read_format(path: &Path, what: &str, format: &str) -> Result<TensorFile> {
        let shown = format!("{what} {}", path.display());
        let file = TensorFile::read_named(path, &shown)?;
        match file
            .metadata
            .get("format")
            .map_or("no format", String::as_str)
        {
            found if found == format => Ok(file),
            found => Err(usage(format!("{shown}: found {found}, expected {format}"))),
        }
    }

    /// A text in the metadata.
    ///
    /// # Errors
    /// When the metadata lack the key; the message names `path`.
    pub fn text(&self, key: &str, path: &Path) -> Result<&str> {
        let found = self.metadata.get(key).map(String::as_str);
        found.ok_or_else(|| usage(format!("{}: the metadata lack {key:?}", path.display())))
    }

    /// A number in the metadata.
    ///
    /// # Errors
    /// When the metadata lack the key or its value is not a number; the message names `path`.
    pub fn number<T: FromStr>(&self, key: &str, path: &Path) -> Result<T> {
        let text = self.text(key, path)?;
        text.parse().map_err(|_| {
            usage(format!(
                "{}: metadata {key:?}: found {text:?}, expected a number",
                path.display()
            ))
        })
    }

    /// A list in the metadata, in JSON; `None` if the metadata lack the key.
    ///
    /// # Errors
    /// When the value is not a list of the expected kind, or empty; the message names `path`.
    pub fn list<T: DeserializeOwned>(&self, key: &str, path: &Path) -> Result<Option<Vec<T>>> {
        let Some(text) = self.metadata.get(key) else {
            return Ok(None);
        };
        match serde_json::from_str::<Vec<T>>(text) {
            Ok(list) if !list.is_empty() => Ok(Some(list)),
            _ => Err(usage(format!(
                "{}: metadata {key:?}: found {text:?}, expected a list",
                path.display()
            ))),
        }
    }

    /// As [`TensorFile::read`], from bytes.
    ///
    /// # Errors
    /// When the bytes are not a safetensors file, or contain an unsupported number format or size.
    pub fn from_bytes(bytes: &[u8]) -> Result<TensorFile> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|_| defect(bytes))?;
        let metadata = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let mut tensors = BTreeMap::new();
        let whole = SafeTensors::deserialize(bytes).map_err(|_| defect(bytes))?;
        for (name, view) in whole.iter() {
            let shape = shape_of(view.shape())
                .with_context(|| format!("tensor {name} of shape {:?}", view.shape()))?;
            let kind = kind_of(view.dtype()).with_context(|| format!("tensor {name}"))?;
            tensors.insert(
                name.to_string(),
                Tensor::f_from_data_size(view.data(), &shape, kind)?,
            );
        }
        Ok(TensorFile { tensors, metadata })
    }

    /// The tensor with this name.
    ///
    /// # Errors
    /// When the file has no such tensor; the message names `path`.
    pub fn get(&self, name: &str, path: &Path) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| {
            let found: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            usage(format!(
                "{}: no tensor {name}, found {}",
                path.display(),
                found.join(", ")
            ))
        })
    }
}

/// The same file with the keys of its header sorted. `safetensors` writes the metadata in the order
/// of a hash map, which differs in each run, so the checksum of an actor would differ too.
fn with_sorted_header(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let (length, rest) = bytes.split_at_mut(8);
    let length = u64::from_le_bytes(length.try_into()?) as usize;
    let header = &mut rest[..length];
    let value: serde_json::Value = serde_json::from_slice(header)?;
    let sorted = value.to_string();
    anyhow::ensure!(
        sorted.len() <= length,
        "a header of {length} bytes has grown to {}",
        sorted.len()
    );
    header.fill(b' ');
    header[..sorted.len()].copy_from_slice(sorted.as_bytes());
    Ok(bytes)
}

/// A shape in the form that libtorch takes. The sizes are checked because nothing else bounds them
/// for a tensor without values: beside a 0, a file's header may contain any number.
pub(super) fn shape_of(shape: &[usize]) -> Result<Vec<i64>> {
    const LONGEST: i64 = i32::MAX as i64;
    let axis = |&n: &usize| i64::try_from(n).ok().filter(|n| *n <= LONGEST);
    let axes: Option<Vec<i64>> = shape.iter().map(axis).collect();
    axes.with_context(|| format!("expected at most {LONGEST} along an axis"))
}

fn kind_of(dtype: Dtype) -> Result<Kind> {
    Ok(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        other => anyhow::bail!(
            "found the number format {other:?}, expected F16, BF16, F32, F64, I32, I64 or U8"
        ),
    })
}

/// A tensor's bytes in the form that the serialiser takes.
struct HeaderEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HeaderEntry {
    fn new(tensor: &Tensor) -> Result<HeaderEntry> {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Uint8 => Dtype::U8,
            other => anyhow::bail!("tensors of kind {other:?} cannot be saved"),
        };
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Ok(HeaderEntry {
            dtype,
            shape,
            bytes: bytes(tensor)?,
        })
    }
}

impl View for HeaderEntry {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_are_equal_bytes_and_come_back() -> Result<()> {
        let bytes = || {
            let mut file = TensorFile::default();
            file.insert("b", &Tensor::from_slice(&[1i64, 2]));
            file.insert("a", &Tensor::from_slice(&[0.5f32]));
            let text = |i: usize| (format!("key {i}"), format!("a \"café\" {i}\n"));
            file.metadata = (0..20).map(text).collect();
            file.to_bytes()
        };
        let first = bytes()?;
        assert_eq!(bytes()?, first);
        let read = TensorFile::from_bytes(&first)?;
        assert_eq!(read.tensors["b"], Tensor::from_slice(&[1i64, 2]));
        assert_eq!(read.tensors["a"], Tensor::from_slice(&[0.5f32]));
        assert_eq!(read.metadata["key 7"], "a \"café\" 7\n");
        assert_eq!(read.metadata.len(), 20);
        Ok(())
    }
}
