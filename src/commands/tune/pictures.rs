//! Checks that the base pictures that the user sees are the pictures that tuning learns.

use std::path::Path;

use serde_json::json;

use crate::method::base_set::BaseSet;
use crate::records::{BaseFolder, PictureRecord};
use crate::run::session::Session;

/// Warns of base pictures in `folder` that were replaced by other pictures: tuning learns the saved latents, not the
/// PNG files. A picture that was removed is not warned of.
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
            "{}: {} changed since generate-base, which has no effect, because tune learns the latents in {} and not \
             the PNG files: to learn a picture of your own, give it with --target-image",
            folder.display(),
            match &replaced[..] {
                [one] => format!("{one} has"),
                several => format!("{} have", several.join(", ")),
            },
            BaseFolder::SET,
        ));
    }
}
