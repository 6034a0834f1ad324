//! Resolves the choices of a job among the base images: the target, and the number of auxiliary images.

use std::path::Path;

use anyhow::Result;

use crate::cli::Target;
use crate::config::TuneJob;
use crate::error::usage;
use crate::method::base_set::BaseSet;
use crate::method::target::most_typical;
use crate::run::session::Session;
use crate::wording::counted;

/// The index of the target. A photo gets the index after the last base image.
pub(super) fn target(job: &TuneJob, base: &BaseSet) -> Result<usize> {
    if job.target_image.is_some() {
        return Ok(base.num_base_images());
    }
    base_image(job.target, base, &job.dir)
}

/// The index of the chosen base image in `base`, the base set at `path`.
///
/// # Errors
/// When there is no base image with that number.
pub(in super::super) fn base_image(choice: Target, base: &BaseSet, path: &Path) -> Result<usize> {
    let images = base.num_base_images();
    match choice {
        Target::Auto => Ok(most_typical(&base.encoder_features)),
        Target::Index(index) => usize::try_from(index)
            .ok()
            .filter(|index| *index < images)
            .ok_or_else(|| {
                usage(format!(
                    "--target: found {index}, expected 0 to {} ({} holds {}) or auto",
                    images - 1,
                    path.display(),
                    counted(images, "base image", "base images")
                ))
            }),
    }
}

/// Reports which base image is the target, if the program has chosen it.
pub(super) fn describe_target(job: &TuneJob, base: &BaseSet, target: usize, session: &Session) {
    if job.target == Target::Auto && job.target_image.is_none() {
        describe_auto(&job.dir, base, target, session);
    }
}

/// Reports the base image that the program has chosen as the target.
pub(in super::super) fn describe_auto(
    dir: &Path,
    base: &BaseSet,
    target: usize,
    session: &Session,
) {
    let way = match session.command() {
        "story" => "the key `target` in the story file",
        _ => "--target N",
    };
    session.reporter.note(&format!(
        "{}: the target is image {target}, the most typical of {}; choose another with {way}",
        dir.display(),
        counted(base.num_base_images(), "image", "images")
    ));
}

/// The paper's K (Sec. 4).
pub(super) const NUM_AUXILIARY: usize = 3;

/// K, the number of auxiliary images. The default is the paper's 3, or all images if there are fewer.
pub(super) fn num_auxiliary(job: &TuneJob, base: &BaseSet) -> Result<usize> {
    let images = base.num_base_images();
    if images < 2 {
        return Err(usage(format!(
            "{} holds {}, expected at least 2",
            job.dir.display(),
            counted(images, "base image", "base images")
        )));
    }
    let most = match job.target_image {
        Some(_) => images,
        None => images - 1,
    };
    match job.num_auxiliary {
        None => Ok(most.min(NUM_AUXILIARY)),
        Some(count) if count <= most => Ok(count),
        Some(count) => Err(usage(format!(
            "--num-auxiliary: found {count}, expected at most {most}, because there are {images} base \
             images{}",
            if most < images {
                " and one of them is the target"
            } else {
                ""
            }
        ))),
    }
}
