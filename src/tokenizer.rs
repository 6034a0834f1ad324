//! Text to tokens: CLIP's byte-level BPE from `vocab.json` and `merges.txt`, with the places of a
//! word among the tokens.
//!
//! The checkpoints have no `tokenizer.json`, so the pipeline of the fast CLIP tokenizer is put
//! together here from the parts of the `tokenizers` crate.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizer::Range as OffsetRange;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizedString, SplitDelimiterBehavior, Tokenizer};

use crate::error::model;

pub mod chunks;
pub mod prompt_tokens;
pub mod weights;

/// What CLIP treats as one piece before it looks for merges.
const PIECES: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Files of a tokenizer's folder without which there is no tokenizer.
pub const REQUIRED_FILES: [&str; 2] = ["vocab.json", "merges.txt"];

/// Files of a tokenizer's folder that may be missing.
pub const OPTIONAL_FILES: [&str; 2] = ["special_tokens_map.json", "tokenizer_config.json"];

/// The four files of a tokenizer folder, as text.
pub struct TokenizerFiles<'a> {
    /// `vocab.json`.
    pub vocab: &'a str,
    /// `merges.txt`.
    pub merges: &'a str,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a str>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a str>,
}

/// A token in a config: its text, or a record around its text.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Record {
        content: String,
        #[serde(default)]
        normalized: bool,
    },
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            SpecialToken::Text(text) | SpecialToken::Record { content: text, .. } => text,
        }
    }

    /// How the token is cut out of a text before anything else. Records of SDXL's files say
    /// `normalized`: such a token is looked for in the lower-cased text.
    fn added(&self) -> AddedToken {
        let normalized = matches!(
            self,
            SpecialToken::Record {
                normalized: true,
                ..
            }
        );
        AddedToken::from(self.text(), true).normalized(normalized)
    }
}

#[derive(Deserialize, Default)]
struct SpecialTokens {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
    /// A float, because "no limit" is written as 1e30.
    model_max_length: Option<f64>,
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: i64,
    /// The bytes of the text behind it.
    pub bytes: Range<usize>,
}

/// Why a word has no place among a prompt's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordError {
    /// The prompt does not hold the word.
    Missing,
    /// The prompt holds it only behind the limit, or it is longer than a chunk.
    CutOff,
    /// A weight begins or ends inside it, so that its tokens may be others than those it was tuned
    /// with.
    Torn,
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            WordError::Missing => "the prompt does not hold the word",
            WordError::CutOff => "the word lies behind the limit of tokens",
            WordError::Torn => "a weight begins or ends inside the word",
        })
    }
}

impl std::error::Error for WordError {}

/// A CLIP tokenizer.
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    bos: i64,
    eos: i64,
    pad: i64,
    /// The largest number of a token.
    largest: i64,
    model_max_length: usize,
}

/// Errors of the `tokenizers` crate are boxed; this gives them a place.
fn in_crate(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("{error}").context("building the tokenizer")
}

