//! `sample --from`: the recorded settings that are used together with the flags.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::batch::{Settings, describe};
use crate::cli::setting::Acts;
use crate::cli::{Declared, Method, SampleFlags};
use crate::error::usage;
use crate::records::PictureRecord;

/// Refuses a record that this program cannot have written: with an unknown setting, or for more than one
/// picture. Folders, numbers of files and the device are set only by the user, never by a picture from another
/// source.
///
/// # Errors
/// Names the setting.
pub(super) fn check_recorded(record: &PictureRecord) -> Result<()> {
    let settings = &record.parameters;
    if let Some(key) = settings.keys().find(|key| !is_recorded(key)) {
        return Err(usage(format!(
            "the picture records the setting `{key}`, which this program never records, so its metadata was \
            changed: give the settings as flags, without --from"
        )));
    }
    match settings.get("prompt") {
        None | Some(Value::String(_)) => Ok(()),
        Some(other) => Err(usage(format!(
            "key `prompt`: found {}, expected a string with one prompt",
            describe(other)
        ))),
    }
}

fn is_recorded(key: &str) -> bool {
    let settings = SampleFlags::settings();
    settings
        .iter()
        .any(|setting| setting.key == key && setting.is_recorded())
}

/// Removes the settings of an actor's or a baseline's method, which have no meaning, or another meaning, with
/// another method.
fn forget_method(settings: &mut Settings) {
    let chooses = |key: &str| matches!(key, "method" | "no_actor");
    for setting in SampleFlags::settings() {
        let is_of_the_method = match setting.acts {
            Acts::WithActor | Acts::WithMethod(_) => true,
            Acts::With(key) | Acts::WithValue(key, _) => chooses(key),
            Acts::Always | Acts::WithoutBaseline => chooses(setting.key),
        };
        if is_of_the_method {
            settings.remove(setting.key);
        }
    }
}

/// The recorded settings. If the flags replace the recorded method by another method or by the plain model, or
/// the plain model by an actor, the settings of the recorded method are left out. Another method draws the same
/// subject, with the files in the same folder.
pub(super) fn recorded_for(flags: &SampleFlags, record: &PictureRecord) -> Settings {
    let mut settings = record.parameters.clone();
    let recorded = settings.get("method").cloned();
    let recorded = recorded.unwrap_or(json!(Method::default()));
    let is_plain = settings.get("no_actor") == Some(&json!(true));
    let is_other = |method| is_plain || json!(method) != recorded;
    match (flags.guidance.no_actor, flags.method) {
        (Some(true), _) if !is_plain => {
            forget_method(&mut settings);
            if recorded != json!(Method::default()) {
                // The file of a baseline is not an actor. The plain model does not need it, because model and
                // prompt are recorded separately.
                settings.remove("actors");
            }
        }
        (_, Some(method)) if is_other(method) => {
            forget_method(&mut settings);
            if let Some(actors) = settings.get_mut("actors") {
                to_folders(actors);
            }
        }
        (None, None) if is_plain && flags.actors.is_some() => {
            forget_method(&mut settings);
        }
        _ => {}
    }
    settings
}

/// Replaces files by their folders, in which another method has its own file.
fn to_folders(actors: &mut Value) {
    let list = match actors {
        Value::Array(list) => list.as_mut_slice(),
        one => std::slice::from_mut(one),
    };
    for actor in list {
        let folder = actor.as_str().and_then(|path| Path::new(path).parent());
        if let Some(folder) = folder {
            *actor = if folder == Path::new("") {
                json!(".")
            } else {
                json!(folder)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sample::GuidanceFlags;

    fn record(parameters: &str) -> PictureRecord {
        let parameters = serde_json::from_str(parameters).expect("the test's JSON is an object");
        PictureRecord::new(parameters, Settings::new())
    }

    #[test]
    fn settings_of_another_method_are_left_behind() {
        let guided = record(
            r#"{"prompt": "a cat", "steps": 4, "actors": ["runs/cat/actor.safetensors"], "eta_1": 8.5,
                "subject_masks": "on"}"#,
        );
        let plain = SampleFlags {
            guidance: GuidanceFlags {
                no_actor: Some(true),
                ..GuidanceFlags::default()
            },
            ..SampleFlags::default()
        };
        let of = |method| SampleFlags {
            method: Some(method),
            ..SampleFlags::default()
        };
        let keys = |settings: &Settings| settings.keys().cloned().collect::<Vec<_>>();
        let kept = recorded_for(&plain, &guided);
        assert_eq!(keys(&kept), ["actors", "prompt", "steps"]);
        let kept = recorded_for(&of(Method::Consistory), &guided);
        assert_eq!(kept["actors"], json!(["runs/cat"]));
        assert_eq!(keys(&kept), ["actors", "prompt", "steps"]);
        let same = recorded_for(&of(Method::Oneactor), &guided);
        assert_eq!(same, guided.parameters);
        assert_eq!(
            recorded_for(&SampleFlags::default(), &guided),
            guided.parameters
        );
        let base_image = record(r#"{"prompt": "a cat", "no_actor": true}"#);
        assert_eq!(
            keys(&recorded_for(&of(Method::Oneactor), &base_image)),
            ["prompt"]
        );
        let with_actor = SampleFlags {
            actors: Some(vec!["runs/cat".into()]),
            ..SampleFlags::default()
        };
        assert_eq!(keys(&recorded_for(&with_actor, &base_image)), ["prompt"]);
        assert_eq!(recorded_for(&plain, &base_image), base_image.parameters);
        let baseline = record(
            r#"{"prompt": "a cat", "method": "ip-adapter", "actors": ["runs/cat/base.safetensors"], "target": 1}"#,
        );
        assert_eq!(keys(&recorded_for(&plain, &baseline)), ["prompt"]);
    }
}
