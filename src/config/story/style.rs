//! The style of a story: how all of its scenes are drawn.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::batch::Settings;
use super::super::layers;
use super::super::prompts::placeholders;
use super::{Character, Keys, Maker, only, text};
use crate::error::usage;
use crate::method::templates::SubjectKind;

/// What scenes call it, and its folder; no character has this name where there is a style.
pub(super) const STYLE: &str = "style";

/// What stands behind a prompt that does not name the style itself.
const PHRASE: &str = "in the [style]";

object! {
    /// A style, beside the keys of a character.
    struct StyleObject {
        phrase: Option<String>,
    }
}

/// A style as the file has it.
pub(super) struct Style {
    /// Ends a scene's prompt, with `[style]` in it.
    pub phrase: String,
    /// The keys that it shares with characters.
    value: Value,
}

impl Style {
    /// Takes the style's own key from the others.
    ///
    /// # Errors
    /// When a character has its name, or the phrase does not name it.
    pub(super) fn read(mut value: Value, names: &[&str]) -> Result<Self> {
        if let Some(name) = names.iter().find(|name| name.to_lowercase() == STYLE) {
            return Err(usage(format!(
                "`characters`: found the name \"{name}\" beside the key `style`, expected another: \
                 [style] stands for the style"
            )));
        }
        let mut own = Settings::new();
        if let Value::Object(settings) = &mut value {
            own = only(settings, &StyleObject::keys());
            settings.remove("phrase");
        }
        let own: StyleObject = layers::read(own).context("key `style`")?;
        let phrase = match own.phrase {
            None => PHRASE.to_owned(),
            phrase => text("phrase", phrase).context("key `style`")?,
        };
        match placeholders(&phrase)[..] {
            [(_, STYLE)] => Ok(Self { phrase, value }),
            _ => Err(usage(format!(
                "key `style`: key `phrase`: found \"{phrase}\", expected [style] in it once, and no \
                 other name"
            ))),
        }
    }

    /// The style as one that acts in every scene.
    ///
    /// # Errors
    /// As for a character; and when it is described as one of another kind.
    pub(super) fn check(self, maker: &Maker) -> Result<Character> {
        let mut value = self.value;
        if let Value::Object(settings) = &mut value
            && !settings.contains_key("actor")
        {
            let kind = settings
                .entry("kind")
                .or_insert_with(|| json!(SubjectKind::Style));
            if *kind != json!(SubjectKind::Style) {
                return Err(usage(format!(
                    "key `style`: key `kind`: found {kind}, expected \"style\" or no such key"
                )));
            }
        }
        let folder = maker.output_dir.join(STYLE);
        let style = maker.check(STYLE, &value, folder).context("key `style`")?;
        Ok(Character {
            is_style: true,
            ..style
        })
    }
}
