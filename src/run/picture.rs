//! Writes a picture with its text chunks.

use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use serde_json::json;

use super::parameters_text::parameters_text;
use crate::backbone::ModelFacts;
use crate::config::batch::Settings;
use crate::io::{a1111, lora};
use crate::pictures::png::save_png;
use crate::records::picture_record::{KEYWORD, PictureRecord};
use crate::records::subject;

/// Facts that a picture records beside its settings: the model, and the base word or words.
pub fn picture_facts(model: &ModelFacts, subjects: &[String]) -> Settings {
    let mut facts = Settings::new();
    facts.insert("model".to_owned(), json!(model.name));
    facts.insert("model_fingerprint".to_owned(), json!(model.fingerprint));
    if let Some(sums) = lora::checksums(&model.loras) {
        facts.insert("lora_crc32".to_owned(), json!(sums));
    }
    if !subjects.is_empty() {
        facts.insert("subject".to_owned(), subject::to_value(subjects));
    }
    facts
}

/// Writes a picture with its text chunks: `parameters` for other programs, `oneactor` for this one.
///
/// # Errors
/// When the file cannot be written.
pub fn save_picture(
    path: &Path,
    picture: &RgbImage,
    settings: &Settings,
    facts: &Settings,
) -> Result<()> {
    let parameters = parameters_text(settings, facts);
    let record = PictureRecord::new(settings.clone(), facts.clone()).to_text()?;
    let texts = [
        (a1111::KEYWORD, parameters.as_str()),
        (KEYWORD, record.as_str()),
    ];
    save_png(path, picture, &texts)
}
