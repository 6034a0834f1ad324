//! The scenes of a story file, and the names in their prompts.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::super::batch::{check_settings, describe};
use super::super::prompts::placeholders;
use super::super::{check, layers};
use super::style::STYLE;
use super::{Keys, refuse_control, text};
use crate::error::usage;
use crate::wording::nearest;

/// Maximum number of scenes, because the pictures have numbers of four digits.
pub(super) const MOST_SCENES: usize = 10_000;

/// A scene of the story, which becomes one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryScene {
    /// What to draw, with `[name]` for each character, and `[style]` if the story has a style.
    pub prompt: String,
    /// The text below the picture on the page.
    pub caption: Option<String>,
    /// Seed of the picture, if the scene names one.
    pub seed: Option<i64>,
    /// The characters in the scene, as indices into the story's characters, in ascending order.
    pub cast: Vec<usize>,
}

object! {
    /// The keys of a scene.
    struct SceneObject {
        prompt: Option<String>,
        caption: Option<String>,
        seed: Option<i64>,
    }
}

/// The scenes, and the characters that appear in them, as indices into `names` in the order of their first
/// scenes. The casts of the scenes are indices into that second list. If there is a style, its phrase is added
/// to each prompt that does not name it.
pub(super) fn scenes(
    list: &[Value],
    names: &[&str],
    phrase: Option<&str>,
) -> Result<(Vec<StoryScene>, Vec<usize>)> {
    if !(1..=MOST_SCENES).contains(&list.len()) {
        let found = list.len();
        return Err(usage(format!(
            "key `scenes`: found {found}, expected a list of 1 to {MOST_SCENES} scenes"
        )));
    }
    let (mut scenes, mut order) = (Vec::new(), Vec::new());
    for (number, value) in (1..).zip(list) {
        let scene = scene(value, names, phrase, &mut order);
        scenes.push(scene.with_context(|| format!("scene {number}"))?);
    }
    Ok((scenes, order))
}

fn scene(
    value: &Value,
    names: &[&str],
    phrase: Option<&str>,
    order: &mut Vec<usize>,
) -> Result<StoryScene> {
    let Value::Object(settings) = value else {
        let found = describe(value);
        return Err(usage(format!(
            "found {found}, expected an object: {{\"prompt\": …, \"caption\": …}}"
        )));
    };
    refuse_control(settings)?;
    check_settings::<SceneObject>(settings, &SceneObject::keys())?;
    let keys: SceneObject = layers::read(settings.clone())?;
    let mut prompt = text("prompt", keys.prompt)?;
    if let Some(phrase) = phrase {
        let is_named = placeholders(&prompt).iter().any(|(_, name)| *name == STYLE);
        if !is_named {
            prompt = format!("{}, {phrase}", prompt.trim_end_matches([' ', '.', ',']));
        }
    }
    let mut cast = Vec::new();
    for (_, name) in placeholders(&prompt) {
        if phrase.is_some() && name == STYLE {
            continue;
        }
        let Some(i) = names.iter().position(|known| *known == name) else {
            return Err(unknown_character(name, names));
        };
        let place = order.iter().position(|&j| j == i).unwrap_or_else(|| {
            order.push(i);
            order.len() - 1
        });
        if !cast.contains(&place) {
            cast.push(place);
        }
    }
    cast.sort_unstable();
    let whole = |seed| check::whole("key `seed`", seed, 0..=i64::MAX - 1);
    Ok(StoryScene {
        prompt,
        caption: keys.caption,
        seed: keys.seed.map(whole).transpose()?,
        cast,
    })
}

/// The prompt with `word(name)` in place of every `[name]`. Brackets in the inserted words are not replaced again.
pub fn fill_in_names(prompt: &str, word: impl Fn(&str) -> String) -> String {
    let mut filled = String::new();
    let mut done = 0;
    for (at, name) in placeholders(prompt) {
        filled += &prompt[done..at];
        filled += &word(name);
        done = at + name.len() + 2;
    }
    filled + &prompt[done..]
}

fn unknown_character(name: &str, names: &[&str]) -> anyhow::Error {
    let in_lower_case: Vec<String> = names.iter().map(|known| known.to_lowercase()).collect();
    let known = in_lower_case.iter().map(String::as_str);
    let nearest = nearest(&name.to_lowercase(), known)
        .and_then(|nearest| names.iter().find(|known| known.to_lowercase() == nearest));
    let way_out = match (nearest, names) {
        (Some(nearest), _) => format!("did you mean [{nearest}]?"),
        (None, []) => "expected no name, because the story has no `characters`".to_owned(),
        (None, names) => format!("expected one of [{}]", names.join("], [")),
    };
    usage(format!(
        "key `prompt`: unknown character [{name}], {way_out}"
    ))
}

/// Checks the names of characters, which are used in prompts and as folder names.
pub(super) fn check_names(names: &[&str]) -> Result<()> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || name.chars().count() > 60 || !name.chars().all(is_plain) {
            return Err(usage(format!(
                "`characters`: found the name \"{name}\", expected 1 to 60 letters, digits, hyphens \
                 and underscores"
            )));
        }
        let alike = |other: &&&str| other.to_lowercase() == name.to_lowercase();
        if let Some(other) = names[..i].iter().find(alike) {
            return Err(usage(format!(
                "`characters`: found \"{other}\" and \"{name}\", expected names that differ in more than upper \
                and lower case, because they are also names of folders"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_filled_in_once_and_open_brackets_left_alone() {
        let word = |name: &str| format!("<{name}>[cat]");
        assert_eq!(
            fill_in_names("a [cat], [a [dog] [", word),
            "a <cat>[cat], [a <dog>[cat] ["
        );
        assert_eq!(fill_in_names("nobody", word), "nobody");
    }

    #[test]
    fn a_style_is_named_in_every_prompt_and_in_no_cast() -> Result<()> {
        let list = [
            json!({"prompt": "a [cat] runs. "}),
            json!({"prompt": "[style] of nobody"}),
        ];
        let (styled, order) = scenes(&list, &["cat"], Some("in the [style]"))?;
        let prompts: Vec<&str> = styled.iter().map(|scene| &*scene.prompt).collect();
        assert_eq!(
            prompts,
            ["a [cat] runs, in the [style]", "[style] of nobody"]
        );
        assert_eq!(order, [0]);
        assert_eq!(styled[1].cast, [0usize; 0]);
        assert!(scenes(&list, &["cat"], None).is_err(), "there is no style");
        Ok(())
    }

    #[test]
    fn casts_are_places_in_the_order_of_entering() -> Result<()> {
        let list = [
            json!({"prompt": "a [robot]"}),
            json!({"prompt": "a [cat] and a [robot], the [cat]"}),
            json!({"prompt": "nobody", "seed": 3}),
        ];
        let (scenes, order) = scenes(&list, &["cat", "owl", "robot"], None)?;
        assert_eq!(order, [2, 0]);
        let casts: Vec<&[usize]> = scenes.iter().map(|scene| &*scene.cast).collect();
        assert_eq!(casts, [&[0][..], &[0, 1], &[]]);
        assert_eq!(scenes[2].seed, Some(3));
        Ok(())
    }
}
