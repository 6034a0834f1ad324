//! A JSON config file of a model, read so that no field is ignored silently.
//!
//! diffusers and transformers build each class from the fields of such a file. Here a list for each
//! class names every parameter of its constructor. The list says whether the parameter is read, has
//! no effect on pictures, or is supported for some values only. `tests/config_fields.rs` compares
//! the lists with the constructors themselves.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::json::{self, shown};
use crate::error::model;

/// Notes for the user that come up while files are read. Each note is kept once.
#[derive(Clone, Debug, Default)]
pub struct Notes(Rc<RefCell<Vec<String>>>);

impl Notes {
    /// Adds a note, unless it is there already.
    pub fn add(&self, remark: String) {
        let mut remarks = self.0.borrow_mut();
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }

    /// Takes the notes that were added since the last call.
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// How a parameter of a class is treated.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// A field of the struct that the file is read into. `null` is refused: Python passes it on as
    /// `None`, which differs from the default of the class.
    Read,
    /// As [`Read`](Field::Read), but `null` is allowed. The struct has an `Option` for the field.
    ReadOrNull,
    /// As [`Read`](Field::Read), for a field that Python tests for truth only: `null` means
    /// `false`.
    ReadAsFlag,
    /// Has no effect on what is computed here, for this reason.
    Harmless(&'static str),
    /// These values, written as JSON, are supported; any other value is refused.
    Only(&'static [&'static str]),
}

/// Parameters, each with how it is treated.
pub type Fields = [(&'static str, Field)];

/// A class of diffusers or transformers.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// The name of the class.
    pub name: &'static str,
    /// The parameters of its constructor; those of base classes are in separate lists.
    pub fields: &'static [&'static Fields],
    /// Further keys of its files, written by older versions or related classes.
    pub besides: &'static [&'static Fields],
}

impl Class {
    fn find(&self, key: &str) -> Option<Field> {
        let lists = self.fields.iter().chain(self.besides);
        let mut all = lists.flat_map(|list| list.iter());
        all.find(|(name, _)| *name == key).map(|(_, field)| *field)
    }
}

/// The values of a config file, or of a part of one.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    name: String,
    values: Map<String, Value>,
    notes: Notes,
}

impl ConfigFile {
    /// Parses the text of the file that messages call `name`. `NaN` and `Infinity`, which Python
    /// writes but JSON does not have, are accepted.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse(name: impl Into<String>, text: &str, notes: Notes) -> Result<Self> {
        let name = name.into();
        match from_json(&name, &with_quoted_numbers(text))? {
            Value::Object(values) => Ok(Self {
                name,
                values,
                notes,
            }),
            other => {
                let found = shown(Some(&other));
                Err(model(format!("{name}: found {found}, expected an object")))
            }
        }
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A key's value if it is a string.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    /// Replaces the value of a key.
    pub fn set(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
    }

    /// Adds a value if the file does not have the key.
    pub fn set_default(&mut self, key: &str, value: Value) {
        self.values.entry(key).or_insert(value);
    }

