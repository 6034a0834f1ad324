//! Finds masks of pictures and target by Segment Anything, and saves them.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use image::{GrayImage, ImageFormat, RgbImage};

use super::Evaluation;
use crate::config::shell::quoted;
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::io::writable::create_folder;
use crate::measures::foreground::{Foreground, ForegroundFinder};
use crate::measures::picture::read_measurable;
use crate::progress::PICTURES;
use crate::run::session::Session;
use crate::wording::counted;

/// File name of the target's mask in the folder of `--save-masks`.
const TARGET: &str = "target.png";

/// The least predicted intersection over union of a mask that is not warned of. Segment Anything keeps automatic masks
/// from this value on (arXiv 2304.02643, App. B).
const LEAST_IOU: f64 = 0.88;

/// The masks that a job would write into `folder`.
pub(super) fn files(evaluation: &Evaluation, folder: &Path) -> Vec<PathBuf> {
    let names = evaluation.pictures.iter().map(|picture| &picture.name);
    let of_pictures = names.map(|name| folder.join(name.with_extension("png")));
    let target = evaluation.target.as_ref();
    let finds_target = target.is_some_and(|target| target.mask.is_none());
    let of_target = finds_target.then(|| folder.join(TARGET));
    of_pictures.chain(of_target).collect()
}

/// Refuses masks that would overwrite another file or lie outside the folder of `--save-masks`.
///
/// # Errors
/// With the file and what to do.
pub(super) fn check_places(evaluation: &Evaluation) -> Result<()> {
    let Some(folder) = &evaluation.job.save_masks else {
        return Ok(());
    };
    for picture in &evaluation.pictures {
        let mut parts = picture.name.components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(usage(format!(
                "--save-masks: the mask of {} would lie outside {}, because the manifest names a picture outside its \
                 folder: expected a manifest with relative paths without `..`",
                picture.row.path.display(),
                folder.display()
            )));
        }
    }
    let mut seen = BTreeSet::new();
    for path in files(evaluation, folder) {
        let shown = path.display().to_string();
        if path.exists() {
            return Err(usage(format!(
                "--save-masks: {shown} exists already: give a new folder, or measure with these masks: --masks {}",
                quoted(&folder.display().to_string())
            )));
        }
        if !seen.insert(path) {
            return Err(usage(format!(
                "--save-masks: two pictures would have the mask {shown}: give each job one folder of pictures, and \
                 with --target no picture named {TARGET}"
            )));
        }
    }
    Ok(())
}

/// Finds the masks by Segment Anything, if the job asks for that.
///
/// # Errors
/// When Segment Anything cannot be loaded, a picture cannot be read or shows no subject, or a mask cannot be written.
pub(super) fn find(session: &Session, evaluation: &mut Evaluation) -> Result<()> {
    let Some(files) = &evaluation.sam else {
        return Ok(());
    };
    session.reporter.note(&format!("loading {}", files.name()));
    let finder = ForegroundFinder::load(files, evaluation.device)?;
    session.tell_notes(files);
    let saved = evaluation.job.save_masks.as_deref();
    let mut doubtful = 0;
    session
        .reporter
        .start("finding subjects", evaluation.pictures.len(), PICTURES);
    let mut one = |picture: &RgbImage, path: &Path, name: &Path| -> Result<(GrayImage, Vec<u8>)> {
        session.signals.check()?;
        let found = finder.find(picture);
        let Foreground {
            mask,
            predicted_iou,
        } = found.with_context(|| path.display().to_string())?;
        session.reporter.detail(&format!(
            "{}: predicted intersection over union {predicted_iou:.2}",
            path.display()
        ));
        doubtful += usize::from(predicted_iou < LEAST_IOU);
        let mut png = Vec::new();
        mask.write_to(&mut Cursor::new(&mut png), ImageFormat::Png)?;
        if let Some(folder) = saved {
            let path = folder.join(name);
            create_folder(path.parent().unwrap_or(folder))?;
            write_bytes_atomically(&path, &png)?;
        }
        Ok((mask, png))
    };
    for picture in &mut evaluation.pictures {
        let whole = read_measurable(&picture.row.path)?;
        let name = picture.name.with_extension("png");
        picture.found_mask = Some(one(&whole, &picture.row.path, &name)?.1);
        session.reporter.advance("");
    }
    if let Some(target) = evaluation
        .target
        .as_mut()
        .filter(|target| target.mask.is_none())
    {
        let path = evaluation
            .job
            .target
            .as_deref()
            .unwrap_or(Path::new(TARGET));
        let found = one(&target.picture, path, Path::new(TARGET)).context("--target")?;
        target.mask = Some(found.0);
    }
    session.reporter.finish();
    if doubtful > 0 {
        let look = match saved {
            Some(folder) => format!("look at the masks in {}", folder.display()),
            None => "save the masks with --save-masks FOLDER and look at them".to_owned(),
        };
        session.reporter.warn(&format!(
            "Segment Anything is unsure of {} (predicted intersection over union below {LEAST_IOU}): {look}",
            counted(doubtful, "mask", "masks")
        ));
    }
    Ok(())
}
