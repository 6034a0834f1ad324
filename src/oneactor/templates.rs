//! Prompts that the tuner fills with the base word (Algorithm 1), for each kind of subject.

use serde::{Deserialize, Serialize};

/// What stands for the base word in a template or a prompt.
pub const PLACEHOLDER: &str = "[b]";

/// What the subject is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person, an animal, a creature.
    #[default]
    Character,
    /// A thing.
    Object,
    /// A way of drawing.
    Style,
}

impl Kind {
    /// The templates of this kind, filled with the base word.
    pub fn prompts(self, base_word: &str) -> Vec<String> {
        let text = match self {
            Kind::Character => include_str!("../../prompts/templates/character.txt"),
            Kind::Object => include_str!("../../prompts/templates/object.txt"),
            Kind::Style => include_str!("../../prompts/templates/style.txt"),
        };
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.replace(PLACEHOLDER, base_word))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::find_word;

    #[test]
    fn every_template_holds_the_base_word_once() {
        for kind in [Kind::Character, Kind::Object, Kind::Style] {
            let prompts = kind.prompts("pencil box");
            assert!(
                prompts.len() >= 20,
                "{kind:?} has {} templates",
                prompts.len()
            );
            for prompt in prompts {
                assert_eq!(find_word(&prompt, "pencil box").len(), 1, "{prompt:?}");
            }
        }
    }
}
