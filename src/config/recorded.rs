//! Chooses the settings of a job that a picture records.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::batch::Settings;
use super::layers;
use crate::cli::setting::{AllowedValues, Recorded};
use crate::cli::{Declared, SampleFlags, Setting};

/// The values of those `settings` that pictures record, taken from the fields of `job` with the same names.
/// Left out are settings that are resolved later, and settings of a single picture such as its seed.
///
/// # Errors
/// Never fails for the jobs of this program.
pub fn recorded<J: Serialize>(job: &J, settings: &[Setting]) -> Result<Settings> {
    let mut values = layers::settings(job)?;
    let mut recorded = Settings::new();
    for setting in settings {
        let is_told = |value: &Value| match setting.recorded {
            Recorded::Always => true,
            Recorded::UnlessDefault => *value != setting.values.default(),
            Recorded::Never | Recorded::AsFound | Recorded::OfPicture => false,
        };
        let Some(value) = values.remove(setting.key).filter(is_told) else {
            continue;
        };
        let value = match (setting.values, &value) {
            (AllowedValues::Steps, Value::Array(ends)) => json!(format!("{}-{}", ends[0], ends[1])),
            _ => value,
        };
        recorded.insert(setting.key.to_owned(), value);
    }
    Ok(recorded)
}

/// Whether a recorded setting belongs to one picture, as the prompt and the seed do.
pub fn is_of_picture(key: &str) -> bool {
    let mut settings = SampleFlags::settings().into_iter();
    settings.any(|setting| setting.key == key && setting.recorded == Recorded::OfPicture)
}
