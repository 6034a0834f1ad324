//! Turns text into tokens: CLIP's byte-level BPE from the files of a tokenizer's folder. Also finds
//! the positions of a word among the tokens.
//!
//! The files are read in `files`. The pipeline of transformers' `CLIPTokenizer` is built here from
//! the parts of the `tokenizers` crate.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizer::Range as OffsetRange;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizedString, Normalizer, SplitDelimiterBehavior, Tokenizer};

use crate::error::model;
use files::TokenizerContents;

pub(crate) mod chunks;
mod fields;
mod files;
pub(crate) mod folder;
pub mod prompt_tokens;
mod special;
pub mod weights;

pub use fields::CLASS;
pub use files::{TokenizerFiles, special_tokens};

/// The pieces that CLIP splits a text into before it applies merges.
const PIECES: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A token of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token's number in the vocabulary.
    pub id: i64,
    /// The bytes of the text that the token covers.
    pub bytes: Range<usize>,
}

/// Why a word has no position among a prompt's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordError {
    /// The prompt does not contain the word.
    Missing,
    /// The word comes after the limit of tokens, or is longer than a chunk.
    CutOff,
    /// A weight starts or ends inside the word, so that its tokens may differ from the tokens it
    /// was tuned with.
    Torn,
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            WordError::Missing => "the prompt does not contain the word",
            WordError::CutOff => "the word comes after the limit of tokens",
            WordError::Torn => "a weight starts or ends inside the word",
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
    /// The largest token number.
    largest: i64,
    /// The numbers of added tokens, which are cut out of a text before anything else.
    added: HashMap<String, u32>,
    model_max_length: usize,
}

/// Adds context to the boxed errors of the `tokenizers` crate.
fn in_crate(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("{error}").context("building the tokenizer")
}

fn missing(token: &str) -> anyhow::Error {
    model(format!(
        "the special token {token:?} is not in the vocabulary"
    ))
}