impl ClipTokenizer {
    /// Builds the tokenizer. The padding token differs between SDXL's two: `<|endoftext|>` and `!`. Where
    /// the two files disagree, as SD 2.1's do, `special_tokens_map.json` counts, as in transformers.
    ///
    /// # Errors
    /// When a file does not parse, or names a special token that the vocabulary lacks.
    pub fn new(files: &TokenizerFiles) -> Result<Self> {
        let vocab: HashMap<String, u32> =
            serde_json::from_str(files.vocab).map_err(|e| model(format!("vocab.json: {e}")))?;
        let merges = files
            .merges
            .lines()
            .enumerate()
            .filter(|(i, line)| !(line.is_empty() || *i == 0 && line.starts_with("#version")))
            .map(|(i, line)| {
                line.split_once(' ')
                    .map(|(a, b)| (a.to_string(), b.to_string()))
                    .ok_or_else(|| {
                        model(format!(
                            "merges.txt:{}: found {line:?}, expected two parts",
                            i + 1
                        ))
                    })
            })
            .collect::<Result<Vec<_>>>()?;
        let parse = |text: Option<&str>, file: &str| -> Result<SpecialTokens> {
            let parsed = text.map(serde_json::from_str).transpose();
            Ok(parsed
                .map_err(|e| model(format!("{file}: {e}")))?
                .unwrap_or_default())
        };
        let map = parse(files.special_tokens_map, "special_tokens_map.json")?;
        let config = parse(files.tokenizer_config, "tokenizer_config.json")?;
        let pick = |a: Option<SpecialToken>, b: Option<SpecialToken>, default: &str| {
            a.or(b)
                .unwrap_or_else(|| SpecialToken::Text(default.to_string()))
        };
        let bos = pick(map.bos_token, config.bos_token, "<|startoftext|>");
        let eos = pick(map.eos_token, config.eos_token, "<|endoftext|>");
        let unk = pick(map.unk_token, config.unk_token, "<|endoftext|>");
        let pad = pick(map.pad_token, config.pad_token, "<|endoftext|>");
        let id = |token: &SpecialToken| {
            let text = token.text();
            vocab
                .get(text)
                .map(|&id| i64::from(id))
                .ok_or_else(|| model(format!("vocab.json: the special token {text:?} is missing")))
        };
        let (bos_id, eos_id, pad_id) = (id(&bos)?, id(&eos)?, id(&pad)?);
        // Without its number the first unknown character of a prompt would fail.
        id(&unk)?;

        let largest = vocab.values().max().map_or(0, |&id| i64::from(id));

        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
            .unk_token(unk.text().to_string())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_string())
            .build()
            .map_err(in_crate)?;
        let mut tokenizer = Tokenizer::new(bpe);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(in_crate)?;
        tokenizer
            .with_normalizer(Some(Normalizers::new(vec![
                NFC.into(),
                spaces.into(),
                Lowercase.into(),
            ])))
            .map_err(in_crate)?;
        let pieces = Split::new(
            SplitPattern::Regex(PIECES.into()),
            SplitDelimiterBehavior::Removed,
            true,
        )
        .map_err(in_crate)?;
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![pieces.into(), bytes.into()])));
        // The pad too: with SDXL's second tokenizer every "!" of a prompt is the token 0.
        let special = [&bos, &eos, &pad].map(SpecialToken::added);
        tokenizer.add_special_tokens(special).map_err(in_crate)?;

        let model_max_length = config.model_max_length.unwrap_or(77.0);
        if !(3.0..=10_000.0).contains(&model_max_length) {
            return Err(model(format!(
                "tokenizer_config.json: model_max_length {model_max_length}, expected 3 to 10000"
            )));
        }
        Ok(ClipTokenizer {
            tokenizer,
            bos: bos_id,
            eos: eos_id,
            pad: pad_id,
            largest,
            model_max_length: model_max_length as usize,
        })
    }

    /// The model's limit, start and end token included.
    pub fn model_max_length(&self) -> usize {
        self.model_max_length
    }

    /// Refuses a text encoder that can not read all that this tokenizer writes.
    ///
    /// # Errors
    /// Names the numbers that do not fit.
    pub fn check_encoder(&self, vocab_size: i64, max_position_embeddings: i64) -> Result<()> {
        if self.largest >= vocab_size {
            return Err(model(format!(
                "vocab.json: found token {}, expected less than {vocab_size}, the vocab_size of the text encoder",
                self.largest
            )));
        }
        let length = self.model_max_length as i64;
        if length > max_position_embeddings {
            return Err(model(format!(
                "tokenizer_config.json: model_max_length: found {length}, expected at most {max_position_embeddings}, the max_position_embeddings of the text encoder"
            )));
        }
        Ok(())
    }

    /// Tokens of a text, however many.
    ///
    /// # Errors
    /// When the `tokenizers` crate fails, which it does for no text known to us.
    pub fn tokens(&self, text: &str) -> Result<Vec<Token>> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|e| anyhow!("{e}"))
            .context("tokenizing")?;
        let ids = encoding.get_ids().iter();
        let tokens = ids.zip(encoding.get_offsets()).map(|(&id, &(a, b))| Token {
            id: i64::from(id),
            bytes: a..b,
        });
        Ok(tokens.collect())
    }

    /// What a text encoder reads: start token, at most [`Self::room`] tokens of a text, end token,
    /// padding; as long as the model's limit.
    pub fn frame(&self, tokens: impl Iterator<Item = i64>) -> Vec<i64> {
        let text = tokens.take(self.room());
        let mut ids: Vec<i64> = std::iter::once(self.bos).chain(text).collect();
        ids.push(self.eos);
        ids.resize(self.model_max_length, self.pad);
        ids
    }

    /// How many tokens of a text fit between start and end token.
    pub fn room(&self) -> usize {
        self.model_max_length - 2
    }
}

