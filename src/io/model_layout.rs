//! The layout of a model's folder, and the errors for a folder or name that cannot be a model.

use std::path::Path;

use anyhow::Result;

use super::hub::{Typed, files_under, without_user};
use crate::error::{model, usage};

/// Name of the model in the binary.
pub const TOY: &str = "toy";

/// Endings of files that hold pickled weights.
const PICKLED: [&str; 6] = [".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"];

/// Paths where the weights of a component may be, best first; the wanted variant comes before the
/// plain weights. If a whole file and an index of shards both exist, diffusers uses the index and
/// transformers the whole file; the file's name tells which library the network belongs to.
pub(super) fn candidates(component: &str, variant: Option<&str>) -> Vec<String> {
    let of_diffusers = |variant: Option<&str>| {
        let stem = "diffusion_pytorch_model";
        let mut paths = indices(stem, variant);
        paths.push(whole(stem, variant));
        paths
    };
    let of_transformers = |variant: Option<&str>| {
        let mut paths = vec![whole("model", variant)];
        paths.extend(indices("model", variant));
        paths
    };
    let mut paths = Vec::new();
    for variant in [variant, None].iter().skip(usize::from(variant.is_none())) {
        let both = [of_diffusers(*variant), of_transformers(*variant)];
        if component.starts_with("text_encoder") {
            paths.extend(both.into_iter().rev().flatten())
        } else {
            paths.extend(both.into_iter().flatten())
        }
    }
    paths.iter().map(|path| join(component, path)).collect()
}

fn whole(stem: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("{stem}.{variant}.safetensors"),
        None => format!("{stem}.safetensors"),
    }
}

/// The names that an index may have, the newer one first.
fn indices(stem: &str, variant: Option<&str>) -> Vec<String> {
    match variant {
        Some(variant) => vec![
            format!("{stem}.safetensors.index.{variant}.json"),
            format!("{stem}.safetensors.{variant}.index.json"),
            format!("{stem}.{variant}.safetensors.index.json"),
        ],
        None => vec![format!("{stem}.safetensors.index.json")],
    }
}

pub(super) fn join(component: &str, name: &str) -> String {
    if component.is_empty() {
        name.to_owned()
    } else {
        format!("{component}/{name}")
    }
}

/// The variant in a path: `fp16` for `unet/diffusion_pytorch_model.fp16.safetensors` and for its
/// index and shards.
pub(super) fn variant_of(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let rest = ["diffusion_pytorch_model.", "model."]
        .into_iter()
        .find_map(|stem| name.strip_prefix(stem))?;
    let variant = match rest.strip_prefix("safetensors.") {
        Some(rest) => rest
            .strip_suffix(".index.json")
            .or_else(|| rest.strip_prefix("index.")?.strip_suffix(".json"))?,
        None => rest
            .strip_suffix(".safetensors")
            .or_else(|| rest.strip_suffix(".safetensors.index.json"))?,
    };
    let variant = variant.split('-').next()?;
    (!variant.is_empty()).then_some(variant)
}

pub(super) fn is_pickled(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PICKLED.iter().any(|ending| name.ends_with(ending))
}

/// Refuses a file whose name says that it is pickled, without reading it.
pub(super) fn refuse_pickled(path: &Path) -> Result<()> {
    let shown = path.display().to_string();
    if is_pickled(&shown) {
        Err(usage(format!(
            "{shown} is pickled: refused, because reading it runs code; expected a .safetensors file"
        )))
    } else {
        Ok(())
    }
}

/// The ending of `name`, if it is that of a file of weights.
pub(super) fn file_ending(name: &str) -> Option<&'static str> {
    [".safetensors", ".gguf", ".onnx"]
        .into_iter()
        .chain(PICKLED)
        .find(|ending| name.ends_with(ending))
}

pub(super) fn check_folder(folder: &Path) -> Result<()> {
    let marks = ["model_index.json", "config.json", "unet/config.json"];
    if marks.iter().any(|mark| folder.join(mark).is_file()) {
        return Ok(());
    }
    let shown = folder.display();
    if folder.join("snapshots").is_dir() {
        return Err(model(format!(
            "{shown} is a folder of the hub's cache: give the repository's id instead, or one of the folders in {shown}/snapshots"
        )));
    }
    let single = files_under(folder)
        .into_iter()
        .find(|name| !name.contains('/') && name.ends_with(".safetensors"));
    Err(model(match single {
        Some(name) => format!(
            "{shown} is not a diffusers folder (no model_index.json) but holds {name}: give the file itself: {}",
            folder.join(&name).display()
        ),
        None => format!(
            "{shown} is not a model's folder: found neither model_index.json nor config.json, expected diffusers' layout"
        ),
    }))
}

/// Refuses a git-lfs pointer: a clone made without git-lfs has small text files instead of weights.
pub(super) fn check_not_a_pointer(path: &Path) -> Result<()> {
    const LONGEST: u64 = 1024;
    let unreadable =
        |error: std::io::Error| model(format!("cannot read {}: {error}", path.display()));
    let data = path.metadata().map_err(unreadable)?;
    if !data.is_file() {
        return Err(model(format!(
            "{} is not a file, expected a file of weights",
            path.display()
        )));
    }
    if data.len() > LONGEST {
        return Ok(());
    }
    let start = std::fs::read(path).map_err(unreadable)?;
    if start.starts_with(b"version https://git-lfs.github.com/") {
        return Err(model(format!(
            "{} is only a git-lfs pointer to the file: run `git lfs pull` in its folder",
            path.display()
        )));
    }
    Ok(())
}

pub(super) fn no_model_file(name: &str) -> anyhow::Error {
    model(if is_pickled(name) {
        format!(
            "{name} is pickled: refused, because reading it runs code; give a diffusers folder with safetensors"
        )
    } else {
        format!(
            "{name} is a file, expected a checkpoint.safetensors, a diffusers folder, a repository of the hub or `{TOY}`"
        )
    })
}

/// How to get a missing file, for a message, if its name is that of a file of the hub.
pub fn way_to_hub_file(name: &str) -> Option<String> {
    Typed::read(name).map(|typed| typed.way_out())
}

pub(super) fn no_such_model(name: &str) -> anyhow::Error {
    let way_out = way_to_hub_file(name);
    if name.contains("://") || way_out.is_some() && file_ending(name).is_none() {
        let shown = name.split(['?', '#']).next().unwrap_or_default();
        return model(format!(
            "{} is an address: expected a checkpoint.safetensors, a diffusers folder, a repository of the hub (owner/name) or `{TOY}`; {}",
            without_user(shown),
            way_out.unwrap_or_else(|| "fetch the file yourself and give its path".to_owned())
        ));
    }
    let looks_like_a_path = name.starts_with(['.', '/', '~'])
        || name.contains('\\')
        || name.ends_with('/')
        || name.matches('/').count() > 1;
    if looks_like_a_path || file_ending(name).is_some() {
        let hint = if name.starts_with('~') {
            " (the shell has not replaced ~ with your home folder)"
        } else {
            ""
        };
        let way_out = way_out.map_or_else(String::new, |way_out| format!("; {way_out}"));
        return model(format!(
            "there is no file or folder {name}{hint}: expected a checkpoint.safetensors, a diffusers folder, a repository of the hub (owner/name) or `{TOY}`{way_out}"
        ));
    }
    model(format!(
        "`{name}` is not a folder here and cannot be a repository of the hub: expected owner/name, such as stabilityai/stable-diffusion-xl-base-1.0, a folder, or `{TOY}`"
    ))
}
