//! What a picture tells about itself: the text chunk `oneactor`, a JSON object.
//!
//! Its `parameters` are settings of `sample`, so that `sample --from` can draw the picture again;
//! the rest are facts for the reader.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::batch::{Settings, check_settings};
use super::layers;
use crate::cli::setting::{AllowedValues, Recorded};
use crate::cli::{self, Declared, SampleFlags, Setting};
use crate::error::{Error, ErrorKind, usage};
use crate::pictures::png::read_png_text;

/// Keyword of the PNG text chunk.
pub const KEYWORD: &str = "oneactor";

/// Version of the chunk's form.
pub const SCHEMA: &str = "oneactor.image/v1";

/// The chunk for a picture drawn with `parameters`, which are settings of `sample`.
pub fn write_record(parameters: &Settings, facts: &Settings) -> String {
    json!({
        "schema": SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "parameters": parameters,
        "facts": facts,
    })
    .to_string()
}

/// The settings that a picture tells of as they stand in its job, whose fields are named as they are; those that are
/// found later, and the picture's own, are left out.
///
/// # Errors
/// Never for the jobs of this program.
pub fn recorded<J: Serialize>(job: &J, settings: &[Setting]) -> Result<Settings> {
    let mut values = layers::settings(job)?;
    let mut recorded = Settings::new();
    for setting in settings {
        let is_told = |value: &Value| match setting.recorded {
            Recorded::Always => true,
            Recorded::UnlessDefault => *value != setting.values.default(),
            Recorded::Never | Recorded::AsFound | Recorded::OfPicture => false,
        };
        let Some(value) = values.remove(setting.key).filter(is_told) else {
            continue;
        };
        let value = match (setting.values, &value) {
            (AllowedValues::Steps, Value::Array(ends)) => json!(format!("{}-{}", ends[0], ends[1])),
            _ => value,
        };
        recorded.insert(setting.key.to_owned(), value);
    }
    Ok(recorded)
}

/// Whether a recorded setting is one picture's own, as the prompt is.
pub fn is_of_picture(key: &str) -> bool {
    let mut settings = SampleFlags::settings().into_iter();
    settings.any(|setting| setting.key == key && setting.recorded == Recorded::OfPicture)
}

/// What a picture tells about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Version of the program that drew it.
    pub version: String,
    /// Settings of `sample` that draw it again.
    pub parameters: Settings,
    /// Facts for the reader: model, actor, program.
    pub facts: Settings,
}

impl Record {
    /// The base words that the picture was drawn with: the fact `subject`, a word or a list of them.
    pub fn subjects(&self) -> Vec<String> {
        let words = match self.facts.get("subject") {
            Some(Value::Array(words)) => words.as_slice(),
            Some(word) => std::slice::from_ref(word),
            None => &[],
        };
        let words = words.iter().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    }
}

/// The record of the picture at `path`.
///
/// # Errors
/// When it is no PNG, was not made by this program, or by a version with another form.
pub fn read_record(path: &Path) -> Result<Record> {
    let texts = read_png_text(path)
        .with_context(|| Error::new(ErrorKind::Usage, "looking for drawing settings"))?;
    record_of(texts, &path.display().to_string())
}

/// The record among the text chunks of the picture `name`, each a keyword and a text.
///
/// # Errors
/// As [`read_record`].
pub fn record_of(texts: Vec<(String, String)>, name: &str) -> Result<Record> {
    let Some((_, text)) = texts.into_iter().find(|(keyword, _)| keyword == KEYWORD) else {
        return Err(usage(format!(
            "{name} has no text chunk \"{KEYWORD}\": expected a picture made by this program, \
             with its metadata"
        )));
    };
    let broken = |what: &str| usage(format!("{name}, text chunk \"{KEYWORD}\": {what}"));
    let mut record: Value =
        serde_json::from_str(&text).map_err(|error| broken(&error.to_string()))?;
    let schema = record["schema"].as_str().unwrap_or("none").to_owned();
    if schema != SCHEMA {
        return Err(broken(&format!("found schema {schema}, expected {SCHEMA}")));
    }
    match record["parameters"].take() {
        Value::Object(parameters) => {
            check_settings::<SampleFlags>(&parameters, &cli::batch_keys("sample"))
                .with_context(|| format!("{name}, text chunk \"{KEYWORD}\""))?;
            let facts = match record["facts"].take() {
                Value::Object(facts) => facts,
                _ => Settings::new(),
            };
            Ok(Record {
                version: record["version"].as_str().unwrap_or("0").to_owned(),
                parameters,
                facts,
            })
        }
        _ => Err(broken("found no `parameters`, expected an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::png::save_png;
    use image::RgbImage;

    #[test]
    fn settings_are_read_back_from_a_picture() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-record-{}.png", std::process::id()));
        let parameters: Settings = serde_json::from_str(r#"{"prompt": "a cat", "seed": 3}"#)?;
        let record = write_record(&parameters, &Settings::new());
        save_png(&path, &RgbImage::new(2, 2), &[(KEYWORD, &record)])?;
        let read = read_record(&path);
        save_png(&path, &RgbImage::new(2, 2), &[])?;
        let refused = read_record(&path).expect_err("the chunk is missing");
        std::fs::remove_file(&path)?;
        assert_eq!(read?.parameters, parameters);
        assert!(
            refused
                .to_string()
                .contains("has no text chunk \"oneactor\"")
        );
        Ok(())
    }
}
