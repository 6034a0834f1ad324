//! The record inside a picture: the text chunk `oneactor` of the PNG, a JSON object.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{json, subject};
use crate::cli::{self, SampleFlags};
use crate::config::batch::{Settings, check_settings};
use crate::error::{Error, ErrorKind, usage};
use crate::pictures::png::read_png_text;

/// Keyword of the PNG text chunk.
pub const KEYWORD: &str = "oneactor";

/// Version of the chunk's format. Other versions are refused.
const SCHEMA: &str = "oneactor.image/v1";

/// The record in a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureRecord {
    schema: String,
    /// Version of the program that drew the picture; `0` if it is not recorded.
    #[serde(default, deserialize_with = "json::or_default")]
    pub version: String,
    /// Settings of `sample` that draw the picture again.
    pub parameters: Settings,
    /// Facts for the reader: the model, the base words, and checksums of files that the settings refer to by name.
    #[serde(default, deserialize_with = "json::or_default")]
    pub facts: Settings,
}

impl PictureRecord {
    /// The record of a picture that this program draws now.
    pub fn new(parameters: Settings, facts: Settings) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parameters,
            facts,
        }
    }

    /// The text of the chunk.
    ///
    /// # Errors
    /// Never for settings and facts of this program.
    pub fn to_text(&self) -> Result<String> {
        Ok(json::to_value(self)?.to_string())
    }

    /// The record of the picture at `path`.
    ///
    /// # Errors
    /// When the file is not a PNG, or was not made by this program, or by a version with another format.
    pub fn read(path: &Path) -> Result<Self> {
        let texts = read_png_text(path)
            .with_context(|| Error::new(ErrorKind::Usage, "looking for drawing settings"))?;
        Self::of_texts(texts, &path.display().to_string())
    }

    /// The record among the text chunks of the picture `name`, each a keyword and a text.
    ///
    /// # Errors
    /// The same as for [`PictureRecord::read`].
    pub fn of_texts(texts: Vec<(String, String)>, name: &str) -> Result<Self> {
        let Some((_, text)) = texts.into_iter().find(|(keyword, _)| keyword == KEYWORD) else {
            return Err(usage(format!(
                "{name} does not record how it was drawn, expected a single picture by this program: sheets such as \
                 grid.png have no record, and other programs remove the record when they save a picture"
            )));
        };
        let place = format!("{name}, text chunk \"{KEYWORD}\"");
        let object = json::object(&text, &place)?;
        let schema = object.get("schema").and_then(Value::as_str);
        if schema != Some(SCHEMA) {
            return Err(usage(format!(
                "{place}: found schema {}, expected {SCHEMA}",
                schema.unwrap_or("none")
            )));
        }
        let mut record: Self = json::typed(object, &place)?;
        if record.version.is_empty() {
            record.version = "0".to_owned();
        }
        check_settings::<SampleFlags>(&record.parameters, &cli::batch_keys("sample"))
            .context(place)?;
        Ok(record)
    }

    /// The base words that the picture was drawn with: the fact `subject`, a word or a list of words.
    pub fn subjects(&self) -> Vec<String> {
        let told = self.facts.get("subject");
        told.map(subject::words_of).unwrap_or_default()
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
        let record = PictureRecord::new(parameters.clone(), Settings::new());
        let text = record.to_text()?;
        save_png(&path, &RgbImage::new(2, 2), &[(KEYWORD, &text)])?;
        let read = PictureRecord::read(&path);
        save_png(&path, &RgbImage::new(2, 2), &[])?;
        let refused = PictureRecord::read(&path).expect_err("the chunk is missing");
        std::fs::remove_file(&path)?;
        assert_eq!(read?, record);
        assert!(
            refused
                .to_string()
                .contains("does not record how it was drawn")
        );
        Ok(())
    }

    #[test]
    fn a_chunk_that_is_no_record_is_refused_with_its_key() {
        let message = |text: &str| {
            let texts = vec![(KEYWORD.to_owned(), text.to_owned())];
            let error = PictureRecord::of_texts(texts, "x.png").expect_err("it is no record");
            format!("{error:#}")
        };
        for (text, expected) in [
            (
                "{",
                "x.png, text chunk \"oneactor\": this is not valid JSON: line 1, column 1: ",
            ),
            ("[]", "found a list, expected an object"),
            ("{}", "found schema none, expected oneactor.image/v1"),
            (
                r#"{"schema": "oneactor.image/v2", "parameters": {}}"#,
                "found schema oneactor.image/v2, expected oneactor.image/v1",
            ),
            (
                r#"{"schema": "oneactor.image/v1", "parameters": 7}"#,
                "found no `parameters`, expected an object",
            ),
            (
                r#"{"schema": "oneactor.image/v1", "parameters": {"steps": "x"}}"#,
                "key `steps`: found the string \"x\", expected a whole number",
            ),
        ] {
            let found = message(text);
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_chunk_of_an_earlier_version_needs_only_its_parameters() -> Result<()> {
        let text =
            r#"{"schema": "oneactor.image/v1", "parameters": {"seed": 3}, "facts": 7, "x": 1}"#;
        let record = PictureRecord::of_texts(vec![(KEYWORD.to_owned(), text.to_owned())], "x.png")?;
        assert_eq!((&*record.version, record.facts.len()), ("0", 0));
        Ok(())
    }
}
