//! Pictures on their way to disk, with their text chunks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::json;

use super::parameters_text::parameters_text;
use crate::backbone::ModelFacts;
use crate::config::batch::Settings;
use crate::io::{a1111, lora};
use crate::pictures::png::save_png;
use crate::records::picture_record::{KEYWORD, PictureRecord};

/// Facts that stand beside the settings in a picture: the model, and the base word or words.
pub fn picture_facts(model: &ModelFacts, subjects: &[String]) -> Settings {
    let mut facts = Settings::new();
    facts.insert("model".to_owned(), json!(model.name));
    facts.insert("model_fingerprint".to_owned(), json!(model.fingerprint));
    if let Some(sums) = lora::checksums(&model.loras) {
        facts.insert("lora_crc32".to_owned(), json!(sums));
    }
    match subjects {
        [] => None,
        [subject] => facts.insert("subject".to_owned(), json!(subject)),
        subjects => facts.insert("subject".to_owned(), json!(subjects)),
    };
    facts
}

/// Writes a picture with its text chunks: `parameters` for other programs, `oneactor` for this one.
///
/// # Errors
/// When the file can not be written.
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

/// The masks that `sample --save-masks` has written beside a picture, `NAME-mask-….png`, sorted.
///
/// # Errors
/// When the folder can not be read.
pub fn masks_beside(picture: &Path) -> Result<Vec<PathBuf>> {
    let folder = match picture.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
    let beginning = format!("{stem}-mask-");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&beginning) && name.ends_with(".png") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