/// Bytes of `text` at which `word` stands as a whole, whatever its case, the width of its spaces
/// and the way its accents are written (both are compared in Unicode's composed form, NFC).
pub fn find_word(text: &str, word: &str) -> Vec<Range<usize>> {
    let composed = |text: &str| {
        let mut text = NormalizedString::from(text);
        text.nfc();
        text
    };
    let (composed_text, word) = (composed(text), composed(word));
    // The byte of `text` behind a place in its composed form, at which a character begins.
    let original = |at: usize| {
        let next = composed_text.get()[at..].chars().next()?;
        let span = OffsetRange::Normalized(at..at + next.len_utf8());
        composed_text.convert_offsets(span).map(|span| span.start)
    };
    find_composed(composed_text.get(), word.get())
        .into_iter()
        .filter_map(|span| Some(original(span.start)?..original(span.end).unwrap_or(text.len())))
        .collect()
}

fn find_composed(text: &str, word: &str) -> Vec<Range<usize>> {
    let wanted: Vec<String> = word
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .map(fold)
        .collect();
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let end_of = |i: usize| chars.get(i).map_or(text.len(), |&(at, _)| at);
    let alphanumeric = |i: Option<usize>| {
        i.and_then(|i| chars.get(i))
            .is_some_and(|(_, c)| c.is_alphanumeric())
    };
    let mut found = Vec::new();
    let mut start = 0;
    while start < chars.len() && !wanted.is_empty() {
        match match_at(&chars[start..], &wanted) {
            Some(len)
                if !alphanumeric(start.checked_sub(1)) && !alphanumeric(Some(start + len)) =>
            {
                found.push(chars[start].0..end_of(start + len));
                start += len;
            }
            _ => start += 1,
        }
    }
    found
}

/// How many characters of `chars` spell `wanted`, where they do.
fn match_at(chars: &[(usize, char)], wanted: &[String]) -> Option<usize> {
    let mut i = 0;
    for want in wanted {
        let (_, c) = chars.get(i)?;
        if want == " " {
            let spaces = chars[i..]
                .iter()
                .take_while(|(_, c)| c.is_whitespace())
                .count();
            if spaces == 0 {
                return None;
            }
            i += spaces;
        } else if fold(*c) == *want {
            i += 1;
        } else {
            return None;
        }
    }
    Some(i)
}

fn fold(c: char) -> String {
    c.to_lowercase().collect()
}

#[cfg(test)]
mod tests {
    use super::find_word;

    #[test]
    fn a_word_is_found_whole_and_in_any_case() {
        assert_eq!(
            find_word("Cat, a cat's catalogue, CAT", "cat"),
            [0..3, 7..10, 24..27]
        );
        let only = |text, word| find_word(text, word).pop();
        assert_eq!(only("a pencil  box.", "Pencil box"), Some(2..13));
        assert_eq!(only("un cafe\u{301}!", "caf\u{e9}"), Some(3..9));
        assert!(find_word("cafe\u{301}", "cafe").is_empty());
        assert!(find_word("pencilbox", "pencil box").is_empty());
        assert!(find_word("anything", " ").is_empty());
    }
}
