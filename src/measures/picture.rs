//! The pictures that are measured, their masks, and the parts of them that an encoder sees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use image::{GrayImage, RgbImage};

use super::quantity::Quantity;
use super::region::{Region, share};
use super::table::PictureRow;
use crate::error::usage;
use crate::pictures::photo::{Transparency, read_picture};

/// A picture that is measured.
pub struct Picture {
    /// The facts of the picture in the table.
    pub row: PictureRow,
    /// The picture's path below the folder of its manifest, or else its file name. Its mask has the same name.
    pub name: PathBuf,
    /// Files of its masks; a position is the subject if it is white in any of them. Empty if no mask is used or
    /// found.
    pub masks: Vec<PathBuf>,
    /// The mask that Segment Anything found, as a PNG, because a table may have thousands.
    pub found_mask: Option<Vec<u8>>,
}

/// The picture that others are compared with.
pub struct Target {
    /// The pixels of the target.
    pub picture: RgbImage,
    /// The mask of the target; white is the subject.
    pub mask: Option<GrayImage>,
}

impl Picture {
    /// Whether there is a mask to separate foreground and background.
    pub fn has_mask(&self) -> bool {
        !self.masks.is_empty() || self.found_mask.is_some()
    }

    /// The mask that Segment Anything found, or else the union of the mask files; `None` without masks.
    ///
    /// # Errors
    /// When a mask cannot be read, has another size than the others, or is all white or all black.
    pub fn mask(&self) -> Result<Option<GrayImage>> {
        if let Some(png) = &self.found_mask {
            return Ok(Some(image::load_from_memory(png)?.into_luma8()));
        }
        let mut union: Option<GrayImage> = None;
        for path in &self.masks {
            let mask = read_levels(path)?;
            match &mut union {
                None => union = Some(mask),
                Some(union) if union.dimensions() != mask.dimensions() => {
                    return Err(usage(format!(
                        "{}: found {:?} pixels, expected {:?} as in {}",
                        path.display(),
                        mask.dimensions(),
                        union.dimensions(),
                        self.masks[0].display()
                    )));
                }
                Some(union) => {
                    for (level, other) in union.pixels_mut().zip(mask.pixels()) {
                        level.0[0] = level.0[0].max(other.0[0]);
                    }
                }
            }
        }
        if let Some(union) = &union {
            check_mask(union, &self.masks[0])?;
        }
        Ok(union)
    }

    /// The part of the picture in each region, with everything else in the colour `fill`; `None` for foreground
    /// and background of a picture without a mask.
    ///
    /// # Errors
    /// When the picture or the mask cannot be read.
    pub fn parts(&self, regions: &[Region], fill: [u8; 3]) -> Result<Vec<Option<RgbImage>>> {
        let whole = read_measurable(&self.row.path)?;
        let mask = self.mask()?;
        let part = |region: &Region| {
            let is_there = *region == Region::Whole || mask.is_some();
            is_there.then(|| region.of(&whole, mask.as_ref(), fill))
        };
        Ok(regions.iter().map(part).collect())
    }
}

impl Target {
    /// The part of the target in a region, as in [`Picture::parts`].
    pub fn part(&self, region: Region, fill: [u8; 3]) -> Option<RgbImage> {
        let mask = self.mask.as_ref();
        let is_there = region == Region::Whole || mask.is_some();
        is_there.then(|| region.of(&self.picture, mask, fill))
    }
}

/// A mask file.
///
/// # Errors
/// When it cannot be read, or is all white or all black.
pub fn read_mask(path: &Path) -> Result<GrayImage> {
    let mask = read_levels(path)?;
    check_mask(&mask, path)?;
    Ok(mask)
}

fn read_levels(path: &Path) -> Result<GrayImage> {
    let picture = read_picture(path, Transparency::Dropped)?.picture;
    Ok(image::DynamicImage::ImageRgb8(picture).into_luma8())
}

/// Refuses a mask without any pixel of the foreground or of the background.
fn check_mask(mask: &GrayImage, path: &Path) -> Result<()> {
    let share = share(mask);
    if share > 0.0 && share < 1.0 {
        return Ok(());
    }
    let found = if share == 0.0 {
        "all black"
    } else {
        "all white"
    };
    Err(usage(format!(
        "{}: the mask is {found}, expected white where the subject is and black elsewhere",
        path.display()
    )))
}

/// Maximum ratio of a picture's sides. A preprocessor scales the shorter side to the encoder's size and keeps
/// only the middle, so a very long picture would need much memory.
const MOST_OBLONG: u32 = 32;

/// A picture that an encoder can read.
///
/// # Errors
/// When the file is neither PNG nor JPEG or is damaged, or when the picture is too long.
pub fn read_measurable(path: &Path) -> Result<RgbImage> {
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

/// The regions of some quantities, without repetition.
pub fn regions(quantities: &[Quantity]) -> Vec<Region> {
    [Region::Whole, Region::Foreground, Region::Background]
        .into_iter()
        .filter(|region| quantities.iter().any(|quantity| quantity.region == *region))
        .collect()
}

/// The indices of the pictures of each actor, without the target.
pub fn of_one_actor(pictures: &[Picture]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let others = pictures.iter().enumerate();
    for (i, picture) in others.filter(|(_, picture)| !picture.row.is_target) {
        groups.entry(&picture.row.actor).or_default().push(i);
    }
    groups.into_values().collect()
}
