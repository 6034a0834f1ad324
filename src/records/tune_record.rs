//! `tune.json`, or a baseline's file such as `textual-inversion.json`: how an actor was tuned.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::job_record::{Details, JobRecord};
use super::json;
use crate::cli::Target;
use crate::method::origin::{BASE_CRC32, TARGET_IMAGE_CRC32};

/// The record of a tuning, by the method of the paper or by a baseline.
pub type TuneRecord = JobRecord<TuneDetails>;

/// The facts that only `tune` records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TuneDetails {
    /// The target that the user chose; `None` for a photo.
    #[serde(default, deserialize_with = "json::or_default")]
    pub target_choice: Option<Target>,
    /// The box `left,top,width,height` in pixels that `--crop` found, or `none`; `None` if no box was searched.
    #[serde(default, deserialize_with = "json::or_default")]
    pub crop_box: Option<String>,
    /// The content of the box: `face` or `subject`.
    #[serde(default, deserialize_with = "json::or_default")]
    pub crop_shows: Option<String>,
    /// File name of the photo that was the target.
    #[serde(default, deserialize_with = "json::or_default")]
    pub target_image: Option<String>,
    /// The prompt of the base images.
    #[serde(default, deserialize_with = "json::or_default")]
    pub prompt: Option<String>,
    /// The base word, or a list of several.
    #[serde(default)]
    pub subject: Value,
    /// How the tuning ended.
    #[serde(default, deserialize_with = "json::or_default")]
    pub result: TuneResult,
}

/// How a tuning ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TuneResult {
    /// Steps that were taken.
    #[serde(default, deserialize_with = "json::or_default")]
    pub steps: Option<usize>,
    /// The step whose validation loss was the lowest.
    #[serde(default, deserialize_with = "json::or_default")]
    pub best_step: Option<usize>,
    /// The lowest validation loss.
    #[serde(default, deserialize_with = "json::or_default")]
    pub best_validation: Option<f64>,
    /// Whether the criterion ended the tuning, instead of the limit of steps.
    #[serde(default, deserialize_with = "json::or_default")]
    pub converged: Option<bool>,
}

impl Details for TuneDetails {
    const SCHEMA: &'static str = "oneactor.tune/v1";
    const COMMAND: &'static str = "tune";
}

impl TuneRecord {
    /// Number of the target among the samples. A photo comes after the base images.
    pub fn target(&self) -> Option<usize> {
        let target = self.parameters.get("target").and_then(Value::as_u64);
        target.and_then(|target| usize::try_from(target).ok())
    }

    /// Whether the target was a photo.
    pub fn is_of_photo(&self) -> bool {
        let crc32 = self.parameters.get(TARGET_IMAGE_CRC32);
        crc32.is_some_and(|crc32| !crc32.is_null())
    }

    /// CRC-32 of the base set that was tuned on; versions before 0.2 did not record it.
    pub fn base_crc32(&self) -> Option<&str> {
        self.parameters.get(BASE_CRC32).and_then(Value::as_str)
    }
}
