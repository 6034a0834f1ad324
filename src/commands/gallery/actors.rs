//! Who is in pictures: actors with their targets, and what was tuned on base images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::scope::Scope;
use crate::cli::Method;
use crate::config::batch::Settings;
use crate::io::text;
use crate::method::origin::BASE_CRC32;
use crate::records::BaseFolder;

/// A subject, with the picture that it was made from.
pub(super) struct ActorCard {
    /// Its file, as the settings name it.
    pub path: String,
    pub name: String,
    /// The prompt of its base images, where they are there and lie below a folder that was named.
    pub prompt: Option<String>,
    /// The target among them, as above.
    pub picture: Option<PathBuf>,
    /// The name of the photo that is the target instead.
    pub photo: Option<String>,
}

/// What was tuned on base images.
pub(super) struct TuningFacts {
    pub method: String,
    /// The target among the base images; none where it was a photo.
    pub target: Option<u64>,
    /// How it ended, and how long it took.
    pub steps: Value,
    pub best_validation: Value,
    pub seconds: Value,
}

/// A file of JSON that this program has written.
///
/// # Errors
/// When it can not be read.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let doing = || format!("reading {}", path.display());
    let text = text::read(path).with_context(doing)?;
    serde_json::from_str(&text).with_context(doing)
}

/// Whether a tuning was done on the base images that are there now; their numbers say nothing of others.
fn is_of_base(config: &Value, folder: &Path) -> bool {
    let told = config["parameters"][BASE_CRC32].as_str();
    told.is_none_or(|crc32| BaseFolder(folder).has_set_with(crc32).unwrap_or(true))
}

/// The methods that are tuned.
fn tunable() -> impl Iterator<Item = Method> {
    Method::ALL.into_iter().filter(|method| method.is_tuned())
}

/// The file in which `tune` tells of a tuning.
fn config(method: Method) -> String {
    format!("{}.json", method.log())
}

/// What was tuned in a folder.
pub(super) fn tuned_in(folder: &Path, scope: &Scope) -> Vec<TuningFacts> {
    let mut found = Vec::new();
    for method in tunable() {
        let path = folder.join(config(method));
        if !path.is_file() {
            continue;
        }
        let Some(config) = scope.readable(read_json(&path)) else {
            continue;
        };
        let is_photo = !config["parameters"]["target_image_crc32"].is_null();
        let result = &config["result"];
        found.push(TuningFacts {
            method: method.name().to_owned(),
            steps: result["steps"].clone(),
            best_validation: result["best_validation"].clone(),
            seconds: config["seconds"].clone(),
            target: config["parameters"]["target"]
                .as_u64()
                .filter(|_| !is_photo && is_of_base(&config, folder)),
        });
    }
    found
}

/// Whether a key tells by whom a picture was drawn.
pub(super) fn is_who(key: &str) -> bool {
    matches!(key, "actors" | "method" | "target")
}

/// By whom a picture was drawn: the method where it is a baseline, and the folders of the actors.
pub(super) fn who(settings: &Settings) -> String {
    let names: Vec<&str> = actors(settings).map(name).collect();
    match (
        names.is_empty(),
        settings.get("method").and_then(Value::as_str),
    ) {
        (true, _) => "the plain model".to_owned(),
        (false, Some(method)) => format!("{method}: {}", names.join(" + ")),
        (false, None) => names.join(" + "),
    }
}

fn actors(settings: &Settings) -> impl Iterator<Item = &str> {
    let list = match settings.get("actors") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}

/// The folder that an actor lies in, else its file.
fn name(path: &str) -> &str {
    let folder = Path::new(path).parent().and_then(Path::file_name);
    folder.and_then(|name| name.to_str()).unwrap_or(path)
}

/// All who are in pictures of these settings, in the order in which they come.
pub(super) fn cards<'a>(
    pictures: impl Iterator<Item = &'a Settings>,
    scope: &Scope,
) -> Vec<ActorCard> {
    let mut cards: Vec<ActorCard> = Vec::new();
    for settings in pictures {
        let target = settings.get("target").and_then(Value::as_u64);
        for path in actors(settings) {
            if cards.iter().all(|card| card.path != path) {
                cards.push(card(path, target, scope));
            }
        }
    }
    cards
}

/// What lies beside the file of an actor; `target` is the base image where nothing is tuned. Of one that lies
/// elsewhere the name alone is known.
fn card(path: &str, mut target: Option<u64>, scope: &Scope) -> ActorCard {
    let folder = Path::new(path).parent().unwrap_or(Path::new("")).to_owned();
    let (mut prompt, mut photo) = (None, None);
    let file = Path::new(path).file_name().unwrap_or_default();
    let of_method = tunable().find(|method| *method.file() == *file);
    let config = folder.join(of_method.map_or("base.json".to_owned(), config));
    let config = scope.has(&config).then(|| read_json(&config));
    if let Some(config) = config.and_then(|config| scope.readable(config)) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        prompt = text(&config["prompt"]).or_else(|| text(&config["parameters"]["prompt"]));
        photo = text(&config["target_image"]);
        target = config["parameters"]["target"].as_u64().or(target);
        if !is_of_base(&config, &folder) {
            target = None;
        }
    }
    let picture = target.filter(|_| photo.is_none());
    let picture = picture.map(|target| BaseFolder(&folder).image(target as usize));
    ActorCard {
        path: path.to_owned(),
        name: name(path).to_owned(),
        prompt,
        picture: picture.filter(|picture| scope.has(picture)),
        photo,
    }
}
