//! The special and added tokens in a tokenizer's files, as transformers reads them.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::fields::{ADDITIONAL, EXTRA, NAMED, NAMES, is_own_name};
use crate::error::model;

/// A token with its flags. Missing flags have the defaults of the `tokenizers` package.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct AddedRecord {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// Whether the token is searched for in the normalized text. The default is true for tokens
    /// that are not special. `null` is refused, as in the `tokenizers` package.
    #[serde(default, deserialize_with = "some")]
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
    /// The kind of record; the config has only this kind.
    #[serde(rename = "__type")]
    _type: Option<AddedTokenType>,
}

fn some<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<bool>, D::Error> {
    bool::deserialize(deserializer).map(Some)
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
enum AddedTokenType {
    AddedToken,
}

impl AddedRecord {
    /// A token given by its text alone.
    fn of_text(content: String) -> AddedRecord {
        AddedRecord {
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: None,
            special: true,
            _type: None,
        }
    }

    /// A token from `added_tokens.json`.
    pub(super) fn of_file(content: String, is_special: bool) -> AddedRecord {
        AddedRecord {
            special: is_special,
            ..AddedRecord::of_text(content)
        }
    }

    fn added(self) -> AddedToken {
        let normalized = self.normalized.unwrap_or(!self.special);
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(normalized)
    }
}

/// A token in a config: its text, or a record that contains the text.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Record(AddedRecord),
}

impl SpecialToken {
    fn record(self) -> AddedRecord {
        match self {
            SpecialToken::Text(text) => AddedRecord::of_text(text),
            SpecialToken::Record(record) => record,
        }
    }
}

/// The special tokens named in the files.
pub(super) struct SpecialTokens {
    pub(super) bos: String,
    pub(super) eos: String,
    pub(super) unk: String,
    pub(super) pad: String,
    /// Tokens with names, in the order in which they are added.
    named: Vec<AddedRecord>,
    /// Tokens without names.
    extra: Vec<AddedRecord>,
    /// The texts of all tokens that the files name, without the class's defaults.
    said: Vec<String>,
}

impl SpecialTokens {
    /// The tokens of `tokenizer_config.json`, overridden by those of `special_tokens_map.json`
    /// where that file is used.
    pub(super) fn read(mut config: Map<String, Value>, map: Map<String, Value>) -> Result<Self> {
        additional_as_extra(&mut config);
        for (key, value) in map {
            match (config.get_mut(&key), value) {
                (Some(Value::Array(known)), Value::Array(more)) if key == EXTRA => {
                    let more = more.into_iter();
                    known.extend(
                        more.filter(|token| !known.contains(token))
                            .collect::<Vec<_>>(),
                    );
                }
                (_, value) => drop(config.insert(key, value)),
            }
        }
        additional_as_extra(&mut config);

        let mut tokens = SpecialTokens {
            bos: "<|startoftext|>".to_owned(),
            eos: "<|endoftext|>".to_owned(),
            unk: "<|endoftext|>".to_owned(),
            pad: "<|endoftext|>".to_owned(),
            named: Vec::new(),
            extra: Vec::new(),
            said: Vec::new(),
        };
        for key in NAMED {
            tokens.read_named(key, config.remove(key))?;
        }
        if let Some(extra) = config.remove(EXTRA).filter(|extra| !extra.is_null()) {
            match of_key(EXTRA, extra)? {
                Extra::List(list) => {
                    tokens.extra = list.into_iter().map(SpecialToken::record).collect();
                }
                Extra::Names(names) => tokens.take_names(names),
            }
        }
        if let Some(names) = config.remove(NAMES).filter(|names| !names.is_null()) {
            tokens.take_names(of_key(NAMES, names)?);
        }
        for (key, value) in config
            .into_iter()
            .filter(|(key, value)| is_own_name(key, Some(value)))
        {
            let token: SpecialToken = of_key(&key, value)?;
            tokens.named.push(token.record());
        }
        let extra = tokens.extra.iter().map(|record| record.content.clone());
        tokens.said.extend(extra);
        Ok(tokens)
    }

    fn read_named(&mut self, key: &str, found: Option<Value>) -> Result<()> {
        let field = match key {
            "bos_token" => Some(&mut self.bos),
            "eos_token" => Some(&mut self.eos),
            "unk_token" => Some(&mut self.unk),
            "pad_token" => Some(&mut self.pad),
            _ => None,
        };
        let record = match (found, &field) {
            (Some(Value::Null), Some(_)) => {
                return Err(model(format!("{key}: found null, expected a token")));
            }
            (None, Some(default)) => AddedRecord::of_text((*default).clone()),
            (None | Some(Value::Null), None) => return Ok(()),
            (Some(value), _) => {
                let token: SpecialToken = of_key(key, value)?;
                let record = token.record();
                self.said.push(record.content.clone());
                record
            }
        };
        if let Some(field) = field {
            field.clone_from(&record.content);
        }
        self.named.push(record);
        Ok(())
    }

    fn take_names(&mut self, names: BTreeMap<String, SpecialToken>) {
        let records = names.into_values().map(SpecialToken::record);
        self.named.extend(records);
    }

    /// Whether the files name this token as special.
    pub(super) fn are_said_to_hold(&self, content: &str) -> bool {
        self.said.iter().any(|said| said == content)
    }

    /// All tokens to add, in the order in which new tokens are numbered: first tokens with a number
    /// in a file, then tokens that are only named.
    pub(super) fn added(
        &self,
        numbered: BTreeMap<u32, AddedRecord>,
    ) -> Vec<(AddedToken, Option<u32>)> {
        let mut added: Vec<(AddedToken, Option<u32>)> = Vec::new();
        for (number, mut record) in numbered {
            record.special |= self
                .named
                .iter()
                .any(|named| named.content == record.content);
            added.push((record.added(), Some(number)));
        }
        let count = added.len();
        let named = self.named.iter().map(|record| AddedRecord {
            special: true,
            ..record.clone()
        });
        for token in named
            .chain(self.extra.iter().cloned())
            .map(AddedRecord::added)
        {
            let is_numbered = added[..count]
                .iter()
                .any(|(known, _)| known.content == token.content);
            if !is_numbered && added[count..].iter().all(|(known, _)| *known != token) {
                added.push((token, None));
            }
        }
        added
    }
}

/// The two forms of `extra_special_tokens`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Extra {
    List(Vec<SpecialToken>),
    Names(BTreeMap<String, SpecialToken>),
}

/// Moves tokens under the older key to the newer key if the newer key has none.
fn additional_as_extra(config: &mut Map<String, Value>) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(names) => names.is_empty(),
        _ => false,
    };
    if let Some(additional) = config.remove(ADDITIONAL)
        && config.get(EXTRA).is_none_or(is_empty)
    {
        config.insert(EXTRA.to_owned(), additional);
    }
}

fn of_key<T: DeserializeOwned>(key: &str, value: Value) -> Result<T> {
    let found = value.to_string();
    serde_json::from_value(value).map_err(|_| {
        model(format!(
            "{key}: found {found}, expected a token: its text, or an object with its content"
        ))
    })
}
