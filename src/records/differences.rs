//! How recorded settings differ from those of a job.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::batch::Settings;
use crate::method::origin::TARGET_IMAGE_CRC32;

/// A line for each key in which two settings differ, with both values, for a message.
pub fn differences(there: &Settings, here: &Settings) -> Vec<String> {
    let keys: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    // A photo is told by the line of `target`.
    let keys = keys.into_iter().filter(|key| *key != TARGET_IMAGE_CRC32);
    keys.map(|key| (key, shown(there, key), shown(here, key)))
        .filter(|(_, there, here)| there != here)
        .map(|(key, there, here)| format!("{key}: was {there}, is now {here}"))
        .collect()
}

fn shown(settings: &Settings, key: &str) -> String {
    let photo = settings.get(TARGET_IMAGE_CRC32);
    match (key, settings.get(key), photo.and_then(Value::as_str)) {
        ("target", Some(_), Some(crc32)) => format!("the photo with CRC-32 {crc32}"),
        ("target", Some(Value::Number(image)), _) => format!("image {image}"),
        (_, None, _) => "none".to_owned(),
        (_, Some(value), _) => value.to_string(),
    }
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
        let image = settings(r#"{"target": 4}"#);
        let photo = settings(r#"{"target": 11, "target_image_crc32": "4dfc6f24"}"#);
        let other = settings(r#"{"target": 11, "target_image_crc32": "00000000"}"#);
        assert_eq!(
            differences(&image, &photo),
            ["target: was image 4, is now the photo with CRC-32 4dfc6f24"]
        );
        assert_eq!(
            differences(&photo, &other),
            ["target: was the photo with CRC-32 4dfc6f24, is now the photo with CRC-32 00000000"]
        );
    }
}
