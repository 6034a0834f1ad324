//! Prompt files, and the placeholder `[b]` in prompts.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};

use crate::error::{Error, ErrorKind, usage};
use crate::io::given_file::open;
use crate::io::text;
use crate::tokenizer::find_word;

/// Stands for the subject in a prompt.
pub const PLACEHOLDER: &str = "[b]";

/// Largest file of prompts, in bytes.
pub const LARGEST: u64 = 1 << 20;

/// The prompts of a text file, one per line; `-` is standard input. Empty lines are skipped.
///
/// # Errors
/// When the file cannot be read, is larger than [`LARGEST`], is not UTF-8 or contains no prompt.
pub fn read_prompts(path: &Path) -> Result<Vec<String>> {
    if path == Path::new("-") {
        return parse_prompts("standard input", io::stdin().lock());
    }
    let name = format!("prompts file {}", path.display());
    let file = open(path, "a text file with one prompt per line").context("--prompts-file")?;
    parse_prompts(&name, file)
}

fn parse_prompts(name: &str, input: impl Read) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    input
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .with_context(|| Error::new(ErrorKind::Usage, format!("reading {name}")))?;
    if bytes.len() as u64 > LARGEST {
        let limit = LARGEST >> 20;
        return Err(usage(format!(
            "{name} is larger than {limit} MiB, expected a text file with one prompt per line"
        )));
    }
    let text = text::decode(bytes).map_err(|error| usage(format!("{name}: {error}")))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let prompts: Vec<String> = lines.map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(usage(format!(
            "{name} contains no prompt, expected at least one line of text"
        )));
    }
    Ok(prompts)
}

/// The prompt with `subject` in place of every [`PLACEHOLDER`].
pub fn fill_in(prompt: &str, subject: &str) -> String {
    prompt.replace(PLACEHOLDER, subject)
}

/// The `[name]`s in a prompt: the byte offset of each, and the name.
pub(super) fn placeholders(prompt: &str) -> Vec<(usize, &str)> {
    let opened = prompt.match_indices('[');
    let closed = opened.filter_map(|(at, _)| {
        let rest = &prompt[at + 1..];
        let name = &rest[..rest.find(']')?];
        (!name.contains('[')).then_some((at, name))
    });
    closed.collect()
}

/// A warning about a part of a prompt that is read as plain text but looks like syntax. `has_weights` says
/// whether brackets are weights.
pub fn looks_like_syntax(prompt: &str, has_weights: bool) -> Option<String> {
    if has_weights {
        let behind = prompt.split(')').skip(1);
        let number = |text: &str| -> String {
            let rest = text.strip_prefix(':').unwrap_or(text);
            rest.chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect()
        };
        let number = behind
            .map(number)
            .find(|number| number.parse::<f64>().is_ok())?;
        return Some(format!(
            "the prompt \"{prompt}\" has {number} after a bracket, where it is read as plain text: to make it \
            a weight, write (word:{number})"
        ));
    }
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    let mut named = placeholders(prompt).into_iter().map(|(_, name)| name);
    let name = named.find(|name| is_name(name) && format!("[{name}]") != PLACEHOLDER)?;
    Some(format!(
        "the prompt \"{prompt}\" has [{name}], which is read as plain text: here only {PLACEHOLDER} stands for \
        an actor's base word; other names in brackets work in story files"
    ))
}

/// The part of a target prompt that describes the subject: up to the first comma after the base word, without a
/// full stop at the end. "A wise elder with a kind face, pastel portrait." gives "A wise elder with a kind
/// face".
pub fn subject_phrase<'a>(target_prompt: &'a str, base_word: &str) -> &'a str {
    let word = find_ignoring_case(target_prompt, base_word).unwrap_or(0);
    let end = target_prompt[word..]
        .find(',')
        .map_or(target_prompt.len(), |comma| word + comma);
    target_prompt[..end].trim().trim_end_matches('.')
}

/// Refuses a prompt that does not contain the base word as a whole word. Whether the word is within the
/// tokenizer's limit is checked later, with the tokenizer.
///
/// # Errors
/// Names the prompt and the word.
pub fn require_word(prompt: &str, word: &str) -> Result<()> {
    let normal = |text: &str| {
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_lowercase()
    };
    if !find_word(prompt, word).is_empty() {
        return Ok(());
    }
    let words = prompt.split(|c: char| !c.is_alphanumeric());
    let mut longer = words.filter(|longer| normal(longer).contains(&normal(word)));
    let but = longer.next().map_or_else(String::new, |longer| {
        format!(", where \"{longer}\" is another word")
    });
    Err(usage(format!(
        "the base word \"{word}\" is missing from the prompt \"{prompt}\"{but}: \
         write \"{word}\" there, or {PLACEHOLDER} in its place"
    )))
}

