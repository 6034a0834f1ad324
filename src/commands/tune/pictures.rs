//! Whether the base pictures that a user sees are those that tuning learns.

use std::path::Path;

use serde_json::json;

use crate::method::base_set::BaseSet;
use crate::records::{BaseFolder, PictureRecord};
use crate::run::session::Session;

/// Warns of base pictures in `folder` that another picture has replaced: tuning learns the latents that were drawn, not the
/// files. One that is gone is no mistake.
pub(super) fn warn_of_replaced(session: &Session, folder: &Path, base: &BaseSet) {
    let is_replaced = |(index, seed): (usize, &i64)| {
        let name = BaseFolder::image_name(index);
        let path = folder.join(&name);
        let is_own = || {
            PictureRecord::read(&path).is_ok_and(|record| {
                let parameters = &record.parameters;
                parameters.get("seed") == Some(&json!(seed))
                    && parameters.get("prompt") == Some(&json!(base.facts.prompt))
            })
        };
        (path.is_file() && !is_own()).then_some(name)
    };
    let replaced: Vec<String> = base
        .seeds
        .iter()
        .enumerate()
        .filter_map(is_replaced)
        .collect();
    if !replaced.is_empty() {
        session.reporter.warn(&format!(
            "{}: {} not as generate-base left {}: tune learns the latents in {}, not the PNG files; give a picture of your \
             own with --target-image",
            folder.display(),
            match &replaced[..] {
                [one] => format!("{one} is"),
                several => format!("{} are", several.join(", ")),
            },
            if replaced.len() == 1 { "it" } else { "them" },
            BaseFolder::SET,
        ));
    }
}
