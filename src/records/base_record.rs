//! `base.json`: how base images were drawn.

use serde::{Deserialize, Serialize};

use super::job_record::{Details, JobRecord};
use super::json;
use crate::config::batch::Settings;

/// The record of a set of base images.
pub type BaseRecord = JobRecord<BaseDetails>;

/// The facts that only `generate-base` records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BaseDetails {
    /// CRC-32 of the files that the settings refer to by name.
    #[serde(default, deserialize_with = "json::or_default")]
    pub sources: Settings,
    /// Number of images that the last run drew: fewer than all if it continued another run.
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
    /// The image's file below the folder of the record.
    #[serde(default, deserialize_with = "json::or_default")]
    pub path: String,
    /// The image's seed.
    #[serde(default, deserialize_with = "json::or_default")]
    pub seed: Option<i64>,
}
