//! The config of a part of a model, with the class that `model_index.json` names.

use anyhow::Result;
use serde_json::json;

use crate::io::config_file::ConfigFile;
use crate::io::model_files::ModelFiles;

/// The config of a part, with its class under `key` replaced by the class in the index, which has priority over
/// the file's own, as in diffusers.
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
                "{own} is written here, but model_index.json has {class}, which is used"
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

/// Like [`part`], for a network of diffusers.
///
/// # Errors
/// The same as for [`part`], and when the file is missing or damaged.
pub(super) fn network(files: &ModelFiles, name: &str) -> Result<ConfigFile> {
    let file = files.config(&format!("{name}/config.json"))?;
    part(files, name, file, "_class_name")
}
