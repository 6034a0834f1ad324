//! Checks whether a tuned file is up to date in its folder.
//!
//! A tuned file alone in another folder is complete and can be used. A tuned file in a folder with base images must
//! have been tuned on these images, by the last tuning of the folder. Otherwise a subject that was overwritten, or
//! whose tuning was interrupted, would be drawn in its old form, and nobody would notice.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cli::Method;
use crate::config::ablate::ABLATION;
use crate::config::shell::quoted;
use crate::error::usage;
use crate::io::header::Header;
use crate::io::real_path::{folder_of, real_path};
use crate::method::origin::BASE_CRC32;
use crate::records::{ActorFolder, BaseFolder, TuneRecord};

/// Refuses the file `path`, which `method` draws with, if it was tuned on other base images than its folder has now, or
/// if a newer tuning in its folder is not finished.
///
/// # Errors
/// With the file, the reason and what to do.
pub(crate) fn refuse_stale(path: &Path, method: Method) -> Result<()> {
    let folder = folder_of(path);
    let base = base_folder(folder);
    if let Some(base) = base
        .as_deref()
        .filter(|base| BaseFolder(base).is_unfinished())
    {
        let (shown, quoted) = (base.display(), quoted(&base.display().to_string()));
        return Err(usage(format!(
            "the base images in {shown} are not complete: generate-base is running or was interrupted; run the same \
             `oneactor generate-base … -o {quoted}` again{}",
            or_copy(path, method)
        )));
    }
    if !method.is_tuned() {
        return Ok(());
    }
    let actor = ActorFolder::new(folder, method);
    if actor.is_result(path)
        && let Some(target) = unfinished_target(actor)
    {
        return Err(usage(format!(
            "{} was made by an earlier tuning, and a newer one{target} in {} is not finished: run the same \
             `oneactor tune` again{}",
            path.display(),
            folder.display(),
            or_copy(path, method)
        )));
    }
    let (Some(base), Some(made_from)) = (base, tuned_on(path, actor)?) else {
        return Ok(());
    };
    if BaseFolder(&base).has_set_with(&made_from)? {
        Ok(())
    } else {
        Err(usage(format!(
            "{} was tuned on other base images than those that are in {} now: tune again with --overwrite{}",
            path.display(),
            base.display(),
            or_copy(path, method)
        )))
    }
}

fn or_copy(path: &Path, method: Method) -> String {
    if method.is_tuned() {
        format!(
            ", or copy {} into a folder of its own and draw with the copy",
            path.display()
        )
    } else {
        String::new()
    }
}

/// The folder with the base images of the tuned files in `folder`: `folder` itself or, for a column of an ablation, the
/// folder that the ablation belongs to.
fn base_folder(folder: &Path) -> Option<PathBuf> {
    let has_set = |folder: &&Path| BaseFolder(folder).has_set();
    if has_set(&folder) {
        return Some(folder.to_owned());
    }
    let real = real_path(folder);
    let ablation = real.parent().filter(|parent| parent.ends_with(ABLATION))?;
    ablation.parent().filter(has_set).map(Path::to_owned)
}

/// The target of an unfinished tuning in a folder, as the text of a message. The text is empty if the target is
/// unknown; `None` if no tuning is unfinished.
fn unfinished_target(actor: ActorFolder) -> Option<String> {
    let target = actor.checkpoint_target();
    let shown = target.map_or_else(String::new, |target| format!(" (target {target})"));
    actor.is_unfinished().then_some(shown)
}

/// CRC-32 of the base set that a file was tuned on. The file itself records it or, if a version before 0.2 made the
/// file, the record beside it.
fn tuned_on(path: &Path, actor: ActorFolder) -> Result<Option<String>> {
    let metadata = Header::read(path)?.metadata;
    let told = metadata.into_iter().find(|(key, _)| key == BASE_CRC32);
    if let Some((_, crc32)) = told {
        return Ok(Some(crc32));
    }
    if !actor.is_result(path) {
        return Ok(None);
    }
    let record = TuneRecord::read(&actor.record()).ok();
    Ok(record.and_then(|record| record.base_crc32().map(str::to_owned)))
}
