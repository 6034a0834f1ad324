//! Lists the files of a backbone and of its additional networks, those that [`Backbone::load`](super::Backbone)
//! reads, without reading weights.

use anyhow::Result;

use super::pipeline::{Pipeline, vae_folder};
use crate::io::header::TensorFacts;
use crate::io::model_files::{ModelFiles, NeededFile, Needs};
use crate::tokenizer;

/// The files of a component, by its folder's name.
pub type Parts = Vec<(&'static str, Vec<NeededFile>)>;

/// All files that are needed to draw with a model, by component. Files of no component have an empty folder
/// name. With another VAE the model's own is not read. A single-file checkpoint gives one file.
///
/// # Errors
/// When a file is missing, or the hub cannot be reached.
pub fn pipeline_files(files: &ModelFiles, has_other_vae: bool) -> Result<Parts> {
    if let Some(file) = files.single_file() {
        return Ok(vec![("", vec![file])]);
    }
    let pipeline = Pipeline::of(files)?;
    let mut small = Needs::of(files);
    small.require("model_index.json")?;
    small.require("scheduler/scheduler_config.json")?;
    for folder in pipeline.tokenizers() {
        tokenizer::folder::require(&mut small, folder)?;
    }
    let mut parts: Parts = vec![("", small.found)];
    for component in pipeline.text_encoders().iter().chain(&["unet"]) {
        parts.push((component, network_files(files, component)?));
    }
    if !has_other_vae {
        parts.push(("vae", vae_files(files)?));
    }
    Ok(parts)
}

/// The networks of a single-file checkpoint, by the names of their folders, with the tensors of each; empty for
/// other models. With another VAE the model's own is not read.
///
/// # Errors
/// When the file is damaged.
pub fn networks_in_one_file(
    files: &ModelFiles,
    has_other_vae: bool,
) -> Result<Vec<(&'static str, Vec<TensorFacts>)>> {
    if files.single_file().is_none() {
        return Ok(Vec::new());
    }
    let mut names = Pipeline::of(files)?.text_encoders().to_vec();
    names.push("unet");
    names.extend((!has_other_vae).then_some("vae"));
    let tensors = |name| Ok((name, files.tensors_in_single_file(name)?));
    names.into_iter().map(tensors).collect()
}

/// The files of a VAE: that of a whole model, or one alone.
///
/// # Errors
/// When a file is missing, or the hub cannot be reached.
pub fn vae_files(files: &ModelFiles) -> Result<Vec<NeededFile>> {
    network_files(files, vae_folder(files)?)
}

/// The config and the weights of a network in a folder; `""` for a network in its own repository, such as a
/// ControlNet.
///
/// # Errors
/// When a file is missing, or the hub cannot be reached.
pub fn network_files(files: &ModelFiles, folder: &str) -> Result<Vec<NeededFile>> {
    let mut needs = Needs::of(files);
    needs.require(&match folder {
        "" => "config.json".to_owned(),
        folder => format!("{folder}/config.json"),
    })?;
    needs.weights(folder)?;
    Ok(needs.found)
}
