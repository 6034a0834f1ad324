//! The settings that a picture was drawn with, as its record and its row in the manifest list them.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::located::{LocatedModel, ResolvedDrawing};
use crate::cli::{AxisFlags, Declared, DrawingFlags, ModelFlags};
use crate::config::DrawingJob;
use crate::config::batch::Settings;
use crate::config::recorded::recorded;

/// The settings of `sample` that decide what the plain model draws, except prompt and seed. Settings that change no
/// pixel, such as the device and the batch size, are not included.
///
/// # Errors
/// Never for a checked job.
pub fn drawing_settings(
    drawing: &DrawingJob,
    resolved: ResolvedDrawing,
    model: &LocatedModel,
) -> Result<Settings> {
    let of_drawing = [DrawingFlags::settings(), vec![AxisFlags::guidance_scale()]].concat();
    let mut settings = recorded(drawing, &of_drawing)?;
    settings.extend(recorded(&model.job, &ModelFlags::settings())?);
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

/// The LoRAs in the form of `--lora`, each `FILE:SCALE`; null if there are none.
pub fn lora_settings(model: &LocatedModel) -> Value {
    let of_flag = |(path, scale): &(PathBuf, f64)| format!("{}:{scale}", path.display());
    match model.job.loras.as_slice() {
        [] => Value::Null,
        loras => json!(loras.iter().map(of_flag).collect::<Vec<_>>()),
    }
}

/// The settings of one picture: the settings of its job, with its own prompt and seed.
pub fn picture_settings(job: &Settings, prompt: &str, seed: i64) -> Settings {
    let mut settings = job.clone();
    settings.insert("prompt".to_owned(), json!(prompt));
    settings.insert("seed".to_owned(), json!(seed));
    settings
}
