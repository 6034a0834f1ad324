//! Where a prompt that is longer than a text encoder's limit is cut into chunks.
//!
//! Every text encoder gets the same text in the same chunk, although tokenizers may make different
//! numbers of tokens of the text. A chunk holds as much as fits. The cut is
//!
//! 1. after the last `,`, `;` or `.` followed by white space, if this leaves at most 20 of 75 places
//!    empty, as in stable-diffusion-webui;
//! 2. otherwise before the last word that does not fit as a whole;
//! 3. otherwise, if a word is longer than a chunk or the script has no white space, before the first
//!    token that does not fit.
//!
//! Words named by the caller are never cut, even if they contain white space, unless such a word
//! alone is longer than a chunk.

use std::ops::Range;

/// Ends of phrases.
const PHRASE_ENDS: [char; 3] = [',', ';', '.'];

/// Places that a cut after a phrase may leave empty in a chunk with `room` places: 20 of 75, the
/// distance over which stable-diffusion-webui looks back for a comma.
fn most_left_empty(room: usize) -> usize {
    room * 20 / 75
}

/// The bytes of `text` at which each chunk but the first begins.
///
/// `starts` holds, for each text encoder, the bytes at which its tokens begin, in ascending order.
/// `room` is the number of tokens in a chunk. `whole` are byte ranges that must not be cut.
pub fn cuts(text: &str, starts: &[Vec<usize>], room: usize, whole: &[Range<usize>]) -> Vec<usize> {
    let words = word_starts(text);
    let mut cuts = Vec::new();
    let mut begin = 0;
    loop {
        let rest: Vec<&[usize]> = starts
            .iter()
            .map(|starts| &starts[starts.partition_point(|&start| start < begin)..])
            .collect();
        let Some(limit) = rest.iter().filter_map(|rest| rest.get(room)).min() else {
            return cuts;
        };
        let first = rest.iter().filter_map(|rest| rest.first()).min();
        let first = *first.expect("more tokens than fit");
        begin = if *limit > first {
            cut(&words, &rest, (first, room, *limit), whole)
        } else {
            // A single character makes more tokens than a chunk holds: the rest is cut off.
            let behind = rest.iter().copied().flatten().filter(|s| **s > first);
            let Some(next) = behind.min() else {
                return cuts;
            };
            *next
        };
        cuts.push(begin);
    }
}

/// The end of the chunk that begins with the tokens `rest`. `first` is the byte of the first token;
/// `limit` is the byte of the first token that does not fit.
fn cut(
    words: &[(usize, bool)],
    rest: &[&[usize]],
    (first, room, limit): (usize, usize, usize),
    whole: &[Range<usize>],
) -> usize {
    let cut_word = |at: usize| whole.iter().find(|word| word.start < at && at < word.end);
    let left_empty = |at: usize| {
        let taken = rest.iter().map(|rest| rest.partition_point(|&s| s < at));
        room - taken.max().unwrap_or(0)
    };
    let from = words.partition_point(|(at, _)| *at <= first);
    let to = words.partition_point(|(at, _)| *at <= limit);
    let fitting = || {
        let last_first = words[from..to].iter().rev();
        last_first.filter(|(at, _)| cut_word(*at).is_none())
    };
    let phrase = fitting().find(|(_, ends_phrase)| *ends_phrase);
    match (phrase, fitting().next()) {
        (Some((at, _)), _) if left_empty(*at) <= most_left_empty(room) => *at,
        (_, Some((at, _))) => *at,
        (_, None) => match cut_word(limit) {
            Some(word) if word.start > first => word.start,
            _ => limit,
        },
    }
}

