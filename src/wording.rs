//! Parts of sentences that messages share.

use std::path::Path;

/// A number with its noun: `counted(1, "pass", "passes")` is "1 pass", `counted(2, "pass", "passes")` "2 passes".
pub fn counted(number: usize, one: &str, several: &str) -> String {
    let noun = if number == 1 { one } else { several };
    format!("{number} {noun}")
}

/// The most characters of a prompt that a message quotes.
const MOST_QUOTED: usize = 80;

/// The beginning of a prompt for a message: at most 80 characters, with `…` if the prompt is longer.
pub fn excerpt(prompt: &str) -> String {
    match prompt.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}…", prompt[..end].trim_end()),
        None => prompt.to_owned(),
    }
}

/// The known word that the user most likely meant by `word`; `None` if no known word is alike. Words with a few typing
/// mistakes are preferred to words that begin alike, because Jaro-Winkler alone prefers `guidance-rescale` to
/// `guidance-scale` for `guidence-scale`.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_above(ALIKE, word, known)
}

/// The least likeness of two words, by Jaro-Winkler, from 0 to 1.
const ALIKE: f64 = 0.75;

/// Like [`nearest`], with another least likeness, for words that have much in common by their kind, such as paths.
pub fn nearest_above<'a>(
    least: f64,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let known = known.into_iter();
    let likeness = known.map(|other| (strsim::jaro_winkler(word, other), other));
    let alike: Vec<(f64, &str)> = likeness.filter(|(likeness, _)| *likeness > least).collect();
    let most_mistakes = word.chars().count() / 3;
    let mistakes = alike
        .iter()
        .map(|(_, other)| (strsim::osa_distance(word, other), *other));
    let mistyped = mistakes.filter(|(mistakes, _)| *mistakes <= most_mistakes);
    match mistyped.min_by_key(|(mistakes, _)| *mistakes) {
        Some((_, nearest)) => Some(nearest),
        None => alike
            .into_iter()
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, other)| other),
    }
}

/// The message about a file of the user that does not exist; `expected` says what kind of file is needed.
pub fn no_file(path: &Path, expected: &str) -> String {
    format!(
        "there is no file {}, expected {expected}: check the path; a relative path starts at the folder in which the \
         program is started",
        path.display()
    )
}

/// A range of numbers: `a number from 1e-9 to 1`.
pub fn number_within(first: f64, last: f64) -> String {
    let first = if 0.0 < first && first < 0.001 {
        format!("{first:e}")
    } else {
        first.to_string()
    };
    format!("a number from {first} to {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_has_the_fewest_mistakes_or_else_begins_alike() {
        let flags = [
            "guidance-rescale",
            "guidance-scale",
            "guided-steps",
            "guess-mode",
        ];
        for (word, expected) in [
            ("guidence-scale", Some("guidance-scale")),
            ("guidance_rescale", Some("guidance-rescale")),
            ("guidence", Some("guidance-scale")),
            ("width", None),
        ] {
            assert_eq!(nearest(word, flags), expected, "{word}");
        }
        let paths = [
            "unet/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(nearest_above(0.9, "vae/config.json", paths), None);
    }

    #[test]
    fn small_numbers_have_no_zeros_to_count() {
        assert_eq!(number_within(1e-9, 1.0), "a number from 1e-9 to 1");
        assert_eq!(number_within(0.0, 0.5), "a number from 0 to 0.5");
        assert_eq!(number_within(-10.0, 10.0), "a number from -10 to 10");
    }

    #[test]
    fn numbers_agree_with_their_nouns_and_long_prompts_are_cut() {
        assert_eq!(counted(1, "pass", "passes"), "1 pass");
        assert_eq!(counted(0, "pass", "passes"), "0 passes");
        assert_eq!(excerpt("a cat"), "a cat");
        assert_eq!(excerpt(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(excerpt(&"é".repeat(81)), "é".repeat(80) + "…");
    }
}
