//! Refuses settings that have no effect together with the other settings, as their declarations say.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::batch::Settings;
use super::layers;
use crate::cli::setting::{Acts, AllowedValues};
use crate::cli::{Declared, Method, Setting};
use crate::error::usage;

/// Refuses flags that have no effect together with the others, because giving them is a mistake, and flags that
/// cannot be combined with the method.
///
/// # Errors
/// Names the flag, and the flag that it needs or excludes.
pub(super) fn check<F: Declared + Serialize>(flags: &F) -> Result<()> {
    let given = layers::settings(flags)?;
    let all = F::settings();
    let mut without_effect = all
        .iter()
        .filter(|setting| is_given(&given, setting.key) && !is_none(setting, &given))
        .filter_map(|setting| hindrance(&setting.flag(), setting.acts, &given, &all));
    let mut conflicts = all.iter().filter_map(|setting| conflict(setting, &given));
    let message = without_effect.next().or_else(|| conflicts.next());
    message.map_or(Ok(()), |message| Err(usage(message)))
}

/// The reason why a setting cannot be combined with the given method.
fn conflict(setting: &Setting, given: &Settings) -> Option<String> {
    let (method, why) = setting.not_with?;
    let is_changed = given.get(setting.key) != Some(&setting.values.default());
    let conflicts = is_given(given, setting.key)
        && is_changed
        && given.get("method") == Some(&json!(method.name()));
    conflicts.then(|| {
        let (flag, method) = (setting.flag(), method.name());
        format!("{flag} {why}: leave it out with --method {method}")
    })
}

/// Whether a setting among `all` has an effect together with `given`.
pub fn has_effect(setting: &Setting, given: &Settings, all: &[Setting]) -> bool {
    hindrance("", setting.acts, given, all).is_none()
}

/// The reason why a flag with these `acts` has no effect, as a message.
fn hindrance(flag: &str, acts: Acts, given: &Settings, all: &[Setting]) -> Option<String> {
    let method = given.get("method").and_then(Value::as_str);
    let method = method.unwrap_or(Method::default().name());
    let with_baseline = (method != Method::default().name()).then(|| {
        format!("{flag} is only for --method oneactor: leave it out with --method {method}")
    });
    let without = |needed: &str| {
        Some(format!(
            "{flag} has no effect without {needed}: add {needed}, or leave {flag} out"
        ))
    };
    // The other setting may itself have no effect.
    let outer = |key: &str| {
        let of_key = all.iter().find(|setting| setting.key == key)?;
        hindrance(flag, of_key.acts, given, all)
    };
    match acts {
        Acts::Always => None,
        Acts::WithoutBaseline => with_baseline,
        Acts::WithActor if is_given(given, "no_actor") => Some(format!(
            "{flag} has no effect with --no-actor, which draws without an actor: leave out one of them"
        )),
        Acts::WithActor => with_baseline,
        Acts::WithMethod(methods) => {
            let names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
            let of_tune = flag == "--target" && method == Method::default().name();
            let why = if of_tune {
                "; with oneactor the target was chosen by tune"
            } else {
                ""
            };
            let is_other = !names.contains(&method);
            is_other.then(|| format!("{flag} is only for --method {}{why}", names.join(" and ")))
        }
        Acts::With(key) => outer(key).or_else(|| {
            if is_given(given, key) {
                None
            } else {
                without(&flag_of(key))
            }
        }),
        Acts::WithValue(key, value) => outer(key).or_else(|| match given.get(key) {
            Some(Value::Array(values)) if values.contains(&json!(value)) => None,
            Some(found) if *found == value => None,
            _ => without(&format!("{} {value}", flag_of(key))),
        }),
    }
}

/// Whether a key has a value that is not null, false or an empty list.
fn is_given(given: &Settings, key: &str) -> bool {
    match given.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(values)) => !values.is_empty(),
        Some(_) => true,
    }
}

/// Whether a setting with the default `none` has that value, which is the same as not giving it.
fn is_none(setting: &Setting, given: &Settings) -> bool {
    setting.values == AllowedValues::Words("none") && given[setting.key] == "none"
}

fn flag_of(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::controlnet::{ControlFlags, Preprocess};
    use crate::cli::{AxisFlags, SampleFlags};

    fn message<F: Declared + Serialize>(flags: &F) -> String {
        check(flags).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_does_nothing_names_the_outermost_flag_that_it_lacks() {
        let mut flags = ControlFlags {
            canny_low: Some(50.0),
            ..ControlFlags::default()
        };
        assert_eq!(
            message(&flags),
            "--canny-low has no effect without --controlnet: add --controlnet, or leave --canny-low out"
        );
        flags.controlnet = Some(vec!["a/b".into()]);
        let canny = "--canny-low has no effect without --control-preprocess canny: add --control-preprocess canny, or \
                     leave --canny-low out";
        assert_eq!(message(&flags), canny);
        flags.control_preprocess = Some(vec![Preprocess::None, Preprocess::Canny]);
        assert_eq!(message(&flags), "");
        let off = ControlFlags {
            guess_mode: Some(false),
            control_image: Some(Vec::new()),
            ..ControlFlags::default()
        };
        assert_eq!(message(&off), "");
    }

    #[test]
    fn an_actors_guidance_does_nothing_without_an_actor() {
        let mut flags = SampleFlags {
            axes: AxisFlags {
                eta_1: Some(3.0),
                ..AxisFlags::default()
            },
            ..SampleFlags::default()
        };
        assert_eq!(message(&flags), "");
        flags.guidance.no_actor = Some(true);
        let plain = "--eta-1 has no effect with --no-actor, which draws without an actor: leave out one of them";
        assert_eq!(message(&flags), plain);
        flags.guidance.no_actor = None;
        flags.method = Some(Method::Consistory);
        let baseline =
            "--eta-1 is only for --method oneactor: leave it out with --method consistory";
        assert_eq!(message(&flags), baseline);
    }
}
