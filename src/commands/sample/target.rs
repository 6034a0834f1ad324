//! Which base image is the subject, for a baseline that goes by one.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::tune::{base_image, describe_auto};
use crate::baselines::consistory::Consistory;
use crate::cli::{Method, Target};
use crate::config::SampleJob;
use crate::error::usage;
use crate::io::checksum::crc32_of;
use crate::io::text;
use crate::method::base_set::BaseSet;
use crate::run::session::Session;

/// The number of that base image: the one that the job names, or that the folder was tuned to, or the
/// most typical. `None` where the method needs none.
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

/// The target that a base set was tuned to, if it was tuned as it is now: by the paper's method, else by a baseline that
/// learnt a base image.
fn tuned_to(base: &Path, images: usize) -> Result<Option<Target>> {
    for method in Method::ALL.into_iter().filter(|method| method.is_tuned()) {
        let config = base.with_file_name(format!("{}.json", method.log()));
        match target_in(&config, base, images)? {
            Some(TunedTarget::Image(number)) => return Ok(Some(Target::Index(number as i64))),
            Some(TunedTarget::Photo(photo)) if method == Method::Oneactor => {
                return Err(usage(format!(
                    "{}: the target of tune was the photo {photo}, which is no base image: name one with --target N",
                    config.display()
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What a tuning had as its target.
enum TunedTarget {
    /// A base image, by its number.
    Image(u64),
    /// A photo, as the tuning names it.
    Photo(Value),
}

/// The target that the file of a tuning has, if it is there and was tuned on that very set.
fn target_in(path: &Path, base: &Path, images: usize) -> Result<Option<TunedTarget>> {
    let Ok(text) = text::read(path) else {
        return Ok(None);
    };
    let config: Value =
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let parameters = &config["parameters"];
    let (Some(target), true) = (
        parameters["target"].as_u64(),
        parameters["base_crc32"] == crc32_of(base)?,
    ) else {
        return Ok(None);
    };
    let is_photo = target as usize >= images || !parameters["target_image_crc32"].is_null();
    Ok(Some(if is_photo {
        TunedTarget::Photo(config["target_image"].clone())
    } else {
        TunedTarget::Image(target)
    }))
}
