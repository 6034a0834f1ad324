//! Chooses the base image that shows the subject, for a baseline that uses one base image.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::super::tune::{base_image, describe_auto};
use crate::baselines::consistory::Consistory;
use crate::cli::{Method, Target};
use crate::config::SampleJob;
use crate::error::usage;
use crate::io::checksum::crc32_of;
use crate::io::text;
use crate::method::base_set::BaseSet;
use crate::records::{ActorFolder, BaseFolder, TuneRecord};
use crate::run::session::Session;

/// The number of this base image: the one that the job names, else the one that the folder was tuned to, else the most
/// typical. `None` if the method uses no base image.
///
/// # Errors
/// When there is no such image, it has no seed, or the images show several subjects.
pub(super) fn target(session: &Session, job: &SampleJob) -> Result<Option<usize>> {
    let (Method::Consistory | Method::IpAdapter, [path]) = (job.method, &job.actors[..]) else {
        return Ok(None);
    };
    let base = BaseSet::read(path)?;
    let choice = match job.target {
        Some(choice) => choice,
        None => tuned_to(path, base.num_base_images())?.unwrap_or(Target::Auto),
    };
    let target = base_image(choice, &base, path)?;
    if job.target.is_none() && choice == Target::Auto {
        describe_auto(path, &base, target, session);
    }
    if job.method == Method::Consistory {
        Consistory::new(base, path)?.anchor_seeds(target)?;
    }
    Ok(Some(target))
}

/// The target that the present base set was tuned to, by the paper's method or else by a baseline that learnt a base
/// image; `None` if there is no such tuning.
fn tuned_to(base: &Path, images: usize) -> Result<Option<Target>> {
    for actor in ActorFolder::of_all_methods(BaseFolder::beside(base).0) {
        let record = actor.record();
        match target_in(&record, base, images)? {
            Some(TunedTarget::Image(number)) => return Ok(Some(Target::Index(number as i64))),
            Some(TunedTarget::Photo(photo)) if actor.method() == Method::Oneactor => {
                return Err(usage(format!(
                    "{}: tune was run with the photo {} as target, but this method needs a base image: name one with \
                     --target N",
                    record.display(),
                    json!(photo)
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The target of a tuning.
enum TunedTarget {
    /// A base image, by its number.
    Image(usize),
    /// A photo, by its file name if that is known.
    Photo(Option<String>),
}

/// The target in the record `path` of a tuning; `None` without a record, or if the tuning was done on another base set.
fn target_in(path: &Path, base: &Path, images: usize) -> Result<Option<TunedTarget>> {
    let Ok(text) = text::read(path) else {
        return Ok(None);
    };
    let record = TuneRecord::parse(&text, &format!("reading {}", path.display()))?;
    let Some(target) = record.target() else {
        return Ok(None);
    };
    if record.base_crc32() != Some(&*crc32_of(base)?) {
        return Ok(None);
    }
    Ok(Some(if target >= images || record.is_of_photo() {
        TunedTarget::Photo(record.details.target_image)
    } else {
        TunedTarget::Image(target)
    }))
}
