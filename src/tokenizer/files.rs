//! The files of a CLIP tokenizer, read as transformers' `CLIPTokenizer.from_pretrained` reads them.
//!
//! The vocabulary and merges come from `tokenizer.json`, or without it from `vocab.json` and
//! `merges.txt`. From `tokenizer.json` only the added tokens are used besides: the class builds
//! normalizer, pre-tokenizer and post-processor itself, whatever the file says about them.
//!
//! Added tokens come from `added_tokens_decoder` in `tokenizer_config.json`. Only without this
//! field are three other sources read: `special_tokens_map.json`, whose values override those of
//! `tokenizer_config.json`; `added_tokens.json`; and the `added_tokens` of `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::fields::{CLASS, is_own_name};
use super::special::{AddedRecord, SpecialTokens};
use crate::error::model;
use crate::io::config_file::{ConfigFile, Notes, from_json, from_value};

/// The text of the files in a tokenizer's folder; `None` for a file that is missing.
#[derive(Clone, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a str>,
    /// `vocab.json`; ignored if `tokenizer.json` exists.
    pub vocab: Option<&'a str>,
    /// `merges.txt`; ignored if `tokenizer.json` exists.
    pub merges: Option<&'a str>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a str>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a str>,
    /// `added_tokens.json`.
    pub added_tokens: Option<&'a str>,
    /// Receives notes for the user.
    pub notes: Notes,
}

/// The content of the files.
pub(super) struct TokenizerContents {
    pub(super) vocab: HashMap<String, u32>,
    pub(super) merges: Vec<(String, String)>,
    pub(super) special: SpecialTokens,
    /// Tokens that are cut out of a text before anything else, in the order in which they are
    /// added, each with the number that a file gives it.
    pub(super) added: Vec<(AddedToken, Option<u32>)>,
    /// Whether special tokens that are spelled out in a prompt are read as plain text.
    pub(super) split_special_tokens: bool,
    /// The model's limit in tokens, including the start and end tokens.
    pub(super) model_max_length: usize,
}

impl TokenizerContents {
    pub(super) fn read(files: &TokenizerFiles) -> Result<TokenizerContents> {
        let vocabulary = Vocabulary::read(files)?;
        let file = files.parse(CONFIG, files.tokenizer_config)?;
        vocabulary.check_sides(&file)?;
        let mut config = fields(&file)?;
        let (special, numbered) = match config.remove("added_tokens_decoder") {
            Some(decoder) => {
                let special = SpecialTokens::read(config, Map::new())?;
                let name = format!("{CONFIG}: added_tokens_decoder");
                (special, from_value(&name, &decoder)?)
            }
            None => {
                let map =
                    fields(&files.parse("special_tokens_map.json", files.special_tokens_map)?)?;
                let special = SpecialTokens::read(config, map)?;
                let mut numbered = BTreeMap::new();
                let added: BTreeMap<String, u32> = match files.added_tokens {
                    Some(text) => from_json("added_tokens.json", text)?,
                    None => BTreeMap::new(),
                };
                for (content, number) in added {
                    let is_special = special.are_said_to_hold(&content);
                    numbered.insert(number, AddedRecord::of_file(content, is_special));
                }
                let in_one = vocabulary.added_tokens.into_iter();
                numbered.extend(in_one.map(|token| (token.id, token.record)));
                (special, numbered)
            }
        };
        let split_special_tokens = match file.get("split_special_tokens") {
            None => false,
            Some(Value::Bool(split)) => *split,
            Some(_) => return Err(file.wrong("split_special_tokens", "true or false")),
        };
        Ok(TokenizerContents {
            vocab: vocabulary.vocab,
            merges: vocabulary.merges,
            added: special.added(numbered),
            special,
            split_special_tokens,
            model_max_length: model_max_length(&file)?,
        })
    }
}

impl TokenizerFiles<'_> {
    /// Parses one of the files; a missing file has no fields.
    fn parse(&self, name: &str, text: Option<&str>) -> Result<ConfigFile> {
        ConfigFile::parse(name, text.unwrap_or("{}"), self.notes.clone())
    }
}

