//! The files of a CLIP tokenizer, read as transformers' `CLIPTokenizer.from_pretrained` reads them.
//!
//! Vocabulary and merges are those of `tokenizer.json`; without it those of `vocab.json` and `merges.txt`. Of
//! `tokenizer.json` only the added tokens count besides: the class builds normalizer, pre-tokenizer and post-processor
//! itself, whatever the file says of them.
//!
//! Added tokens are those of `added_tokens_decoder` in `tokenizer_config.json`. Only without it are
//! `special_tokens_map.json`, whose values overrule those of `tokenizer_config.json`, `added_tokens.json` and the
//! `added_tokens` of `tokenizer.json` read.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::fields::{CLASS, is_own_name};
use super::special::{AddedRecord, SpecialTokens};
use crate::error::model;
use crate::io::config_file::{ConfigFile, Notes};

/// The files of a tokenizer's folder that are there, as text.
#[derive(Clone, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a str>,
    /// `vocab.json`; not read beside `tokenizer.json`.
    pub vocab: Option<&'a str>,
    /// `merges.txt`; not read beside `tokenizer.json`.
    pub merges: Option<&'a str>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a str>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a str>,
    /// `added_tokens.json`.
    pub added_tokens: Option<&'a str>,
    /// Where remarks for the user go.
    pub notes: Notes,
}

/// What the files say.
pub(super) struct TokenizerContents {
    pub(super) vocab: HashMap<String, u32>,
    pub(super) merges: Vec<(String, String)>,
    pub(super) special: SpecialTokens,
    /// Tokens that are cut out of a text before anything else, in the order in which they are added, each with the
    /// number that a file gives it.
    pub(super) added: Vec<(AddedToken, Option<u32>)>,
    /// Whether special tokens that a prompt spells are read as text.
    pub(super) split_special_tokens: bool,
    /// The model's limit, start and end token included.
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
                let decoder: BTreeMap<u32, AddedRecord> = serde_json::from_value(decoder)
                    .map_err(|error| model(format!("{CONFIG}: added_tokens_decoder: {error}")))?;
                (special, decoder)
            }
            None => {
                let map =
                    fields(&files.parse("special_tokens_map.json", files.special_tokens_map)?)?;
                let special = SpecialTokens::read(config, map)?;
                let mut numbered = BTreeMap::new();
                let added: BTreeMap<String, u32> = match files.added_tokens {
                    Some(text) => parsed("added_tokens.json", text)?,
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
    /// One of the files, without values where there is none.
    fn parse(&self, name: &str, text: Option<&str>) -> Result<ConfigFile> {
        ConfigFile::parse(name, text.unwrap_or("{}"), self.notes.clone())
    }
}

/// The fields of a file that are read, and special tokens with names of their own.
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

/// The start, end, unknown and padding token that a `tokenizer_config.json` says by itself.
///
/// # Errors
/// When a field has a value that is not computed here.
pub fn special_tokens(config: &ConfigFile) -> Result<[String; 4]> {
    let special = SpecialTokens::read(fields(config)?, Map::new())?;
    Ok([special.bos, special.eos, special.unk, special.pad])
}

const CONFIG: &str = "tokenizer_config.json";

/// CLIP's length, where the file does not say it: transformers then has no limit, and diffusers cannot draw.
const CLIP_LENGTH: usize = 77;

/// Numbers of tokens are below it, as those of [`ClipTextConfig`](crate::models::clip_text_model::ClipTextConfig).
const NUMBERS: u32 = 1 << 24;

const RIGHT: &str = "right";

/// `model_max_length`, or its older name; a float where "no limit" is written as 1e30.
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

/// Vocabulary and merges, and what else of `tokenizer.json` counts.
#[derive(Default)]
struct Vocabulary {
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    added_tokens: Vec<NumberedRecord>,
    /// Sides on which `tokenizer.json` pads and truncates.
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
    /// A file may leave it out, and `null` is no kind.
    #[serde(default = "bpe")]
    r#type: String,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

fn bpe() -> String {
    "BPE".to_owned()
}

#[derive(Deserialize)]
#[serde(untagged)]
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
            (Some(text), ..) => Vocabulary::of_tokenizer_json(parsed(TOKENIZER, text)?)?,
            (None, Some(vocab), Some(merges)) => Vocabulary {
                vocab: parsed("vocab.json", vocab)?,
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
                "{TOKENIZER}: model: type: found {kind}, expected BPE"
            )));
        }
        let merge = |merge: Merge| match merge {
            Merge::Pair(a, b) => Ok((a, b)),
            Merge::Text(text) => two_parts(&text).ok_or_else(|| {
                model(format!(
                    "{TOKENIZER}: model: merges: found {text:?}, expected two parts"
                ))
            }),
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

    /// Refuses another side, which `tokenizer.json` decides where the config does not say it.
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
                    "{TOKENIZER}: {field}: direction: found {direction}, expected {RIGHT}"
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
                    "merges.txt:{line_number}: found {line:?}, expected two parts"
                ))
            })
        })
        .collect()
}

fn parsed<T: DeserializeOwned>(file: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| model(format!("{file}: {error}")))
}
