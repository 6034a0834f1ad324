//! Pictures on their way to disk: the settings they were drawn with, and the text chunks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::{Value, json};

use super::located::{LocatedModel, ResolvedDrawing};
use super::parameters_text::parameters_text;
use crate::backbone::ModelFacts;
use crate::cli::{AxisFlags, Declared, DrawingFlags, ModelFlags};
use crate::config::batch::Settings;
use crate::config::{DrawingJob, record};
use crate::io::a1111;
use crate::io::lora;
use crate::pictures::png::save_png;

/// The settings of `sample` that a picture of the plain model follows from, its prompt and seed
/// left out. Device, batch size and the like, which do not change the picture, are no part of it.
///
/// # Errors
/// Never for a checked job.
pub fn drawing_settings(
    drawing: &DrawingJob,
    resolved: ResolvedDrawing,
    model: &LocatedModel,
) -> Result<Settings> {
    let of_drawing = [DrawingFlags::settings(), vec![AxisFlags::guidance_scale()]].concat();
    let mut settings = record::recorded(drawing, &of_drawing)?;
    settings.extend(record::recorded(&model.job, &ModelFlags::settings())?);
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            settings.insert(key.to_owned(), value);
        }
    };
    set("width", json!(resolved.width));
    set("height", json!(resolved.height));
    set("scheduler", json!(resolved.scheduler.name()));
    set("model", json!(model.files.name()));
    set("revision", json!(model.files.revision()));
    set("lora", lora_settings(model));
    set("dtype", json!(model.dtype()));
    let tile = model.tiles_of(resolved.width, resolved.height);
    set("vae_tiling", json!(tile.map(|_| true)));
    set("vae_tile_size", json!(tile));
    Ok(settings)
}

/// The LoRAs as the flag has them; null without any.
pub fn lora_settings(model: &LocatedModel) -> Value {
    let of_flag = |(path, scale): &(PathBuf, f64)| format!("{}:{scale}", path.display());
    match model.job.loras.as_slice() {
        [] => Value::Null,
        loras => json!(loras.iter().map(of_flag).collect::<Vec<_>>()),
    }
}

/// One picture's settings: those of its job with its own prompt and seed.
pub fn picture_settings(job: &Settings, prompt: &str, seed: i64) -> Settings {
    let mut settings = job.clone();
    settings.insert("prompt".to_owned(), json!(prompt));
    settings.insert("seed".to_owned(), json!(seed));
    settings
}

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
    let record = record::write_record(settings, facts);
    let texts = [
        (a1111::KEYWORD, parameters.as_str()),
        (record::KEYWORD, record.as_str()),
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

/// The keys in which two settings differ, each with both values, for a message.
pub fn differences(there: &Settings, here: &Settings) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
    keys.into_iter()
        .filter(|key| there.get(*key) != here.get(*key))
        .map(|key| {
            format!(
                "{key}: {} there, {} here",
                shown(there.get(key)),
                shown(here.get(key))
            )
        })
        .collect()
}

/// The files that the settings only name and that are others than `there`, for a message.
pub fn changed_sources<'a>(
    sources: &Settings,
    there: impl Fn(&str) -> Option<&'a Value>,
) -> Vec<String> {
    let changed = sources
        .iter()
        .filter(|(key, value)| there(key) != Some(value));
    changed
        .map(|(key, _)| format!("{} has changed since", key.trim_end_matches("_crc32")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        serde_json::from_str(text).expect("the test's JSON is an object")
    }

    #[test]
    fn differences_name_key_and_both_values() {
        let there = settings(r#"{"steps": 30, "seed": 1, "vae": "x"}"#);
        let here = settings(r#"{"steps": 20, "seed": 1}"#);
        let expected = ["steps: 30 there, 20 here", "vae: \"x\" there, none here"];
        assert_eq!(differences(&there, &here), expected);
    }
}
