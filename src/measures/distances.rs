//! LPIPS. The features of a picture are ten times as large as the picture. Those of all pictures would not fit
//! in memory, so pictures are compared in blocks.

use std::path::Path;

use anyhow::Result;
use image::RgbImage;

use super::Comparison;
use super::column::ColumnValues;
use super::encoder::LpipsEncoder;
use super::picture::{Picture, of_one_actor, regions};
use super::quantity::Quantity;
use super::region::Region;
use crate::error::usage;
use crate::models::vision::lpips::{Lpips, LpipsFeatures};
use crate::pictures::photo::picture_size;
use crate::pictures::resize::{Filter, resize_by};

/// Bytes of features that are held in memory at the same time: those of 25 pictures of 1024 x 1024 pixels.
const HELD: usize = 1 << 30;

/// The size at which all pictures are compared: their common size, or the smallest width and height among
/// several sizes.
pub struct CommonSize {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Whether pictures and target have several sizes.
    pub is_mixed: bool,
}

impl CommonSize {
    /// The common size of the pictures and the target.
    ///
    /// # Errors
    /// When a picture cannot be read, or is too small for AlexNet.
    pub fn of(pictures: &[Picture], target: Option<&Path>) -> Result<Self> {
        let mut common: Option<CommonSize> = None;
        let paths = pictures.iter().map(|picture| picture.row.path.as_path());
        for path in paths.chain(target) {
            let (width, height) = picture_size(path)?;
            let least = Lpips::SMALLEST;
            if width.min(height) < least {
                return Err(usage(format!(
                    "{}: found {width} x {height} pixels, expected at least {least} x {least}, because \
                    AlexNet, the network of lpips, reduces smaller pictures to nothing",
                    path.display()
                )));
            }
            common = Some(match common {
                None => CommonSize {
                    width,
                    height,
                    is_mixed: false,
                },
                Some(common) => CommonSize {
                    width: common.width.min(width),
                    height: common.height.min(height),
                    is_mixed: common.is_mixed || (common.width, common.height) != (width, height),
                },
            });
        }
        Ok(common.expect("there is a picture"))
    }

    /// The picture, resized to this size.
    fn of_picture(&self, picture: &RgbImage) -> RgbImage {
        resize_by(Filter::Bicubic, picture, self.width, self.height)
    }

    /// Number of pictures whose features are held in memory.
    fn at_once(&self) -> usize {
        let pixels = self.width as usize * self.height as usize;
        (HELD / (Lpips::BYTES_A_PIXEL * pixels)).max(1)
    }
}

/// The values of some quantities of LPIPS, for pictures at this size.
///
/// # Errors
/// When a picture cannot be read, a distance is not finite, or the observer stops the work.
pub fn measure(
    comparison: &Comparison,
    encoder: &LpipsEncoder,
    size: &CommonSize,
    wanted: &[Quantity],
) -> Result<Vec<ColumnValues>> {
    let regions = regions(wanted);
    let mut found = Vec::new();
    for &region in &regions {
        found.push(of_region(comparison, encoder, size, region)?);
    }
    let values = wanted.iter().map(|wanted| {
        let of_region = regions.iter().position(|region| *region == wanted.region);
        let (against_target, pairs) = &found[of_region.expect("every region is measured")];
        if wanted.is_pairwise {
            ColumnValues::Pairs(pairs.clone())
        } else {
            ColumnValues::Pictures(against_target.clone())
        }
    });
    Ok(values.collect())
}

/// A pair of pictures with its distance.
type Pair = (usize, usize, f64);

/// Distances of the pictures from the target and from each other, in one region.
fn of_region(
    comparison: &Comparison,
    encoder: &LpipsEncoder,
    size: &CommonSize,
    region: Region,
) -> Result<(Vec<Option<f64>>, Vec<Pair>)> {
    let Comparison {
        pictures,
        target,
        observer,
    } = *comparison;
    let fill = LpipsEncoder::mean_colour();
    let target = target.and_then(|target| target.part(region, fill));
    let target = target.map(|part| encoder.features(&size.of_picture(&part)));
    let has_part = |i: &usize| region == Region::Whole || pictures[*i].has_mask();

    let mut against_target: Vec<Option<f64>> = vec![None; pictures.len()];
    let mut pairs = Vec::new();
    let groups = of_one_actor(pictures);
    observer.begin(groups.iter().map(Vec::len).sum());
    for group in groups {
        let members: Vec<usize> = group.iter().copied().filter(has_part).collect();
        let mut is_read = vec![false; pictures.len()];
        let read = |i: usize| {
            observer.check()?;
            let part = pictures[i].parts(&[region], fill)?.remove(0);
            let part = part.expect("only pictures with this part are read");
            let features = encoder.features(&size.of_picture(&part));
            if !is_read[i] {
                is_read[i] = true;
                let distance = target.as_ref().map(|t| encoder.distance(&features, t));
                against_target[i] = distance.transpose()?;
                observer.advance();
            }
            Ok(features)
        };
        let distance = |a: &LpipsFeatures, b: &LpipsFeatures| encoder.distance(a, b);
        pairs.extend(all_pairs(&members, size.at_once(), read, distance)?);
    }
    observer.finish();
    Ok((against_target, pairs))
}

/// The distances of all pairs of a group. The features of a block of `at_once` members are held in memory, and
/// the members after the block are read once for each block.
fn all_pairs<F>(
    group: &[usize],
    at_once: usize,
    mut read: impl FnMut(usize) -> Result<F>,
    distance: impl Fn(&F, &F) -> Result<f64>,
) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut rest = group;
    while !rest.is_empty() {
        let (block, behind) = rest.split_at(at_once.min(rest.len()));
        let mut held: Vec<(usize, F)> = Vec::new();
        for (is_held, &j) in block
            .iter()
            .map(|j| (true, j))
            .chain(behind.iter().map(|j| (false, j)))
        {
            let features = read(j)?;
            for (i, other) in &held {
                pairs.push((*i, j, distance(other, &features)?));
            }
            if is_held {
                held.push((j, features));
            }
        }
        rest = behind;
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_size_give_every_pair_once() -> Result<()> {
        let group = [2, 3, 5, 7, 11];
        let all: Vec<Pair> = [(2, 3), (2, 5), (2, 7), (2, 11), (3, 5)]
            .into_iter()
            .chain([(3, 7), (3, 11), (5, 7), (5, 11), (7, 11)])
            .map(|(i, j)| (i, j, (j - i) as f64))
            .collect();
        for (at_once, reads) in [(1, 15), (2, 9), (3, 7), (5, 5), (9, 5)] {
            let mut count = 0;
            let read = |i: usize| {
                count += 1;
                Ok(i as f64)
            };
            let mut pairs = all_pairs(&group, at_once, read, |a, b| Ok(b - a))?;
            pairs.sort_by_key(|(i, j, _)| (*i, *j));
            assert_eq!(pairs, all, "{at_once} at once");
            assert_eq!(count, reads, "{at_once} at once");
        }
        Ok(())
    }
}
