//! Whether what was tuned is still that of the folder which it lies in.
//!
//! A file that lies elsewhere, by itself, is whole and can be drawn with. In a folder with base images it must have been
//! tuned on these, and by the tuning that the folder tells of: otherwise an overwritten subject, or one whose tuning was
//! interrupted, would be drawn as it was before, and nobody would notice.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cli::Method;
use crate::config::ablate::ABLATION;
use crate::error::usage;
use crate::io::header::Header;
use crate::io::real_path::{folder_of, real_path};
use crate::method::origin::BASE_CRC32;
use crate::records::{ActorFolder, BaseFolder, TuneRecord};

/// Refuses the file `path`, which `method` draws with, where its folder tells that it is of other base images or of a
/// tuning that another was to replace.
///
/// # Errors
/// With the file, what is known of it, and the ways out.
pub(crate) fn refuse_stale(path: &Path, method: Method) -> Result<()> {
    let folder = folder_of(path);
    let base = base_folder(folder);
    if let Some(base) = base
        .as_deref()
        .filter(|base| BaseFolder(base).is_unfinished())
    {
        let base = base.display();
        return Err(usage(format!(
            "the base images in {base} are not complete: generate-base is running or was interrupted; run the same \
             `oneactor generate-base … -o {base}` again{}",
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

/// The folder of the base images beside a tuned file, or of those that an ablation's is of.
fn base_folder(folder: &Path) -> Option<PathBuf> {
    let has_set = |folder: &&Path| BaseFolder(folder).has_set();
    if has_set(&folder) {
        return Some(folder.to_owned());
    }
    let real = real_path(folder);
    let ablation = real.parent().filter(|parent| parent.ends_with(ABLATION))?;
    ablation.parent().filter(has_set).map(Path::to_owned)
}

/// The target of an unfinished tuning in a folder, in the words of a message: empty where the target is not known, `None`
/// where no tuning is unfinished.
fn unfinished_target(actor: ActorFolder) -> Option<String> {
    let target = actor.checkpoint_target();
    let shown = target.map_or_else(String::new, |target| format!(" (target {target})"));
    actor.is_unfinished().then_some(shown)
}

/// CRC-32 of the base set that a file was tuned on, by the file itself, or, where a version before 0.2 made it, by the
/// record beside it.
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
