//! How the JSON of every record is read and written.

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::config::batch::{Settings, describe};
use crate::error::usage;
use crate::io::json;

/// The key of the settings of a result.
const PARAMETERS: &str = "parameters";

/// The JSON object in `text`; messages call its place `name`.
///
/// # Errors
/// When `text` is not JSON, or not an object.
pub(super) fn object(text: &str, name: &str) -> Result<Settings> {
    match json::read(text).map_err(|problem| usage(format!("{name}: {problem}")))? {
        Value::Object(object) => Ok(object),
        other => Err(usage(format!(
            "{name}: found {}, expected an object",
            describe(&other)
        ))),
    }
}

/// Reads a record from a JSON object. Unknown keys are ignored.
///
/// # Errors
/// When a value has the wrong type; names the key. Only `parameters` is required.
pub(super) fn typed<R: DeserializeOwned>(object: Settings, name: &str) -> Result<R> {
    if !object.get(PARAMETERS).is_some_and(Value::is_object) {
        return Err(usage(format!(
            "{name}: found no `{PARAMETERS}`, expected an object"
        )));
    }
    json::from_value(&Value::Object(object)).map_err(|problem| usage(format!("{name}: {problem}")))
}

/// A record as JSON with its keys in alphabetical order.
///
/// # Errors
/// Never fails for the records of this program.
pub(super) fn to_value(record: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(record)?)
}

/// Reads a value of the wrong type as the default, as if the key were missing. So a fact that was edited by
/// hand, or that another version writes differently, does not make the rest of the record unusable.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}