    /// An object inside the file; an empty one if the key is missing.
    ///
    /// # Errors
    /// When the key's value is not an object.
    pub fn part(&self, key: &str) -> Result<Self> {
        let name = format!("{}: {key}", self.name);
        let values = match self.values.get(key) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(values)) => values.clone(),
            Some(other) => return Err(model(format!("{name}: found {other}, expected an object"))),
        };
        Ok(Self {
            name,
            values,
            notes: self.notes.clone(),
        })
    }

    /// The keys that begin with `component.`, without that prefix.
    pub fn component(&self, component: &str) -> Self {
        let own = self.values.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(component)?.strip_prefix('.')?;
            Some((key.to_owned(), value.clone()))
        });
        Self {
            name: format!("{}: {component}", self.name),
            values: own.collect(),
            notes: self.notes.clone(),
        }
    }

    /// Whether the file has no keys.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds a note about the file.
    pub fn note(&self, remark: &str) {
        self.notes.add(format!("{}: {remark}", self.name));
    }

    /// An error about the value of a key.
    pub fn wrong(&self, key: &str, expected: &str) -> anyhow::Error {
        let found = shown(self.values.get(key));
        model(format!(
            "{}: {key}: found {found}, expected {expected}",
            self.name
        ))
    }

    /// Refuses a file that names another class of diffusers.
    ///
    /// # Errors
    /// When the classes differ; the message names both.
    pub fn expect_class(&self, name: &str) -> Result<()> {
        match self.text("_class_name") {
            Some(found) if found != name => Err(self.wrong("_class_name", name)),
            _ => Ok(()),
        }
    }

    /// Reads the fields of a class. `T` has exactly the fields that the class's lists mark as read,
    /// with the class's own defaults. Keys that are in no list are named in a note. Keys that begin
    /// with `_` belong to the file itself and are ignored.
    ///
    /// # Errors
    /// When a field has an unsupported value, or a value of the wrong type.
    pub fn read<T: DeserializeOwned>(&self, class: &Class) -> Result<T> {
        self.read_with(class, &[])
    }

    /// As [`read`](Self::read), for a file that may have been written for another class: `others`
    /// are keys of such classes, which this class ignores.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with<T: DeserializeOwned>(&self, class: &Class, others: &[&str]) -> Result<T> {
        let mut read = Map::new();
        let mut unknown = Vec::new();
        for (key, value) in &self.values {
            match class.find(key) {
                Some(Field::Read) if value.is_null() => {
                    let expected =
                        "a value: null is not the default; to use the default, leave the field out";
                    return Err(self.wrong(key, expected));
                }
                Some(Field::ReadAsFlag) if value.is_null() => {
                    read.insert(key.clone(), Value::Bool(false));
                }
                Some(Field::Read | Field::ReadOrNull | Field::ReadAsFlag) => {
                    read.insert(key.clone(), value.clone());
                }
                Some(Field::Harmless(_)) => {}
                Some(Field::Only(allowed)) => {
                    if !allowed.iter().any(|only| same(only, value)) {
                        return Err(self.wrong(key, &allowed.join(" or ")));
                    }
                }
                None if key.starts_with('_') || others.contains(&key.as_str()) => {}
                None => unknown.push(key.as_str()),
            }
        }
        if !unknown.is_empty() {
            self.note(&format!(
                "not read, because no class has such a field: {}",
                unknown.join(", ")
            ));
        }
        from_value(&self.name, &Value::Object(read))
    }
}

/// Parses JSON that messages call `name`.
///
/// # Errors
/// When the text is not JSON, or a value has the wrong type; the message names the key.
pub fn from_json<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    json::read(text).map_err(|problem| model(format!("{name}: {problem}")))
}

/// Reads JSON that messages call `name` into a Rust value.
///
/// # Errors
/// When a value has the wrong type; the message names the key.
pub fn from_value<T: DeserializeOwned>(name: &str, value: &Value) -> Result<T> {
    json::from_value(value).map_err(|problem| model(format!("{name}: {problem}")))
}

/// Whether a value equals the JSON text `only`; 1 and 1.0 are the same number.
fn same(only: &str, value: &Value) -> bool {
    let only: Value = serde_json::from_str(only).expect("the lists hold JSON");
    match (&only, value) {
        (Value::Number(only), Value::Number(value)) => only.as_f64() == value.as_f64(),
        _ => only == *value,
    }
}

