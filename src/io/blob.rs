//! A file of a model: on disk, compiled into the binary, or part of another file.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::component::Component;
use super::mapped::map_file;
use crate::error::model;
use crate::io::text;

/// The largest size in bytes of a model's text file; the longest known file, a vocabulary, has two
/// million.
const LONGEST_TEXT: u64 = 64 << 20;

/// A file of a model.
#[derive(Clone, Debug)]
pub enum Blob {
    /// On disk.
    File(PathBuf),
    /// On disk, and mapped into memory for the life of the process.
    Mapped {
        /// Path of the file.
        path: PathBuf,
        /// Content.
        bytes: &'static [u8],
    },
    /// Compiled into the binary.
    Embedded {
        /// Path inside the embedded folder.
        name: &'static str,
        /// Content.
        bytes: &'static [u8],
    },
    /// The header of another file alone: names, shapes and number formats of its tensors.
    Outline(Box<Blob>),
    /// A file that has not been fetched, so nothing about it is known.
    Unfetched {
        /// Its path among the model's files.
        name: String,
    },
    /// One network inside a checkpoint in a single file.
    #[allow(private_interfaces, reason = "only this layer looks inside")]
    Component(Arc<Component>),
}

impl Blob {
    /// The file's name in messages.
    pub fn name(&self) -> String {
        match self {
            Blob::File(path) | Blob::Mapped { path, .. } => path.display().to_string(),
            Blob::Embedded { name, .. } => format!("toy:{name}"),
            Blob::Component(component) => component.path.display().to_string(),
            Blob::Outline(blob) => blob.name(),
            Blob::Unfetched { name } => name.clone(),
        }
    }

    /// The same file, mapped, so that its content is kept even if the file is replaced later.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn mapped(self) -> Result<Blob> {
        match self {
            Blob::File(path) => {
                let bytes = map_file(&path)?;
                Ok(Blob::Mapped { path, bytes })
            }
            blob => Ok(blob),
        }
    }

    /// CRC-32 over the content of these files in order, as eight hexadecimal digits.
    ///
    /// # Errors
    /// When a file cannot be read, or is empty.
    pub fn crc32(blobs: &[Blob]) -> Result<String> {
        let mut hasher = crc32fast::Hasher::new();
        for blob in blobs {
            match blob.clone().mapped()? {
                Blob::Embedded { bytes, .. } | Blob::Mapped { bytes, .. } => hasher.update(bytes),
                Blob::Component(component) => hasher.update(component.bytes),
                blob @ (Blob::File(_) | Blob::Outline(_) | Blob::Unfetched { .. }) => {
                    anyhow::bail!("{} has no content that can be read", blob.name())
                }
            }
        }
        Ok(format!("{:08x}", hasher.finalize()))
    }

    /// The content as UTF-8 text.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, or is too long for a config or a vocabulary.
    pub fn read_text(&self) -> Result<String> {
        match self {
            Blob::File(path) => {
                let reading = || format!("reading {}", self.name());
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(LONGEST_TEXT + 1).read_to_end(&mut bytes))
                    .with_context(reading)?;
                if bytes.len() as u64 > LONGEST_TEXT {
                    let limit = LONGEST_TEXT >> 20;
                    return Err(model(format!(
                        "{}: found more than {limit} MiB, expected a small text file",
                        self.name()
                    )));
                }
                text::decode(bytes).with_context(reading)
            }
            Blob::Embedded { bytes, .. } | Blob::Mapped { bytes, .. } => {
                text::decode(bytes.to_vec()).with_context(|| format!("reading {}", self.name()))
            }
            Blob::Component(_) | Blob::Outline(_) | Blob::Unfetched { .. } => {
                anyhow::bail!("{} holds weights, expected text", self.name())
            }
        }
    }
}
