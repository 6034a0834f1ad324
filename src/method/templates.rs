//! Prompt templates for tuning, into which the base word is inserted (Algorithm 1), for each kind of subject.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The placeholder of the base word in templates and prompts.
pub const PLACEHOLDER: &str = "[b]";

/// The kind of the subject, which decides the templates of its tuning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A person, an animal, a creature.
    #[default]
    Character,
    /// A thing.
    Object,
    /// A style of drawing.
    Style,
}

impl SubjectKind {
    /// The templates of this kind with the base word inserted. Several base words are joined, each with its own
    /// article: "the cat and the owl".
    pub fn prompts(self, base_words: &[impl AsRef<str>]) -> Vec<String> {
        let base_words: Vec<&str> = base_words.iter().map(AsRef::as_ref).collect();
        let text = match self {
            SubjectKind::Character => include_str!("../../prompts/templates/character.txt"),
            SubjectKind::Object => include_str!("../../prompts/templates/object.txt"),
            SubjectKind::Style => include_str!("../../prompts/templates/style.txt"),
        };
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| filled(line, &base_words))
            .collect()
    }
}

/// Words that can begin the noun phrase with the placeholder.
const DETERMINERS: [&str; 5] = ["a", "an", "the", "one", "my"];

/// The template with the base words in place of [`PLACEHOLDER`]. Several words are joined by "and", each with
/// the article and the adjective that stand before the placeholder in the template ("a small cat and a small
/// owl", "the cat and the owl"), or with "a" if there is no article ("a picture of a cat and an owl").
fn filled(template: &str, base_words: &[&str]) -> String {
    let ([_, _, ..], Some(at)) = (base_words, template.find(PLACEHOLDER)) else {
        return template.replace(PLACEHOLDER, &base_words.concat());
    };
    let before: Vec<&str> = template[..at].split_whitespace().collect();
    let is_determiner = |word: Option<&&str>| word.is_some_and(|w| DETERMINERS.contains(w));
    // The determiner stands right before the placeholder, or one adjective before it.
    let length = match &before[..] {
        [.., last] if is_determiner(Some(last)) => 1,
        [.., first, last] if is_determiner(Some(first)) && *last != "of" => 2,
        _ => 0,
    };
    let (start, phrase) = before.split_at(before.len() - length);
    let subjects: Vec<String> = base_words
        .iter()
        .map(|word| match phrase {
            [] => format!("{} {word}", article(word)),
            phrase => format!("{} {word}", phrase.join(" ")),
        })
        .collect();
    let start = start
        .iter()
        .map(|word| format!("{word} "))
        .collect::<String>();
    let end = &template[at + PLACEHOLDER.len()..];
    format!("{start}{}{end}", subjects.join(" and "))
}

/// "an" before a vowel. The exceptions of English are ignored, because a wrong article does no harm here.
pub(super) fn article(word: &str) -> &'static str {
    let first = word.chars().next().map(|c| c.to_ascii_lowercase());
    match first {
        Some('a' | 'e' | 'i' | 'o' | 'u') => "an",
        _ => "a",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::find_word;

    #[test]
    fn every_template_holds_the_base_word_once() {
        for kind in [
            SubjectKind::Character,
            SubjectKind::Object,
            SubjectKind::Style,
        ] {
            let prompts = kind.prompts(&["pencil box"]);
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

    #[test]
    fn several_words_stand_side_by_side_each_with_its_article() {
        let cases = [
            ("a picture of [b]", "a picture of a cat and an owl"),
            ("an image of the [b]", "an image of the cat and the owl"),
            (
                "a single [b], centred in the frame",
                "a single cat and a single owl, centred in the frame",
            ),
            ("the [b] outdoors", "the cat and the owl outdoors"),
            (
                "a clear view of one [b]",
                "a clear view of one cat and one owl",
            ),
            ("a picture of my [b]", "a picture of my cat and my owl"),
        ];
        for (template, expected) in cases {
            assert_eq!(filled(template, &["cat", "owl"]), expected);
        }
        assert_eq!(
            filled("a [b]", &["owl"]),
            "a owl",
            "one word changes nothing else"
        );
        let words = ["pencil box", "owl", "cat"];
        for kind in [
            SubjectKind::Character,
            SubjectKind::Object,
            SubjectKind::Style,
        ] {
            for prompt in kind.prompts(&words) {
                for word in words {
                    assert_eq!(find_word(&prompt, word).len(), 1, "{prompt:?}");
                }
                assert!(!prompt.contains(PLACEHOLDER), "{prompt:?}");
            }
        }
    }
}
