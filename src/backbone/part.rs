//! The config of a part of a model, of the class that `model_index.json` names.

use anyhow::Result;
use serde_json::json;

use crate::io::config_file::ConfigFile;
use crate::io::model_files::ModelFiles;

/// The config of a part with the class that the index names under `key`, where it counts before the file's own, as in
/// diffusers.
///
/// # Errors
/// When the index is damaged.
pub(super) fn part(
    files: &ModelFiles,
    name: &str,
    mut file: ConfigFile,
    key: &str,
) -> Result<ConfigFile> {
    if files.optional_text("model_index.json")?.is_none() {
        return Ok(file);
    }
    let index = files.config("model_index.json")?;
    if let Some(class) = index.get(name).and_then(|pair| pair.get(1)?.as_str()) {
        if let Some(own) = file.text(key).filter(|own| *own != class) {
            file.note(&format!(
                "{own} is written here, but {class} in model_index.json, which counts"
            ));
        }
        let value = match key {
            "architectures" => json!([class]),
            _ => json!(class),
        };
        file.set(key, value);
    }
    Ok(file)
}

/// As [`part`], of a network of diffusers.
///
/// # Errors
/// As there, and when its file is missing or damaged.
pub(super) fn network(files: &ModelFiles, name: &str) -> Result<ConfigFile> {
    let file = files.config(&format!("{name}/config.json"))?;
    part(files, name, file, "_class_name")
}
