//! Which pictures are compared, and which parts of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use image::RgbImage;

use super::Evaluation;
use super::pictures::Picture;
use crate::config::evaluate::TableColumn;
use crate::error::usage;
use crate::measures::region::Region;
use crate::pictures::photo::{Transparency, read_picture};

/// The regions of some columns, each once.
pub(super) fn regions(wanted: &[TableColumn]) -> Vec<Region> {
    [Region::Whole, Region::Foreground, Region::Background]
        .into_iter()
        .filter(|region| wanted.iter().any(|wanted| wanted.region == *region))
        .collect()
}

/// The parts of a picture; none of those that need a mask where it has none.
pub(super) fn parts(
    picture: &Picture,
    regions: &[Region],
    fill: [u8; 3],
) -> Result<Vec<Option<RgbImage>>> {
    let whole = read_measurable(&picture.row.path)?;
    let mask = picture.mask()?;
    let part = |region: &Region| {
        let is_there = *region == Region::Whole || mask.is_some();
        is_there.then(|| region.of(&whole, mask.as_ref(), fill))
    };
    Ok(regions.iter().map(part).collect())
}

/// This part of the target.
pub(super) fn target_part(
    evaluation: &Evaluation,
    region: Region,
    fill: [u8; 3],
) -> Option<RgbImage> {
    let mask = evaluation.target_mask.as_ref();
    let target = evaluation.target.as_ref()?;
    (region == Region::Whole || mask.is_some()).then(|| region.of(target, mask, fill))
}

/// A picture's longer side is at most so many times its shorter one: an encoder's preparation makes the shorter
/// side as long as it reads, whatever memory the longer one then takes, and crops all but the middle.
const MOST_OBLONG: u32 = 32;

/// A picture that an encoder can read.
///
/// # Errors
/// When it is neither PNG nor JPEG, damaged, or far longer than wide.
pub(super) fn read_measurable(path: &Path) -> Result<RgbImage> {
    let picture = read_picture(path, Transparency::Dropped)?.picture;
    let (width, height) = picture.dimensions();
    if width.max(height) > MOST_OBLONG.saturating_mul(width.min(height)) {
        Err(usage(format!(
            "{}: found {width} x {height} pixels, expected one side at most {MOST_OBLONG} times the other",
            path.display()
        )))
    } else {
        Ok(picture)
    }
}

/// The numbers of the pictures of each actor, without the target.
pub(super) fn of_one_actor(pictures: &[Picture]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, picture) in pictures
        .iter()
        .enumerate()
        .filter(|(_, p)| !p.row.is_target)
    {
        groups.entry(&picture.row.actor).or_default().push(i);
    }
    groups.into_values().collect()
}
