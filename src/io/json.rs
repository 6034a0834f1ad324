//! Errors of JSON in plain words, with the place or the key.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// The beginnings of the parser's messages about syntax, each with what to say instead.
const SYNTAX: [(&str, &str); 15] = [
    (
        "EOF",
        "the text ends inside a value: close each {, [ and \"",
    ),
    ("expected `:`", "expected a colon behind the key"),
    (
        "expected `,` or `}`",
        "expected a comma or }; a comma may be missing before this place",
    ),
    (
        "expected `,` or `]`",
        "expected a comma or ]; a comma may be missing before this place",
    ),
    (
        "expected value",
        "expected a value: text in \"…\", a number, true, false, null, […] or {…}",
    ),
    ("expected ident", "expected true, false or null"),
    ("expected some ident", "expected true, false or null"),
    ("key must be a string", "expected a key in double quotes"),
    ("trailing comma", "remove the comma behind the last entry"),
    (
        "trailing characters",
        "the JSON is complete before this place: remove the rest",
    ),
    (
        "control character",
        "a text contains a line break or another control character: write \\n, or \\t for a tab",
    ),
    (
        "invalid escape",
        "unknown escape behind a \\: write \\\\ for the character \\",
    ),
    (
        "invalid number",
        "this is not a number: a number in JSON begins with a digit other than 0, with 0. or with -",
    ),
    ("number out of range", "this number is too large"),
    ("recursion limit", "the values are nested too deeply"),
];

/// What is wrong with the syntax of a JSON text, with line and column, both counted from 1.
pub fn syntax(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    let known = SYNTAX.iter().find(|(start, _)| message.starts_with(start));
    let what = known.map_or(message, |(_, plain)| plain);
    format!(
        "line {}, column {}: {what}",
        error.line(),
        error.column().max(1)
    )
}

/// Parses a text.
///
/// # Errors
/// When the text is not JSON, with the place; when a value has the wrong type, with the key.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error: serde_json::Error| {
        if !error.is_data() {
            return format!("this is not valid JSON: {}", syntax(&error));
        }
        // The parser does not name the key. Reading the text again, as a `Value`, finds it.
        let found = serde_json::from_str::<Value>(text).ok();
        found
            .and_then(|value| from_value::<T>(&value).err())
            .unwrap_or_else(|| error.to_string())
    })
}

/// Reads JSON into a Rust value.
///
/// # Errors
/// When a value has the wrong type; the message names the key, the value found and what is expected.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let text = error.inner().to_string();
        let place = match error.path().to_string().as_str() {
            "." => String::new(),
            path => format!("{path}: "),
        };
        let is_of_a_value = text.starts_with("invalid ") || text.starts_with("unknown variant ");
        let expected = match text.rsplit_once(", expected ") {
            Some((_, expected)) if is_of_a_value => Some(in_words(expected)),
            // The `expecting` of an untagged enum.
            _ => text.strip_prefix("expected "),
        };
        match expected {
            Some(expected) => {
                let found = shown(Some(value_at(value, error.path())));
                format!("{place}found {found}, expected {expected}")
            }
            None => format!("{place}{text}"),
        }
    })
}

/// The value at a path such as `size.height` or `block_out_channels[1]`, or the last one on the way
/// to it.
fn value_at<'a>(root: &'a Value, path: &Path) -> &'a Value {
    path.iter().fold(root, |value, segment| {
        let next = match segment {
            Segment::Seq { index } => value.get(index),
            Segment::Map { key } => value.get(key),
            _ => None,
        };
        next.unwrap_or(value)
    })
}

/// The largest number of characters of a value in a message.
const SHOWN: usize = 60;

/// A value as messages show it, cut after 60 characters.
pub fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "no value".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// The type that the parser expects, in words instead of Rust's type names.
fn in_words(expected: &str) -> &str {
    match expected {
        "i64" | "i32" => "a whole number",
        "u64" | "u32" | "usize" => "a whole number, 0 or more",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_syntax_has_its_place_and_plain_words() {
        for (text, message) in [
            ("", "line 1, column 1: the text ends inside a value"),
            ("{\"a\": [1, 2}", "line 1, column 12: expected a comma or ]"),
            ("{\"a\" 1}", "expected a colon"),
            (
                "{\"a\": 1 \"b\": 2}",
                "expected a comma or }; a comma may be missing before this place",
            ),
            ("{a: 1}", "expected a key in double quotes"),
            ("{\"a\": 1,}", "remove the comma"),
            ("[1,]", "remove the comma"),
            ("[1] 2", "the JSON is complete"),
            ("{\"a\": }", "expected a value"),
            ("[tru]", "expected true, false or null"),
            (
                "[\"a\nb\"]",
                "line 2, column 0: a text contains a line break",
            ),
            ("[\"\\d\"]", "unknown escape"),
            ("[01]", "this is not a number"),
            ("[1e999]", "this number is too large"),
            (&"[".repeat(200), "nested too deeply"),
        ] {
            let error = serde_json::from_str::<Value>(text).expect_err(text);
            let said = syntax(&error);
            let expected = message.replace("line 2, column 0", "line 2, column 1");
            assert!(said.contains(&expected), "{text:?}: {said}");
        }
    }
}
