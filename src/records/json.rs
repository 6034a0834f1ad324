//! How the JSON of every record is read and written.

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::config::batch::{Settings, describe};
use crate::error::usage;

/// The key of the settings that a result follows from.
const PARAMETERS: &str = "parameters";

/// The JSON object in `text`; messages call its place `name`.
///
/// # Errors
/// When `text` is no JSON, or no object.
pub(super) fn object(text: &str, name: &str) -> Result<Settings> {
    match serde_json::from_str(text).map_err(|error| usage(format!("{name}: {error}")))? {
        Value::Object(object) => Ok(object),
        other => Err(usage(format!(
            "{name}: found {}, expected an object",
            describe(&other)
        ))),
    }
}

/// The record that an object of JSON holds. Unknown keys are ignored.
///
/// # Errors
/// Names the key whose value has another type. Only `parameters` has to be there.
pub(super) fn typed<R: DeserializeOwned>(object: Settings, name: &str) -> Result<R> {
    if !object.get(PARAMETERS).is_some_and(Value::is_object) {
        return Err(usage(format!(
            "{name}: found no `{PARAMETERS}`, expected an object"
        )));
    }
    serde_json::from_value(Value::Object(object)).map_err(|error| usage(format!("{name}: {error}")))
}

/// A record as JSON with its keys in the order of the alphabet.
///
/// # Errors
/// Never for the records of this program.
pub(super) fn to_value(record: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(record)?)
}

/// Reads a value of another type as its default, as if the key were missing: a fact for the reader, which somebody has
/// changed by hand or another version writes otherwise, keeps nobody from using the rest of the record.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}
