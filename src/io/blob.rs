//! A file of a model: on disk, or compiled into the binary.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// A file of a model.
#[derive(Clone, Debug)]
pub enum Blob {
    /// On disk.
    File(PathBuf),
    /// Compiled into the binary.
    Embedded {
        /// Path inside the embedded folder.
        name: &'static str,
        /// Content.
        bytes: &'static [u8],
    },
}

impl Blob {
    /// The name that messages show.
    pub fn name(&self) -> String {
        match self {
            Blob::File(path) => path.display().to_string(),
            Blob::Embedded { name, .. } => format!("toy:{name}"),
        }
    }

    /// The content as UTF-8.
    ///
    /// # Errors
    /// When the file can not be read or is not UTF-8.
    pub fn read_text(&self) -> Result<String> {
        match self {
            Blob::File(path) => {
                std::fs::read_to_string(path).with_context(|| format!("reading {}", self.name()))
            }
            Blob::Embedded { bytes, .. } => String::from_utf8(bytes.to_vec())
                .with_context(|| format!("reading {}", self.name())),
        }
    }
}