/// The text with Python's `NaN`, `Infinity` and `-Infinity` turned into strings.
fn with_quoted_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
        let length = match word {
            Some(word) => {
                out.push('"');
                out.push_str(word);
                out.push('"');
                word.len()
            }
            None => {
                let escaped = in_string && c == '\\';
                in_string ^= c == '"';
                let length = if escaped {
                    rest.chars().take(2).map(char::len_utf8).sum()
                } else {
                    c.len_utf8()
                };
                out.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        width: i64,
        #[serde(default)]
        is_wide: bool,
        #[serde(default = "seven")]
        least_width: Option<i64>,
        #[serde(default)]
        depths: Vec<i64>,
    }

    fn seven() -> Option<i64> {
        Some(7)
    }

    const CLASS: Class = Class {
        name: "Network",
        fields: &[&[
            ("width", Field::Read),
            ("is_wide", Field::ReadAsFlag),
            ("least_width", Field::ReadOrNull),
            ("depths", Field::Read),
            ("dropout", Field::Harmless("only in training")),
            ("act_fn", Field::Only(&["\"silu\"", "null"])),
            ("scale", Field::Only(&["1"])),
            ("least", Field::Only(&["\"-Infinity\""])),
        ]],
        besides: &[&[("old", Field::Harmless("of older versions"))]],
    };

    fn read(text: &str) -> (Result<Config>, Vec<String>) {
        let notes = Notes::default();
        let file = ConfigFile::parse("config.json", text, notes.clone()).expect("it is an object");
        (file.read(&CLASS), notes.take())
    }

    #[test]
    fn a_field_is_read_or_harmless_or_refused_and_a_strange_one_is_named() {
        let (config, notes) = read(
            r#"{"_class_name": "Network", "width": 3, "dropout": 0.5, "act_fn": null, "scale": 1.0,
                "least": -Infinity, "old": [], "colour": "say \"NaN\"", "mood": NaN}"#,
        );
        assert_eq!(config.expect("all is computed").width, 3);
        assert_eq!(
            notes,
            ["config.json: not read, because no class has such a field: colour, mood"]
        );
        for (text, message) in [
            (
                r#"{"act_fn": "relu"}"#,
                r#"act_fn: found "relu", expected "silu" or null"#,
            ),
            (r#"{"scale": 2}"#, "scale: found 2, expected 1"),
            (r#"{"scale": null}"#, "scale: found null, expected 1"),
            (r#"{"least": Infinity}"#, "least: found \"Infinity\""),
            (
                r#"{"width": "wide"}"#,
                r#"width: found "wide", expected a whole number"#,
            ),
            (r#"{"width": null}"#, "width: found null, expected a value"),
            (
                r#"{"depths": [1, 2.0]}"#,
                "depths[1]: found 2.0, expected a whole number",
            ),
            (
                r#"{"is_wide": "no"}"#,
                "is_wide: found \"no\", expected true or false",
            ),
            (
                r#"{"depths": 3}"#,
                "config.json: depths: found 3, expected a list",
            ),
        ] {
            let error = read(text).0.expect_err(text).to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn null_is_a_value_of_its_own_and_not_the_default() {
        let least_width = |text: &str| read(text).0.map(|config| config.least_width);
        assert_eq!(least_width("{}").expect("the default"), Some(7));
        let null = least_width(r#"{"least_width": null}"#);
        assert_eq!(null.expect("null is a value"), None);
        let (config, _) = read(r#"{"is_wide": null}"#);
        let config = config.expect("null is false");
        assert!(!config.is_wide && config.depths.is_empty());
        assert!(read(r#"{"width": null}"#).0.is_err());
    }

    #[test]
    fn a_parser_s_own_words_are_put_in_plain_ones() {
        let said = |text: &str| {
            let error = from_json::<Config>("some.json", text).expect_err(text);
            error.to_string()
        };
        assert_eq!(
            said(r#"{"width": [1]}"#),
            "some.json: width: found [1], expected a whole number"
        );
        assert_eq!(said("7"), "some.json: found 7, expected an object");
        assert_eq!(
            said("{"),
            "some.json: this is not valid JSON: line 1, column 1: the text ends inside a value: close each {, [ and \""
        );
        let list = ConfigFile::parse("config.json", "[1]", Notes::default());
        assert_eq!(
            list.expect_err("a list").to_string(),
            "config.json: found [1], expected an object"
        );
    }

    #[test]
    fn a_message_shows_the_beginning_of_a_long_value() {
        let text = format!(r#"{{"scale": {:?}}}"#, vec![0.25; 1000]);
        let error = read(&text).0.expect_err("no number").to_string();
        assert!(
            error.starts_with("config.json: scale: found [0.25,0.25,"),
            "{error}"
        );
        assert!(
            error.ends_with("…, expected 1") && error.len() < 120,
            "{error}"
        );
    }
}
