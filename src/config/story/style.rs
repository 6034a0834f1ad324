//! The style of a story, in which all its scenes are drawn.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::batch::Settings;
use super::super::layers;
use super::super::prompts::placeholders;
use super::{Character, Keys, Maker, only, text};
use crate::error::usage;
use crate::method::templates::SubjectKind;

/// The name of the style in prompts, and of its folder. In a story with a style, no character may have this name.
pub(super) const STYLE: &str = "style";

/// Added to the end of a prompt that does not name the style itself.
const PHRASE: &str = "in the [style]";

object! {
    /// The keys of a style in addition to those of a character.
    struct StyleObject {
        phrase: Option<String>,
    }
}

/// A style as it stands in the file.
pub(super) struct Style {
    /// The end of a scene's prompt; contains `[style]`.
    pub phrase: String,
    /// The object with the keys that styles share with characters.
    value: Value,
}

impl Style {
    /// Splits the style's own key from the keys that it shares with characters.
    ///
    /// # Errors
    /// When a character is called `style`, or the phrase does not contain `[style]`.
    pub(super) fn read(mut value: Value, names: &[&str]) -> Result<Self> {
        if let Some(name) = names.iter().find(|name| name.to_lowercase() == STYLE) {
            return Err(usage(format!(
                "`characters`: found the name \"{name}\", expected another name, because [style] stands for \
                the story's style"
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
                "key `style`: key `phrase`: found \"{phrase}\", expected a text with [style] in it once and no \
                other name in brackets"
            ))),
        }
    }

    /// The style as a character that acts in every scene.
    ///
    /// # Errors
    /// The same as for a character; and when the style's `kind` is not `style`.
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
