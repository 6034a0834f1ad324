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

use super::special::{AddedRecord, SpecialTokens};
use crate::error::model;

/// The files of a tokenizer's folder that are there, as text.
#[derive(Clone, Copy, Default)]
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
}

/// What the files say.
pub(super) struct Contents {
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

impl Contents {
    pub(super) fn read(files: &TokenizerFiles) -> Result<Contents> {
        let vocabulary = Vocabulary::read(files)?;
        let mut config: Map<String, Value> = optional(CONFIG, files.tokenizer_config)?;
        check_only_values(&config)?;
        vocabulary.check_sides(&config)?;
        let (special, numbered) = match config.remove("added_tokens_decoder") {
            Some(decoder) => {
                let special = SpecialTokens::read(config.clone(), Map::new())?;
                let decoder: BTreeMap<u32, AddedRecord> = serde_json::from_value(decoder)
                    .map_err(|error| model(format!("{CONFIG}: added_tokens_decoder: {error}")))?;
                (special, decoder)
            }
            None => {
                let map = optional("special_tokens_map.json", files.special_tokens_map)?;
                let special = SpecialTokens::read(config.clone(), map)?;
                let mut numbered = BTreeMap::new();
                let added: BTreeMap<String, u32> =
                    optional("added_tokens.json", files.added_tokens)?;
                for (content, number) in added {
                    let is_special = special.are_said_to_hold(&content);
                    numbered.insert(number, AddedRecord::of_file(content, is_special));
                }
                let in_one = vocabulary.added_tokens.into_iter();
                numbered.extend(in_one.map(|token| (token.id, token.record)));
                (special, numbered)
            }
        };
        Ok(Contents {
            vocab: vocabulary.vocab,
            merges: vocabulary.merges,
            added: special.added(numbered),
            special,
            split_special_tokens: match config.get("split_special_tokens") {
                None | Some(Value::Bool(false)) => false,
                Some(Value::Bool(true)) => true,
                Some(other) => {
                    return Err(in_config("split_special_tokens", other, "true or false"));
                }
            },
            model_max_length: model_max_length(&config)?,
        })
    }
}

const CONFIG: &str = "tokenizer_config.json";

/// CLIP's length, where the file does not say it: transformers then has no limit, and diffusers cannot draw.
const CLIP_LENGTH: usize = 77;

/// Numbers of tokens are below it, as those of [`ClipTextConfig`](crate::models::clip_text_model::ClipTextConfig).
const NUMBERS: u32 = 1 << 24;

/// Keys of `tokenizer_config.json` that change what is read, with the only values that are computed here.
const ONLY_VALUES: [(&str, &[&str]); 4] = [
    ("padding_side", &[RIGHT]),
    ("truncation_side", &[RIGHT]),
    ("tokenizer_class", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("backend", &["tokenizers"]),
];

const RIGHT: &str = "right";

fn in_config(key: &str, found: &Value, expected: &str) -> anyhow::Error {
    model(format!(
        "{CONFIG}: {key}: found {found}, expected {expected}"
    ))
}

fn check_only_values(config: &Map<String, Value>) -> Result<()> {
    for (key, allowed) in ONLY_VALUES {
        match config.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if allowed.contains(&text.as_str()) => {}
            Some(other) => return Err(in_config(key, other, &allowed.join(" or "))),
        }
    }
    Ok(())
}

/// `model_max_length`, or its older name; a float where "no limit" is written as 1e30.
fn model_max_length(config: &Map<String, Value>) -> Result<usize> {
    let key = match config.contains_key("model_max_length") {
        true => "model_max_length",
        false => "max_len",
    };
    let Some(found) = config.get(key) else {
        return Ok(CLIP_LENGTH);
    };
    match found.as_f64() {
        Some(length) if (3.0..=10_000.0).contains(&length) && length.fract() == 0.0 => {
            Ok(length as usize)
        }
        _ => Err(in_config(key, found, "a whole number from 3 to 10000")),
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
    r#type: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
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
        if let Some(kind) = json.model.r#type.filter(|kind| kind != "BPE") {
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
    fn check_sides(&self, config: &Map<String, Value>) -> Result<()> {
        let sides = [
            ("padding", "padding_side", &self.padding),
            ("truncation", "truncation_side", &self.truncation),
        ];
        for (field, key, side) in sides {
            if let (Some(Side { direction }), false) = (side, config.contains_key(key))
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

/// The value of a file; an empty one where there is no file.
fn optional<T: DeserializeOwned + Default>(file: &str, text: Option<&str>) -> Result<T> {
    text.map_or_else(|| Ok(T::default()), |text| parsed(file, text))
}
