//! Merges the layers of settings: flags override the environment, which overrides the job of a batch file,
//! which overrides the file's defaults.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::batch::{self, BatchFile, Settings};
use super::environment::blame_variable;
use super::overridden::overridden;
use crate::error::usage;

/// A job with its place in the batch file.
#[derive(Debug)]
pub struct Planned<J> {
    /// The job, or the error in its settings.
    pub job: Result<J>,
    /// "job 2 of batch.json"; `None` for the only job of a run without a batch file.
    pub place: Option<String>,
}

/// The jobs of a run, each checked by `check`: those of the batch file, or a single job from the flags alone.
/// The flags already contain the values of environment variables, see [`super::command_line`].
///
/// # Errors
/// When the batch file cannot be used. A job with wrong values is not an error here, because the other jobs can
/// still run.
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
        let job = check(flags).map_err(blame);
        return Ok(vec![Planned { job, place: None }]);
    };
    let batch = batch::read::<F>(path, subcommand)?;
    plan_batch(flags, &batch, path, check)
}

/// Names the environment variable that an error is about, see [`blame_variable`].
fn blame(error: anyhow::Error) -> anyhow::Error {
    blame_variable(error, std::env::args_os())
}

/// Like [`plan`], for a batch that was read from the file at `path`.
///
/// # Errors
/// Never fails for the flag structs of this program.
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
            job: read::<F>(layered).and_then(|flags| check(&flags).map_err(blame)),
            place: Some(format!("job {number} of {}", path.display())),
        }
    });
    Ok(jobs.collect())
}

/// The flags that are set, as settings.
///
/// # Errors
/// Never fails for the flag structs of this program.
pub fn settings<F: Serialize>(flags: &F) -> Result<Settings> {
    match serde_json::to_value(flags)? {
        Value::Object(mut settings) => {
            settings.retain(|_, value| !value.is_null());
            Ok(settings)
        }
        _ => Ok(Settings::new()),
    }
}

/// Reads settings back as flags.
///
/// # Errors
/// When a value has the wrong type. Names the key, the value found and the type expected.
pub fn read<F: DeserializeOwned>(settings: Settings) -> Result<F> {
    let object = Value::Object(settings);
    F::deserialize(&object).map_err(|error| {
        let mut settings = object.as_object().into_iter().flatten();
        let wrong = settings.find_map(|(key, value)| batch::check_type::<F>(key, value).err());
        wrong.unwrap_or_else(|| usage(error.to_string()))
    })
}

/// Merges the layers, of which the first has the highest priority. A null in a layer undoes the setting of the
/// lower layers.
pub fn layered(layers: &[&Settings]) -> Settings {
    let mut merged = Settings::new();
    for layer in layers {
        let silent = overridden(|key| merged.get(key).map(|value| *value != false));
        for (key, value) in *layer {
            if !merged.contains_key(key) && !silent.contains(&key.as_str()) {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    merged
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
