//! What a job chooses among the base images, checked against those that are there.

use std::path::Path;

use anyhow::Result;

use crate::cli::Target;
use crate::config::TuneJob;
use crate::error::usage;
use crate::method::base_set::BaseSet;
use crate::method::target::most_typical;
use crate::run::session::Session;

/// The target among the base images; a photo stands behind them.
pub(super) fn target(job: &TuneJob, base: &BaseSet) -> Result<usize> {
    if job.target_image.is_some() {
        return Ok(base.num_base_images());
    }
    base_image(job.target, base, &job.dir)
}

/// The number of a base image among those of `base`, which lies at `path`.
///
/// # Errors
/// When there is none of that number.
pub(in super::super) fn base_image(choice: Target, base: &BaseSet, path: &Path) -> Result<usize> {
    let images = base.num_base_images();
    match choice {
        Target::Auto => Ok(most_typical(&base.encoder_features)),
        Target::Index(index) => usize::try_from(index)
            .ok()
            .filter(|index| *index < images)
            .ok_or_else(|| {
                usage(format!(
                    "--target: found {index}, expected 0 to {} ({} holds {images} base images) \
                     or auto",
                    images - 1,
                    path.display()
                ))
            }),
    }
}

/// Says which base image is the target, where the program has chosen it.
pub(super) fn describe_target(job: &TuneJob, base: &BaseSet, target: usize, session: &Session) {
    if job.target == Target::Auto && job.target_image.is_none() {
        describe_auto(&job.dir, base, target, session);
    }
}

/// The same where it is known that the program has chosen.
pub(in super::super) fn describe_auto(
    dir: &Path,
    base: &BaseSet,
    target: usize,
    session: &Session,
) {
    session.reporter.note(&format!(
        "{}: the target is image {target}, the most typical of {}; choose another with --target N",
        dir.display(),
        base.num_base_images()
    ));
}

/// The paper's K (Sec. 4).
pub(super) const NUM_AUXILIARY: usize = 3;

/// K: the paper's 3 where the flags name none, or all there are.
pub(super) fn num_auxiliary(job: &TuneJob, base: &BaseSet) -> Result<usize> {
    let images = base.num_base_images();
    if images < 2 {
        return Err(usage(format!(
            "{} holds {images} base image, expected at least 2",
            job.dir.display()
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
            "--num-auxiliary: found {count}, expected at most {most}, for there are {images} base \
             images{}",
            if most < images {
                " and one of them is the target"
            } else {
                ""
            }
        ))),
    }
}