/// Refuses two added tokens that are equal once text is normalized: which token a text gives would
/// be arbitrary.
fn check_differ(tokenizer: &Tokenizer, added: &[AddedToken]) -> Result<()> {
    let mut known: HashMap<String, &str> = HashMap::new();
    for token in added.iter().filter(|token| token.normalized) {
        let mut text = NormalizedString::from(token.content.as_str());
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut text).map_err(in_crate)?;
        }
        match known.insert(text.get().to_owned(), &token.content) {
            Some(other) if other != token.content => {
                return Err(model(format!(
                    "the added tokens {other:?} and {:?} are the same in lower case, expected different tokens: rename \
                     one of them",
                    token.content
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// transformers numbers a new token with the first number after the vocabulary, whatever its file
/// says.
fn other_number(token: &str, said: Option<u32>, number: Option<u32>) -> anyhow::Error {
    let shown = |number: Option<u32>| number.map_or_else(|| "none".to_owned(), |n| n.to_string());
    model(format!(
        "the added token {token:?} has the number {} in its file, expected {}: its number in the vocabulary, or the first \
         number after the vocabulary",
        shown(said),
        shown(number)
    ))
}

/// CLIP's tokenizer pipeline without added tokens.
fn pipeline(
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    unk: String,
) -> Result<Tokenizer> {
    let bpe = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
        .unk_token(unk)
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
    Ok(tokenizer)
}

impl ClipTokenizer {
    /// Builds the tokenizer as transformers does from the same files. SDXL's two tokenizers have
    /// different padding tokens: `<|endoftext|>` and `!`.
    ///
    /// # Errors
    /// When a file does not parse, asks for something that is not supported, or names special
    /// tokens or token numbers that do not match the vocabulary.
    pub fn new(files: &TokenizerFiles) -> Result<Self> {
        let contents = TokenizerContents::read(files)?;
        let special = contents.special;
        // Without this check a prompt would fail at its first unknown character.
        if !contents.vocab.contains_key(&special.unk) {
            return Err(missing(&special.unk));
        }
        let of_vocabulary = contents.vocab.values().copied().max();
        let mut tokenizer = pipeline(contents.vocab, contents.merges, special.unk)?;
        let (added, numbers): (Vec<_>, Vec<_>) = contents.added.into_iter().unzip();
        check_differ(&tokenizer, &added)?;
        tokenizer.add_tokens(added.clone()).map_err(in_crate)?;
        tokenizer.set_encode_special_tokens(contents.split_special_tokens);
        for (token, said) in added.iter().zip(numbers) {
            let number = tokenizer.token_to_id(&token.content);
            if said.is_some() && said != number {
                return Err(other_number(&token.content, said, number));
            }
        }
        let added = tokenizer.get_added_vocabulary().get_vocab().iter();
        let added: HashMap<String, u32> = added.map(|(text, id)| (text.clone(), *id)).collect();
        let id = |token: &str| {
            let id = tokenizer.token_to_id(token).map(i64::from);
            id.ok_or_else(|| missing(token))
        };
        Ok(ClipTokenizer {
            bos: id(&special.bos)?,
            eos: id(&special.eos)?,
            pad: id(&special.pad)?,
            largest: added
                .values()
                .copied()
                .chain(of_vocabulary)
                .max()
                .map_or(0, i64::from),
            model_max_length: contents.model_max_length,
            tokenizer,
            added,
        })
    }

    /// The model's limit in tokens, including the start and end tokens.
    pub fn model_max_length(&self) -> usize {
        self.model_max_length
    }

    /// Refuses a text encoder that cannot read all tokens of this tokenizer.
    ///
    /// # Errors
    /// When it cannot; the message names the numbers that do not fit.
    pub fn check_encoder(&self, vocab_size: i64, max_position_embeddings: i64) -> Result<()> {
        if self.largest >= vocab_size {
            return Err(model(format!(
                "the tokenizer has a token {}, expected less than {vocab_size}, the vocab_size of the text encoder",
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

    /// A note for a text encoder that has more embeddings than this tokenizer has tokens.
    pub fn unused_rows(&self, vocab_size: i64) -> Option<String> {
        let tokens = self.largest + 1;
        (vocab_size > tokens).then(|| {
            format!(
                "{vocab_size} embeddings for the {tokens} tokens of its tokenizer, so the last {} are never read; if \
                 they were learnt (textual inversion), a file of the tokenizer is missing: tokenizer.json, \
                 added_tokens.json, or added_tokens_decoder in tokenizer_config.json",
                vocab_size - tokens
            )
        })
    }

    /// Whether words were added, for example by textual inversion: any token besides start, end and
    /// padding.
    pub fn has_added_words(&self) -> bool {
        let special = [self.bos, self.eos, self.pad];
        let mut added = self.added.values().map(|id| i64::from(*id));
        added.any(|id| !special.contains(&id))
    }

    /// All tokens of a prompt, as diffusers reads it. An added token such as `<cat>` is followed by
    /// the tokens `<cat>_1`, `<cat>_2` and so on, if they exist: further vectors that textual
    /// inversion learnt for one word. They cover the same bytes as the first token.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn prompt_tokens(&self, text: &str) -> Result<Vec<Token>> {
        let mut found = Vec::new();
        for token in self.tokens(text)? {
            // The exact spelling: diffusers compares before the text is lower-cased.
            let spelled = &text[token.bytes.clone()];
            let is_added = self
                .added
                .get(spelled)
                .is_some_and(|id| i64::from(*id) == token.id);
            let bytes = token.bytes.clone();
            found.push(token);
            let vectors = (1..).map_while(|i| self.added.get(&format!("{spelled}_{i}")));
            if is_added {
                found.extend(vectors.map(|id| Token {
                    id: i64::from(*id),
                    bytes: bytes.clone(),
                }));
            }
        }
        Ok(found)
    }

    /// All tokens of a text.
    ///
    /// # Errors
    /// When the `tokenizers` crate fails; no text is known for which it does.
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

    /// The input of a text encoder: start token, at most [`Self::room`] tokens of a text, end token
    /// and padding, as long as the model's limit.
    pub fn frame(&self, tokens: impl Iterator<Item = i64>) -> Vec<i64> {
        let text = tokens.take(self.room());
        let mut ids: Vec<i64> = std::iter::once(self.bos).chain(text).collect();
        ids.push(self.eos);
        ids.resize(self.model_max_length, self.pad);
        ids
    }

    /// How many tokens of a text fit between the start and end tokens.
    pub fn room(&self) -> usize {
        self.model_max_length - 2
    }
}

/// The byte ranges of `text` where `word` occurs as a whole word. Case, the width of spaces and the
/// encoding of accents are ignored (both texts are compared in Unicode's composed form, NFC).
pub fn find_word(text: &str, word: &str) -> Vec<Range<usize>> {
    let composed = |text: &str| {
        let mut text = NormalizedString::from(text);
        text.nfc();
        text
    };
    let (composed_text, word) = (composed(text), composed(word));
    // The byte of `text` at which the character at this byte of the composed form begins.
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

/// The number of characters at the start of `chars` that spell `wanted`, if they do.
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
