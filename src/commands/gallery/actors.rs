//! The actors in pictures with their targets, and the tunings in a folder with base images.

use std::path::Path;

use serde_json::Value;

use super::scope::Scope;
use crate::config::batch::Settings;
use crate::pages::gallery::{ActorCard, TuningFacts};
use crate::records::base_record::BaseDetails;
use crate::records::job_record::{Details, JobRecord};
use crate::records::tune_record::TuneDetails;
use crate::records::{ActorFolder, BaseFolder, TuneRecord};

/// Whether a tuning on the base set with this CRC-32 was done on the present base images. Otherwise the number of its
/// target refers to other images.
fn is_of_base(crc32: Option<&str>, folder: &Path) -> bool {
    crc32.is_none_or(|crc32| BaseFolder(folder).has_set_with(crc32).unwrap_or(true))
}

/// The tunings in a folder, by any method.
pub(super) fn tuned_in(folder: &Path, scope: &Scope) -> Vec<TuningFacts> {
    let mut found = Vec::new();
    for actor in ActorFolder::of_all_methods(folder) {
        let path = actor.record();
        if !path.is_file() {
            continue;
        }
        let Some(record) = scope.readable(TuneRecord::read(&path)) else {
            continue;
        };
        let has_number = !record.is_of_photo() && is_of_base(record.base_crc32(), folder);
        found.push(TuningFacts {
            method: actor.method().name().to_owned(),
            target: record.target().filter(|_| has_number),
            steps: record.details.result.steps,
            best_validation: record.details.result.best_validation,
            seconds: record.run.seconds,
        });
    }
    found
}

/// Whether a key says by whom a picture was drawn.
pub(super) fn is_who(key: &str) -> bool {
    matches!(key, "actors" | "method" | "target")
}

/// By whom a picture was drawn: the folders of the actors, after the method if that is a baseline.
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

/// The name of the folder that an actor lies in or, without a folder, of its file.
fn name(path: &str) -> &str {
    let folder = Path::new(path).parent().and_then(Path::file_name);
    folder.and_then(|name| name.to_str()).unwrap_or(path)
}

/// A card for each actor in pictures with these settings, in the order of their first pictures.
pub(super) fn cards<'a>(
    pictures: impl Iterator<Item = &'a Settings>,
    scope: &Scope,
) -> Vec<ActorCard> {
    let mut cards: Vec<ActorCard> = Vec::new();
    for settings in pictures {
        let target = settings.get("target").and_then(Value::as_u64);
        let target = target.map(|target| target as usize);
        for path in actors(settings) {
            if cards.iter().all(|card| card.path != path) {
                cards.push(card(path, target, scope));
            }
        }
    }
    cards
}

/// The card of an actor, from the files in its folder; `target` is the base image of a baseline without tuning. The
/// card of an actor outside the named folders has only a name.
fn card(path: &str, mut target: Option<usize>, scope: &Scope) -> ActorCard {
    let file = Path::new(path);
    let base = BaseFolder::beside(file);
    let (mut prompt, mut photo) = (None, None);
    let mut methods = ActorFolder::of_all_methods(base.0);
    if let Some(actor) = methods.find(|actor| actor.is_result(file)) {
        if let Some(record) = visible::<TuneDetails>(&actor.record(), scope) {
            target = record.target().or(target);
            if !is_of_base(record.base_crc32(), base.0) {
                target = None;
            }
            prompt = record.details.prompt;
            photo = record.details.target_image;
        }
    } else if let Some(record) = visible::<BaseDetails>(&base.record(), scope) {
        let told = record.parameters.get("prompt").and_then(Value::as_str);
        prompt = told.map(str::to_owned);
    }
    let picture = target.filter(|_| photo.is_none());
    let picture = picture.map(|target| base.image(target));
    ActorCard {
        path: path.to_owned(),
        name: name(path).to_owned(),
        prompt,
        picture: picture.filter(|picture| scope.has(picture)),
        photo,
    }
}

/// The record in the file `path`, if the file lies in `scope` and can be read.
fn visible<D: Details>(path: &Path, scope: &Scope) -> Option<JobRecord<D>> {
    let record = scope.has(path).then(|| JobRecord::read(path));
    record.and_then(|record| scope.readable(record))
}
