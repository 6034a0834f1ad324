//! `sample --from`: which recorded settings count beside the flags.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::batch::{Settings, describe};
use crate::cli::setting::Acts;
use crate::cli::{Declared, Method, SampleFlags};
use crate::error::usage;
use crate::records::PictureRecord;

/// Refuses a record that no picture of this program has: one of another setting, or of more than one picture. Where
/// files are written, how many are, and which device computes is said by the user alone, and never by a picture from
/// elsewhere.
///
/// # Errors
/// Names the setting.
pub(super) fn check_recorded(record: &PictureRecord) -> Result<()> {
    let settings = &record.parameters;
    if let Some(key) = settings.keys().find(|key| !is_recorded(key)) {
        return Err(usage(format!(
            "the picture has the setting `{key}`, which this program records in no picture, so somebody has changed it: \
             type what it was drawn with yourself, without --from"
        )));
    }
    match settings.get("prompt") {
        None | Some(Value::String(_)) => Ok(()),
        Some(other) => Err(usage(format!(
            "key `prompt`: found {}, expected a string, the prompt of one picture",
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

/// Leaves out what says how an actor or a baseline draws, and means nothing, or something else, without that.
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

/// The recorded settings, less those of a method that the flags replace by another, by the plain model, or a plain
/// picture's by an actor: nobody gave them for that. Another method is for the subject of the picture, with what lies
/// in the same folder.
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
                // A baseline's file is no actor; the model and the prompt are recorded without it.
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

/// The folders of files, each of which another method has a file of its own in.
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