/// The indices of two base words that are equal, or of which one contains the other, so that a prompt cannot
/// tell them apart.
pub fn overlapping_words(words: &[impl AsRef<str>]) -> Option<(usize, usize)> {
    let holds = |i: usize, j: usize| !find_word(words[i].as_ref(), words[j].as_ref()).is_empty();
    (0..words.len())
        .flat_map(|j| (0..j).map(move |i| (i, j)))
        .find(|&(i, j)| holds(i, j) || holds(j, i))
}

/// Byte offset of `needle` in `text`, ignoring the case of ASCII letters.
fn find_ignoring_case(text: &str, needle: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(&needle.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_looks_like_syntax_is_reported() {
        let told = |prompt, has_weights| looks_like_syntax(prompt, has_weights).unwrap_or_default();
        assert!(
            told("a [robot] and [b]", false).contains("has [robot], which is read as plain text")
        );
        assert_eq!(told("a [b], [two words] and [", false), "");
        assert_eq!(told("a [robot] and a (cat:1.2)", true), "");
        for prompt in ["a (robot)1.2", "a (robot):1.2 here"] {
            assert!(told(prompt, true).contains("(word:1.2)"), "{prompt}");
            assert_eq!(told(prompt, false), "");
        }
        assert_eq!(told("a (robot) 3 times", true), "");
    }

    #[test]
    fn prompts_are_read_one_a_line() -> Result<()> {
        let text = "\u{feff}a cat\r\n\n  a café \n";
        assert_eq!(parse_prompts("x", text.as_bytes())?, ["a cat", "a café"]);
        Ok(())
    }

    #[test]
    fn unusable_prompt_files_are_refused_with_the_reason() {
        let message = |bytes: &[u8]| {
            let error = parse_prompts("prompts file x.txt", bytes).expect_err("it is unusable");
            format!("{error:#}")
        };
        assert!(message(b" \n\n").contains("x.txt contains no prompt"));
        assert!(message(b"a cat\n\xff\xfe").contains("x.txt: line 2: found bytes"));
        let huge = vec![b'a'; LARGEST as usize + 1];
        assert!(message(&huge).contains("larger than 1 MiB"));
    }

    #[test]
    fn the_placeholder_is_filled_everywhere() {
        assert_eq!(fill_in("[b], with a [b]", "cat"), "cat, with a cat");
    }

    #[test]
    fn the_subject_phrase_ends_at_the_first_comma_behind_the_word() {
        let cases = [
            (
                "A wise elder with kind eyes, pastel portrait.",
                "elder",
                "A wise elder with kind eyes",
            ),
            (
                "A serene monk in oil painting.",
                "monk",
                "A serene monk in oil painting",
            ),
            ("Old, wise Elder, pastel", "elder", "Old, wise Elder"),
        ];
        for (prompt, word, phrase) in cases {
            assert_eq!(subject_phrase(prompt, word), phrase);
        }
    }

    #[test]
    fn words_of_which_one_holds_the_other_are_found() {
        assert_eq!(overlapping_words(&["cat", "pencil box", "catfish"]), None);
        assert_eq!(
            overlapping_words(&["owl", "box", "Pencil  Box"]),
            Some((1, 2))
        );
        assert_eq!(overlapping_words(&["cat", "owl", "CAT"]), Some((0, 2)));
    }

    #[test]
    fn a_missing_word_is_named_with_the_prompt() {
        assert!(require_word("A Pencil  Box on a table", "pencil box").is_ok());
        let error = require_word("a dog", "cat").expect_err("the word is missing");
        assert!(
            error
                .to_string()
                .contains("\"cat\" is missing from the prompt \"a dog\"")
        );
    }

    #[test]
    fn a_base_word_is_not_a_part_of_a_longer_word() {
        let error = require_word("two cats", "cat").expect_err("it is another word");
        let expected = "the base word \"cat\" is missing from the prompt \"two cats\", where \"cats\" is another word: \
                        write \"cat\" there, or [b] in its place";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_base_word_may_be_composed_otherwise_than_in_the_prompt() {
        assert!(require_word("un cafe\u{301} noir", "caf\u{e9}").is_ok());
        assert!(require_word("un caf\u{e9} noir", "cafe\u{301}").is_ok());
    }
}
