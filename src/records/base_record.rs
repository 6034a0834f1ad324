//! `base.json`: how base images were drawn.

use serde::{Deserialize, Serialize};

use super::job_record::{Details, JobRecord};
use super::json;
use crate::config::batch::Settings;

/// The record of a set of base images.
pub type BaseRecord = JobRecord<BaseDetails>;

/// What only `generate-base` records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BaseDetails {
    /// CRC-32 of the files that the settings only name.
    #[serde(default, deserialize_with = "json::or_default")]
    pub sources: Settings,
    /// Images that the last run has drawn: fewer than all where it continued another.
    #[serde(default, deserialize_with = "json::or_default")]
    pub images_drawn: Option<usize>,
    /// The images in the order of their numbers.
    #[serde(default, deserialize_with = "json::or_default")]
    pub images: Vec<BaseImage>,
}

impl Details for BaseDetails {
    const SCHEMA: &'static str = "oneactor.base/v1";
    const COMMAND: &'static str = "generate-base";
}

/// One base image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BaseImage {
    /// Its file below the folder of the record.
    #[serde(default, deserialize_with = "json::or_default")]
    pub path: String,
    /// The seed that it was drawn with.
    #[serde(default, deserialize_with = "json::or_default")]
    pub seed: Option<i64>,
}
