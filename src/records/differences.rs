//! How recorded settings differ from those of a job.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::batch::Settings;

/// A line for each key in which two settings differ, with both values, for a message.
pub fn differences(there: &Settings, here: &Settings) -> Vec<String> {
    let keys: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
    keys.into_iter()
        .filter(|key| there.get(*key) != here.get(*key))
        .map(|key| {
            format!(
                "{key}: was {}, is now {}",
                shown(there.get(key)),
                shown(here.get(key))
            )
        })
        .collect()
}

/// A line for each file whose checksum in `sources` differs from the recorded one, for a message. `there` looks up the
/// recorded checksum by its key, such as `actor_crc32`.
pub fn changed_sources<'a>(
    sources: &Settings,
    there: impl Fn(&str) -> Option<&'a Value>,
) -> Vec<String> {
    let changed = sources
        .iter()
        .filter(|(key, value)| there(key) != Some(value));
    changed
        .map(|(key, _)| format!("{} has changed since", key.trim_end_matches("_crc32")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        serde_json::from_str(text).expect("the test's JSON is an object")
    }

    #[test]
    fn differences_name_key_and_both_values() {
        let there = settings(r#"{"steps": 30, "seed": 1, "vae": "x"}"#);
        let here = settings(r#"{"steps": 20, "seed": 1}"#);
        let expected = ["steps: was 30, is now 20", "vae: was \"x\", is now none"];
        assert_eq!(differences(&there, &here), expected);
    }
}