/// The bytes after white space, each with whether a phrase ends before it.
fn word_starts(text: &str) -> Vec<(usize, bool)> {
    let mut found = Vec::new();
    let (mut last, mut behind_space) = (' ', false);
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            behind_space = true;
            continue;
        }
        if behind_space {
            found.push((at, PHRASE_ENDS.contains(&last)));
        }
        (last, behind_space) = (c, false);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chunks of `text` for tokenizers that make a token of every `each` characters of a word,
    /// and a token of each punctuation mark.
    fn chunks(text: &str, each: &[usize], room: usize, whole: &[&str]) -> Vec<String> {
        let tokenize = |each: &usize| {
            let mut starts = Vec::new();
            let mut length = 0;
            for (at, c) in text.char_indices() {
                let is_letter = c.is_alphanumeric();
                if is_letter && length % each == 0 || !is_letter && !c.is_whitespace() {
                    starts.push(at);
                }
                length = if is_letter { length + 1 } else { 0 };
            }
            starts
        };
        let starts: Vec<Vec<usize>> = each.iter().map(tokenize).collect();
        let whole: Vec<Range<usize>> = whole
            .iter()
            .flat_map(|word| text.match_indices(word))
            .map(|(at, word)| at..at + word.len())
            .collect();
        let mut begins = vec![0];
        begins.extend(cuts(text, &starts, room, &whole));
        begins.push(text.len());
        let parts = begins.windows(2);
        parts
            .map(|ends| text[ends[0]..ends[1]].trim().to_owned())
            .collect()
    }

    #[test]
    fn a_prompt_that_fits_is_not_cut() {
        assert_eq!(chunks("", &[9], 5, &[]), [""]);
        assert_eq!(chunks("a b c d e", &[9], 5, &[]), ["a b c d e"]);
        assert_eq!(chunks("  a b c d e  ", &[9, 9], 5, &[]), ["a b c d e"]);
    }

    #[test]
    fn words_are_moved_as_a_whole() {
        assert_eq!(chunks("a b c d e f", &[9], 5, &[]), ["a b c d e", "f"]);
        // "efgh" would be two tokens in either chunk.
        assert_eq!(
            chunks("a b c d efgh i", &[2], 5, &[]),
            ["a b c d", "efgh i"]
        );
        assert_eq!(chunks("a b c d e!", &[9], 5, &[]), ["a b c d", "e!"]);
    }

    #[test]
    fn a_phrase_is_kept_where_little_is_lost_by_it() {
        // Up to 4 of 15 places may stay empty.
        let text = "a b c d e f g h i j, k l m n o p";
        let kept = ["a b c d e f g h i j,", "k l m n o p"];
        assert_eq!(chunks(text, &[9], 15, &[]), kept);
        let text = "a b c d e f g h i, j k l m n o p";
        let cut = ["a b c d e f g h i, j k l m n", "o p"];
        assert_eq!(chunks(text, &[9], 15, &[]), cut);
        // A comma inside a number does not end a phrase.
        let text = "a b c d e f g h i 1,000 k l m n o p";
        let cut = ["a b c d e f g h i 1,000 k l m", "n o p"];
        assert_eq!(chunks(text, &[9], 15, &[]), cut);
    }

    #[test]
    fn what_fits_only_one_encoder_is_moved_for_both() {
        let both = chunks("ab cd ef gh ij", &[2, 1], 5, &[]);
        assert_eq!(both, ["ab cd", "ef gh", "ij"]);
        assert_eq!(both, chunks("ab cd ef gh ij", &[1, 2], 5, &[]));
        // The phrase takes 11 of 15 places for one encoder and 6 for the other.
        let text = "ab cd ef gh ij, kl mn op";
        let kept = ["ab cd ef gh ij,", "kl mn op"];
        assert_eq!(chunks(text, &[2, 1], 15, &[]), kept);
    }

    #[test]
    fn text_without_white_space_is_cut_where_the_chunk_is_full() {
        assert_eq!(chunks("abcdefghijk", &[2], 3, &[]), ["abcdef", "ghijk"]);
        assert_eq!(
            chunks("abcdefghijk", &[2, 1], 3, &[]),
            ["abc", "def", "ghi", "jk"].map(String::from),
            "the second tokenizer's every character is a token"
        );
    }

    #[test]
    fn named_words_are_never_cut() {
        let text = "a b c d pencil box e";
        assert_eq!(chunks(text, &[9], 5, &[]), ["a b c d pencil", "box e"]);
        let whole = chunks(text, &[9], 5, &["pencil box"]);
        assert_eq!(whole, ["a b c d", "pencil box e"]);
        let text = "abcdefghijk";
        assert_eq!(chunks(text, &[1], 4, &["defg"]), ["abc", "defg", "hijk"]);
        // A named word that is longer than a chunk is cut like any other text.
        let text = "a pencil box";
        assert_eq!(
            chunks(text, &[1], 5, &["pencil box"]),
            ["a", "penci", "l box"]
        );
    }
}
