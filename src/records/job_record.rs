//! The JSON file beside results: the settings of the job that made them, and facts for the reader.

use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::json;
use crate::config::batch::Settings;
use crate::io::atomic::write_bytes_atomically;
use crate::io::text;

/// The facts that one command records in addition to those of all commands.
pub trait Details: Serialize + DeserializeOwned {
    /// Version of the file's format.
    const SCHEMA: &'static str;
    /// The command that writes it.
    const COMMAND: &'static str;
}

/// The record of a job. A fact that is missing or has another type is read as its default, because files of earlier
/// versions have fewer of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JobRecord<D> {
    #[serde(default, deserialize_with = "json::or_default")]
    schema: String,
    /// Version of the program that wrote the file.
    #[serde(default, deserialize_with = "json::or_default")]
    version: String,
    #[serde(default, deserialize_with = "json::or_default")]
    command: String,
    /// The settings of the results. The same settings give the same results.
    pub parameters: Settings,
    /// The device, the time and the memory of the run.
    #[serde(flatten)]
    pub run: RunFacts,
    /// The facts that only this command records.
    #[serde(flatten)]
    pub details: D,
}

/// The model, the device, the time and the memory of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunFacts {
    /// Fingerprint of the model's weights.
    #[serde(default, deserialize_with = "json::or_default")]
    pub model_fingerprint: String,
    /// The device, such as `Cpu` or `Cuda(0)`.
    #[serde(default, deserialize_with = "json::or_default")]
    pub device: String,
    /// Seconds of the last run, including loading.
    #[serde(default, deserialize_with = "json::or_default")]
    pub seconds: Option<f64>,
    /// Peak of the GPU memory in use, in bytes; `None` on other devices.
    #[serde(default, deserialize_with = "json::or_default")]
    pub peak_gpu_memory: Option<i64>,
}

impl<D: Details> JobRecord<D> {
    /// The record of results that were made from `parameters`.
    pub fn new(parameters: Settings, run: RunFacts, details: D) -> Self {
        Self {
            schema: D::SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: D::COMMAND.to_owned(),
            parameters,
            run,
            details,
        }
    }

    /// The record in the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`JobRecord::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let reading = format!("reading {}", path.display());
        let text = text::read(path).with_context(|| reading.clone())?;
        Self::parse(&text, &reading)
    }

    /// The record in `text`; messages call its file `name`.
    ///
    /// # Errors
    /// When the text is not a record. Names the file, and the key `parameters` if that is not an object.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        json::typed(json::object(text, name)?, name)
    }

    /// Writes the record to the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{:#}\n", json::to_value(self)?);
        write_bytes_atomically(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::BaseRecord;

    #[test]
    fn keys_that_an_earlier_version_did_not_write_are_optional() -> Result<()> {
        let record = BaseRecord::parse(r#"{"parameters": {"steps": 4}, "later": 1}"#, "base.json")?;
        assert_eq!(record.parameters.len(), 1);
        assert!(record.run.seconds.is_none() && record.details.images.is_empty());
        let text = r#"{"parameters": {}, "seconds": "long", "images_drawn": 3, "device": "Cpu"}"#;
        let record = BaseRecord::parse(text, "base.json")?;
        assert_eq!(record.run.seconds, None);
        assert_eq!(record.details.images_drawn, Some(3));
        assert_eq!(record.run.device, "Cpu");
        Ok(())
    }

    #[test]
    fn a_file_without_settings_is_named_with_the_key() {
        let message = |text: &str| {
            let error = BaseRecord::parse(text, "robot/base.json").expect_err("it is no record");
            error.to_string()
        };
        let expected = "robot/base.json: found no `parameters`, expected an object";
        assert_eq!(message("{}"), expected);
        assert_eq!(message(r#"{"parameters": [1]}"#), expected);
        assert!(
            message("{").starts_with("robot/base.json: this is not valid JSON: line 1, column 1: ")
        );
        assert!(message("[1]").starts_with("robot/base.json: found a list, expected an object"));
    }
}
