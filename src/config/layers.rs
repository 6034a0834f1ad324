//! Flags over environment over job over defaults.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::batch::{self, BatchFile, Settings};
use crate::cli;
use crate::cli::setting::Acts;
use crate::error::usage;

/// A job with its place in the batch file.
#[derive(Debug)]
pub struct Planned<J> {
    /// The job, or what is wrong with it.
    pub job: Result<J>,
    /// "job 2 of batch.json"; `None` for the only job of a run without a batch file.
    pub place: Option<String>,
}

/// Flags that are no batch keys and of which one replaces the other: those of a run, and those of `fetch`. Two that are
/// typed together are refused.
pub(super) const EXCLUSIVE: [[&str; 2]; 6] = [
    ["quiet", "verbose"],
    ["file", "variant"],
    ["file", "vae"],
    ["file", "controlnet"],
    ["file", "ip_adapter"],
    ["file", "image_encoder"],
];

/// Every job of a run: of the batch file where there is one, else of the flags alone, each
/// checked by `check`. The flags already hold what the environment gives, see [`super::command_line`].
///
/// # Errors
/// When the batch file can not be used. A job whose values are wrong is no error here: the others
/// can still be done.
pub fn plan<F, J>(
    flags: &F,
    config: Option<&Path>,
    subcommand: &str,
    check: impl Fn(&F) -> Result<J>,
) -> Result<Vec<Planned<J>>>
where
    F: Serialize + DeserializeOwned,
{
    let Some(path) = config else {
        let job = check(flags);
        return Ok(vec![Planned { job, place: None }]);
    };
    let batch = batch::read::<F>(path, subcommand)?;
    plan_batch(flags, &batch, path, check)
}

/// As [`plan`], of a batch that was read from the file at `path`.
///
/// # Errors
/// Never for the flag structs of this program.
pub fn plan_batch<F, J>(
    flags: &F,
    batch: &BatchFile,
    path: &Path,
    check: impl Fn(&F) -> Result<J>,
) -> Result<Vec<Planned<J>>>
where
    F: Serialize + DeserializeOwned,
{
    let top = settings(flags)?;
    let jobs = (1..).zip(&batch.jobs).map(|(number, settings)| {
        let layered = layered(&[&top, settings, &batch.defaults]);
        Planned {
            job: read::<F>(layered).and_then(|flags| check(&flags)),
            place: Some(format!("job {number} of {}", path.display())),
        }
    });
    Ok(jobs.collect())
}

/// The flags that are set, as settings.
///
/// # Errors
/// Never for the flag structs of this program.
pub fn settings<F: Serialize>(flags: &F) -> Result<Settings> {
    match serde_json::to_value(flags)? {
        Value::Object(mut settings) => {
            settings.retain(|_, value| !value.is_null());
            Ok(settings)
        }
        _ => Ok(Settings::new()),
    }
}

/// Settings as flags again.
///
/// # Errors
/// When a value has the wrong type.
pub fn read<F: DeserializeOwned>(settings: Settings) -> Result<F> {
    serde_json::from_value(Value::Object(settings)).map_err(|error| usage(error.to_string()))
}

/// The layers merged, the first on top. A null in a layer takes a setting of the lower ones back.
pub fn layered(layers: &[&Settings]) -> Settings {
    let mut merged = Settings::new();
    for layer in layers {
        let silent = silenced(|key| merged.get(key).map(|value| *value != false));
        for (key, value) in *layer {
            if !merged.contains_key(key) && !silent.contains(&key.as_str()) {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    merged
}

/// Keys whose lower-priority values are overridden, by what the settings declare: the other of two that replace each
/// other, and those that do nothing beside what the higher layers say. The environment is such a layer below what is
/// typed, see [`super::environment`]. `is_on` tells of a key that the higher layers name whether it is anything but
/// switched off.
pub(super) fn silenced(is_on: impl Fn(&str) -> Option<bool>) -> Vec<&'static str> {
    // A flag that is switched off names nothing.
    let is_named = |key: &&str| is_on(key) == Some(true);
    let mut silent = Vec::new();
    for setting in cli::all_settings() {
        let pair = setting.instead_of.map(|other| [setting.key, other]);
        silent.extend(
            pair.filter(|pair| pair.iter().any(is_named))
                .into_iter()
                .flatten(),
        );
        let does_nothing = match setting.acts {
            Acts::WithActor => is_on("no_actor") == Some(true),
            Acts::With(key) => is_on(key) == Some(false),
            _ => false,
        };
        silent.extend(does_nothing.then_some(setting.key));
    }
    let exclusive = EXCLUSIVE.iter().filter(|pair| pair.iter().any(is_named));
    silent.extend(exclusive.flatten().copied());
    silent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Settings {
        serde_json::from_str(text).expect("the test's JSON is an object")
    }

    #[test]
    fn a_higher_layer_wins_and_null_takes_a_default_back() {
        let flags = object(r#"{"steps": 1}"#);
        let job = object(r#"{"steps": 2, "seed": 2, "negative_prompt": null}"#);
        let defaults = object(r#"{"steps": 3, "seed": 3, "negative_prompt": "x", "width": 3}"#);
        let merged = layered(&[&flags, &job, &defaults]);
        let expected = object(r#"{"steps": 1, "seed": 2, "negative_prompt": null, "width": 3}"#);
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_prompt_flag_replaces_the_prompts_file_of_a_batch() {
        let flags = object(r#"{"prompt": ["a"]}"#);
        let job = object(r#"{"prompts_file": "b.txt"}"#);
        assert_eq!(layered(&[&flags, &job]), flags);
        let off = object(r#"{"without_aux": false}"#);
        let weight = object(r#"{"lambda_1": 0.3}"#);
        assert_eq!(layered(&[&off, &weight])["lambda_1"], 0.3);
        let on = object(r#"{"without_aux": true}"#);
        assert_eq!(layered(&[&on, &weight]), on);
        let off = object(r#"{"vae_tiling": false}"#);
        let tiles = object(r#"{"vae_tiling": true, "vae_tile_size": 512}"#);
        assert_eq!(layered(&[&off, &tiles]), off);
        let both = object(r#"{"prompt": ["a"], "prompts_file": "b.txt"}"#);
        assert_eq!(layered(&[&both]), both);
    }
}
