//! What a job chooses among the base images, checked against those that are there.

use anyhow::Result;

use super::super::session::Session;
use crate::cli::Target;
use crate::config::TuneJob;
use crate::error::usage;
use crate::oneactor::base_set::{BaseFacts, BaseSet};
use crate::oneactor::crop::CropBox;
use crate::oneactor::target::most_typical;

/// A crop is enlarged at most so many times: beyond it there is nothing to learn from it.
const MOST_ENLARGED: i64 = 4;

/// The target among the base images; a photo stands behind them.
pub(super) fn target(job: &TuneJob, base: &BaseSet, session: &Session) -> Result<usize> {
    let images = base.num_base_images();
    if job.target_image.is_some() {
        return Ok(images);
    }
    match job.target {
        Target::Auto => {
            let target = most_typical(&base.encoder_features);
            let dir = job.dir.display();
            session.reporter.note(&format!(
                "{dir}: the target is image {target}, the most typical of {images}; \
                 choose another with --target N"
            ));
            Ok(target)
        }
        Target::Index(index) => usize::try_from(index)
            .ok()
            .filter(|index| *index < images)
            .ok_or_else(|| {
                usage(format!(
                    "--target: found {index}, expected 0 to {} ({} holds {images} base images) \
                     or auto",
                    images - 1,
                    job.dir.display()
                ))
            }),
    }
}

/// A box within the base images, large enough to be enlarged.
pub(super) fn crop_box(part: CropBox, base: &BaseFacts) -> Result<CropBox> {
    let [x, y, w, h] = part;
    let (width, height) = (base.width, base.height);
    let is_inside = |start: i64, length: i64, side: i64| {
        (0..side).contains(&start) && (1..=side - start).contains(&length)
    };
    // Within the picture first: a product of numbers that are too large would overflow.
    if is_inside(x, w, width)
        && is_inside(y, h, height)
        && (w * MOST_ENLARGED >= width || h * MOST_ENLARGED >= height)
    {
        return Ok(part);
    }
    Err(usage(format!(
        "--crop: found {x},{y},{w},{h}, expected left,top,width,height of a box within the base \
         images of {width} x {height} pixels, at least {} wide or {} high",
        (width + MOST_ENLARGED - 1) / MOST_ENLARGED,
        (height + MOST_ENLARGED - 1) / MOST_ENLARGED
    )))
}

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
        None => Ok(most.min(3)),
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
