//! A row of a manifest.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PictureRecord, json};
use crate::config::batch::Settings;
use crate::error::usage;

/// A picture of a folder: its file, the settings that drew it, and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestRow {
    /// Path of the picture below the manifest's folder.
    pub path: String,
    /// Time in seconds; `None` if the picture was drawn by a process that was killed before it wrote the row.
    #[serde(default, deserialize_with = "json::or_default")]
    pub seconds: Option<f64>,
    /// Largest memory of the GPU, in bytes; `None` on a CPU.
    #[serde(
        default,
        deserialize_with = "json::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub peak_gpu_memory: Option<i64>,
    /// In the manifest of a part (`--shard`): how many images each prompt has. `merge` needs it for the contact
    /// sheet. Earlier versions did not write it.
    #[serde(
        default,
        deserialize_with = "json::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub num_images: Option<usize>,
    /// The settings of the picture, and checksums and revisions of the files that they name.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Whether a key identifies a file that the settings only name.
fn is_source(key: &str) -> bool {
    key.ends_with("_crc32") || key.ends_with("_revision")
}

impl ManifestRow {
    /// The row of a picture that was drawn with these settings.
    pub fn new(path: &str, settings: &Settings) -> Self {
        Self {
            path: path.to_owned(),
            seconds: None,
            peak_gpu_memory: None,
            num_images: None,
            settings: settings.clone(),
        }
    }

    /// Reads a line of a manifest.
    ///
    /// # Errors
    /// When the line is not a JSON object with a `path`.
    pub fn parse(line: &str) -> Result<Self> {
        let row: Settings = serde_json::from_str(line)
            .map_err(|_| usage("found no JSON object, expected the row of a picture"))?;
        if !row.get("path").is_some_and(Value::is_string) {
            return Err(usage(
                "found no `path`, expected the name of a picture in the folder",
            ));
        }
        Ok(serde_json::from_value(Value::Object(row))?)
    }

    /// The line of a manifest, its keys in alphabetical order.
    ///
    /// # Errors
    /// Never fails for the rows of this program.
    pub fn to_line(&self) -> Result<String> {
        Ok(format!("{}\n", json::to_value(self)?))
    }

    /// Whether the settings are exactly these. Checksums and revisions of files do not count.
    pub fn has_settings(&self, settings: &Settings) -> bool {
        let mut others = self.settings.keys().filter(|key| !is_source(key));
        settings
            .iter()
            .all(|(key, value)| self.settings.get(key) == Some(value))
            && others.all(|key| settings.contains_key(key))
    }

    /// The row that describes the picture at `path` as it is now. That is this row, unless the record inside the
    /// picture has other settings: then a process drew the picture again and was killed before it wrote the row,
    /// or wrote the row into another list, and the new row comes from the picture.
    pub fn as_drawn(self, path: &Path) -> Self {
        let Ok(PictureRecord {
            parameters, facts, ..
        }) = PictureRecord::read(path)
        else {
            return self;
        };
        if self.has_settings(&parameters) {
            return self;
        }
        let sources = facts.into_iter().filter(|(key, _)| is_source(key));
        let mut row = Self::new(&self.path, &parameters);
        row.settings.extend(sources);
        row
    }
}