/// The fields of a file that are read, including special tokens with custom names.
fn fields(file: &ConfigFile) -> Result<Map<String, Value>> {
    let own: Vec<&str> = file
        .keys()
        .filter(|key| is_own_name(key, file.get(key)))
        .collect();
    let mut fields: Map<String, Value> = file.read_with(&CLASS, &own)?;
    for key in own {
        fields.extend(file.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    Ok(fields)
}

/// The start, end, unknown and padding tokens that a `tokenizer_config.json` names by itself.
///
/// # Errors
/// When a field has a value that is not supported.
pub fn special_tokens(config: &ConfigFile) -> Result<[String; 4]> {
    let special = SpecialTokens::read(fields(config)?, Map::new())?;
    Ok([special.bos, special.eos, special.unk, special.pad])
}

const CONFIG: &str = "tokenizer_config.json";

/// CLIP's limit, used when the file does not name one. transformers then has no limit, and
/// diffusers fails.
const CLIP_LENGTH: usize = 77;

/// Token numbers are below this, as in
/// [`ClipTextConfig`](crate::models::clip_text_model::ClipTextConfig).
const NUMBERS: u32 = 1 << 24;

const RIGHT: &str = "right";

/// `model_max_length`, or the same under its older name. The value is a float if "no limit" is
/// written as 1e30.
fn model_max_length(config: &ConfigFile) -> Result<usize> {
    let newer = config.get("model_max_length").map(|_| "model_max_length");
    let key = newer.unwrap_or("max_len");
    match config.get(key).map(Value::as_f64) {
        None => Ok(CLIP_LENGTH),
        Some(Some(length)) if (3.0..=10_000.0).contains(&length) && length.fract() == 0.0 => {
            Ok(length as usize)
        }
        Some(_) => Err(config.wrong(key, "a whole number from 3 to 10000")),
    }
}

/// Vocabulary and merges, and the other parts of `tokenizer.json` that are used.
#[derive(Default)]
struct Vocabulary {
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    added_tokens: Vec<NumberedRecord>,
    /// The sides on which `tokenizer.json` pads and truncates.
    padding: Option<Side>,
    truncation: Option<Side>,
}

/// The fields of `tokenizer.json` that are read.
#[derive(Deserialize)]
struct TokenizerJson {
    model: BpeJson,
    #[serde(default)]
    added_tokens: Vec<NumberedRecord>,
    padding: Option<Side>,
    truncation: Option<Side>,
}

#[derive(Deserialize)]
struct BpeJson {
    /// A file may leave the field out; `null` is refused.
    #[serde(default = "bpe")]
    r#type: String,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

fn bpe() -> String {
    "BPE".to_owned()
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected two parts, such as \"a b\" or [\"a\", \"b\"]"
)]
enum Merge {
    Text(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct NumberedRecord {
    id: u32,
    #[serde(flatten)]
    record: AddedRecord,
}

#[derive(Deserialize)]
struct Side {
    direction: String,
}

impl Vocabulary {
    fn read(files: &TokenizerFiles) -> Result<Vocabulary> {
        let vocabulary = match (files.tokenizer, files.vocab, files.merges) {
            (Some(text), ..) => Vocabulary::of_tokenizer_json(from_json(TOKENIZER, text)?)?,
            (None, Some(vocab), Some(merges)) => Vocabulary {
                vocab: from_json("vocab.json", vocab)?,
                merges: lines_of_merges(merges)?,
                ..Vocabulary::default()
            },
            (None, ..) => {
                return Err(model(
                    "found neither tokenizer.json nor both of vocab.json and merges.txt",
                ));
            }
        };
        let added = vocabulary.added_tokens.iter().map(|token| &token.id);
        match vocabulary.vocab.values().chain(added).max() {
            Some(number) if *number >= NUMBERS => Err(model(format!(
                "found a token with the number {number}, expected less than {NUMBERS}"
            ))),
            _ => Ok(vocabulary),
        }
    }

    fn of_tokenizer_json(json: TokenizerJson) -> Result<Vocabulary> {
        let kind = json.model.r#type;
        if kind != "BPE" {
            return Err(model(format!(
                "{TOKENIZER}: model.type: found {kind}, expected BPE"
            )));
        }
        let merge = |merge: Merge| {
            match merge {
            Merge::Pair(a, b) => Ok((a, b)),
            Merge::Text(text) => two_parts(&text).ok_or_else(|| {
                model(format!(
                    "{TOKENIZER}: model.merges: found {text:?}, expected two parts separated by a space"
                ))
            }),
        }
        };
        Ok(Vocabulary {
            vocab: json.model.vocab,
            merges: json
                .model
                .merges
                .into_iter()
                .map(merge)
                .collect::<Result<_>>()?,
            added_tokens: json.added_tokens,
            padding: json.padding,
            truncation: json.truncation,
        })
    }

    /// Refuses padding or truncation on the left, which `tokenizer.json` decides if the config does
    /// not.
    fn check_sides(&self, config: &ConfigFile) -> Result<()> {
        let sides = [
            ("padding", "padding_side", &self.padding),
            ("truncation", "truncation_side", &self.truncation),
        ];
        for (field, key, side) in sides {
            if let (Some(Side { direction }), false) = (side, config.get(key).is_some())
                && !direction.eq_ignore_ascii_case(RIGHT)
            {
                return Err(model(format!(
                    "{TOKENIZER}: {field}.direction: found {direction}, expected {RIGHT}"
                )));
            }
        }
        Ok(())
    }
}

const TOKENIZER: &str = "tokenizer.json";

fn two_parts(text: &str) -> Option<(String, String)> {
    let (a, b) = text.split_once(' ')?;
    (!b.contains(' ')).then(|| (a.to_owned(), b.to_owned()))
}

/// The merges of `merges.txt`.
fn lines_of_merges(text: &str) -> Result<Vec<(String, String)>> {
    text.lines()
        .enumerate()
        .filter(|(i, line)| !(line.is_empty() || *i == 0 && line.starts_with("#version")))
        .map(|(i, line)| {
            two_parts(line).ok_or_else(|| {
                let line_number = i + 1;
                model(format!(
                    "merges.txt:{line_number}: found {line:?}, expected two parts separated by a space"
                ))
            })
        })
        .collect()
}
