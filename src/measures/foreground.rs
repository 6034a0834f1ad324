//! Finds the subject of a picture with Segment Anything and automatic prompts.
//!
//! SAM answers a prompt of points and boxes with three masks, from a part of a thing to the whole thing, and
//! predicts how well each mask fits. SAM does not know which thing is the subject, but pictures of one subject
//! mostly have it in the middle. So twelve prompts ask for things around the middle:
//!
//! - nine points, at 35, 50 and 65 % of each side: some of them hit a subject beside the middle, or a subject
//!   with a gap in the middle;
//! - three boxes, 5, 15 and 25 % of each side away from the border, with the middle as a point: a box asks for
//!   the whole thing that fills it, while a point alone may give only a sleeve;
//! - with each prompt, two background points in the upper corners. The lower corners have none, because in a
//!   portrait the shoulders reach them.
//!
//! Of the 36 masks, the one with the largest `q r` is taken. q is SAM's predicted intersection over union,
//! clamped to 0 to 1. r is the correlation of the mask with a Gaussian around the middle, whose standard
//! deviation is a quarter of each side. r is near 0 for a small part anywhere, falls for a mask that fills the
//! picture, and is negative for the background. A mask with r of 0 or less is never taken. Only one thing is
//! taken: of several subjects side by side, the others count as background.
//!
//! The paper uses Segment Anything for its masks but does not give the prompts. All numbers above were chosen
//! here and were not tuned on real pictures.

use anyhow::{Context, Result};
use image::{GrayImage, RgbImage};
use tch::{Device, Kind, Tensor, no_grad};

use super::region::share;
use crate::error::{model, runtime};
use crate::io::model_files::ModelFiles;
use crate::models::vision::encoder_folder::{EncoderFolder, Unused};
use crate::models::vision::sam::processor::{SamPlace, SamProcessor};
use crate::models::vision::sam::{SamConfig, SamMasks, SamModel, SamPrompts};

/// Positions of the points, as fractions of a side.
const POINTS: [f64; 3] = [0.35, 0.5, 0.65];

/// Distances of the boxes from the border, as fractions of a side.
const MARGINS: [f64; 3] = [0.05, 0.15, 0.25];

/// Distance of the corner points from the upper corners, as a fraction of a side.
const CORNER: f64 = 0.02;

/// Standard deviation of the Gaussian, as a fraction of a side.
const DEVIATION: f64 = 0.25;

/// Segment Anything with its preparation of pictures.
pub struct ForegroundFinder {
    network: SamModel,
    processor: SamProcessor,
    device: Device,
}

/// The subject of a picture.
#[derive(Debug)]
pub struct Foreground {
    /// 255 where the subject is and 0 elsewhere, with the size of the picture.
    pub mask: GrayImage,
    /// SAM's prediction of how well the mask fits: the intersection over union.
    pub predicted_iou: f64,
}

impl ForegroundFinder {
    /// Loads SAM in f32.
    ///
    /// # Errors
    /// When a file is missing or damaged, or is that of another network.
    pub fn load(files: &ModelFiles, device: Device) -> Result<Self> {
        let folder = EncoderFolder { files, path: "" };
        let config = SamConfig::read(&folder.config("config.json")?)
            .with_context(|| format!("loading {}", files.name()))?;
        let processor = folder.required_processor(SamProcessor::read)?;
        let unused = Unused {
            endings: &SamModel::UNUSED,
            ..Unused::default()
        };
        let network = folder.network((device, Kind::Float), unused, |path| {
            SamModel::new(path, &config)
        })?;
        if processor.side() == network.image_size() {
            Ok(ForegroundFinder {
                network,
                processor,
                device,
            })
        } else {
            Err(model(format!(
                "{}: its image processor makes pictures of {1} x {1}, expected {2} x {2} as in config.json",
                files.name(),
                processor.side(),
                network.image_size()
            )))
        }
    }

    /// The subject of a picture.
    ///
    /// # Errors
    /// When no mask shows anything around the middle, or when the mask covers the whole picture.
    pub fn find(&self, picture: &RgbImage) -> Result<Foreground> {
        no_grad(|| {
            let (pixel_values, place) = self.processor.pixel_values(picture);
            let embeddings = self
                .network
                .image_embeddings(&pixel_values.to_device(self.device));
            let found = prompts(place, self.device).map(|prompts| {
                let masks = self.network.masks(&embeddings, &prompts);
                best(&masks, self.side_in(&masks, place))
            });
            let best = found.into_iter().flatten();
            let best = best.max_by(|a, b| a.score.total_cmp(&b.score)).ok_or_else(|| {
                runtime(
                    "Segment Anything finds no subject in the middle of the picture: leave the picture out, or \
                    give --masks a folder with a mask for each picture",
                )
            })?;
            let logits = self.processor.at_picture_size(&best.low_res_mask, place);
            let mask = as_picture(&logits.gt(0.0), picture.dimensions());
            let share = share(&mask);
            if share > 0.0 && share < 1.0 {
                Ok(Foreground {
                    mask,
                    predicted_iou: best.predicted_iou,
                })
            } else {
                Err(runtime(format!(
                    "Segment Anything's mask covers {:.0} % of the picture: leave the picture out, or give \
                    --masks a folder with a mask for each picture",
                    100.0 * share
                )))
            }
        })
    }

    /// Rows and columns of low-resolution masks that the picture fills; the rest is padding.
    fn side_in(&self, masks: &SamMasks, place: SamPlace) -> [i64; 2] {
        let low = masks.low_res_masks.size()[3] as f64 / self.processor.side() as f64;
        let (width, height) = place.reshaped;
        [height, width].map(|side| ((f64::from(side) * low).round() as i64).max(1))
    }
}

/// The position at a fraction of a side of `pixels`. Pixel positions are counted from the centre of the first pixel.
fn place_at(share: f64, pixels: f64) -> f64 {
    share * pixels - 0.5
}

/// The prompts: points, and boxes with a point, in pixels of the prepared picture.
fn prompts(place: SamPlace, device: Device) -> [SamPrompts; 2] {
    let (width, height) = (f64::from(place.reshaped.0), f64::from(place.reshaped.1));
    let tensor = |values: Vec<f64>, shape: &[i64]| {
        Tensor::from_slice(&values)
            .view(shape)
            .to_kind(Kind::Float)
            .to_device(device)
    };
    let corners = [[CORNER, CORNER], [1.0 - CORNER, CORNER]];
    let points = |on: &[[f64; 2]]| {
        let values = on.iter().flat_map(|on| [*on, corners[0], corners[1]]);
        let values = values.flat_map(|[x, y]| [place_at(x, width), place_at(y, height)]);
        tensor(values.collect(), &[on.len() as i64, 3, 2])
    };
    let labels = |n: usize| {
        let one = Tensor::from_slice(&[1i64, 0, 0]).to_device(device);
        one.expand([n as i64, 3], false)
    };
    let grid: Vec<[f64; 2]> = POINTS
        .iter()
        .flat_map(|y| POINTS.map(|x| [x, *y]))
        .collect();
    let boxes = MARGINS.iter().flat_map(|margin| {
        let far = 1.0 - margin;
        let [left, right] = [*margin, far].map(|share| place_at(share, width));
        let [top, bottom] = [*margin, far].map(|share| place_at(share, height));
        [left, top, right, bottom]
    });
    [
        SamPrompts {
            points: points(&grid),
            labels: labels(grid.len()),
            boxes: None,
        },
        SamPrompts {
            points: points(&[[0.5, 0.5]; MARGINS.len()]),
            labels: labels(MARGINS.len()),
            boxes: Some(tensor(boxes.collect(), &[MARGINS.len() as i64, 4])),
        },
    ]
}

/// A mask that may show the subject.
struct Candidate {
    score: f64,
    predicted_iou: f64,
    /// `[1, 1, h, w]`, padding included.
    low_res_mask: Tensor,
}

/// The best of several masks; `None` if no mask lies around the middle. The picture fills `rows` and `columns`.
fn best(masks: &SamMasks, [rows, columns]: [i64; 2]) -> Option<Candidate> {
    let flat = masks.low_res_masks.flatten(0, 1); // [N M, h, w]
    let inside = flat.narrow(1, 0, rows).narrow(2, 0, columns).gt(0.0);
    let correlations = middle_correlations(&inside);
    let iou = masks.iou_predictions.flatten(0, 1);
    let candidates = correlations.into_iter().enumerate().map(|(i, r)| {
        let predicted_iou = iou.double_value(&[i as i64]);
        let score = predicted_iou.clamp(0.0, 1.0) * r;
        (i as i64, score, predicted_iou)
    });
    // NaN for a mask that is full or empty; NaN is not above 0.
    let (i, score, predicted_iou) = candidates
        .filter(|(_, score, _)| *score > 0.0)
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Candidate {
        score,
        predicted_iou,
        low_res_mask: flat.narrow(0, i, 1).unsqueeze(0),
    })
}

/// Pearson's correlation of each mask `[C, H, W]` with `exp(-(x² + y²) / 2σ²)`: x and y are the distances from
/// the middle divided by the sides, and σ is [`DEVIATION`].
fn middle_correlations(masks: &Tensor) -> Vec<f64> {
    let (_, rows, columns) = masks.size3().expect("masks have three axes");
    let bell = |n: i64| {
        let places = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 0.5) / n - 0.5;
        (places.square() / (-2.0 * DEVIATION * DEVIATION)).exp()
    };
    let gaussian = bell(rows).unsqueeze(1) * bell(columns).unsqueeze(0); // [H, W]
    let off_mean = |xs: &Tensor| xs - xs.mean_dim([-1i64].as_slice(), true, Kind::Double);
    let gaussian = off_mean(&gaussian.view([1, -1]));
    let masks = off_mean(
        &masks
            .to_device(Device::Cpu)
            .to_kind(Kind::Double)
            .flatten(1, 2),
    );
    let sum = |xs: Tensor| xs.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    let spread = (sum(masks.square()) * sum(gaussian.square())).sqrt();
    let correlations = sum(&masks * &gaussian) / spread; // [C]
    (0..masks.size()[0])
        .map(|i| correlations.double_value(&[i]))
        .collect()
}

/// A boolean mask `[1, 1, H, W]` as levels.
fn as_picture(mask: &Tensor, (width, height): (u32, u32)) -> GrayImage {
    let levels = (mask.to_kind(Kind::Uint8) * 255i64).to_device(Device::Cpu);
    let levels = Vec::<u8>::try_from(levels.contiguous().view([-1])).expect("bytes are bytes");
    GrayImage::from_raw(width, height, levels).expect("a level for each pixel")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks of 40 x 60 places, above 0 in `[left, top, right, bottom]`.
    fn masks(parts: &[[i64; 4]], iou: &[f32]) -> SamMasks {
        let one = |[left, top, right, bottom]: [i64; 4]| {
            let mask = Tensor::full([40, 60], -3.0, (Kind::Float, Device::Cpu));
            let _ = mask
                .narrow(0, top, bottom - top)
                .narrow(1, left, right - left)
                .fill_(2.0);
            mask
        };
        let masks: Vec<Tensor> = parts.iter().map(|part| one(*part)).collect();
        SamMasks {
            low_res_masks: Tensor::stack(&masks, 0).unsqueeze(0),
            iou_predictions: Tensor::from_slice(iou).unsqueeze(0),
        }
    }

    const WHOLE: [i64; 4] = [0, 0, 60, 40];
    const PERSON: [i64; 4] = [22, 3, 38, 40];
    const SHIRT: [i64; 4] = [25, 16, 35, 24];
    const NEARLY_ALL: [i64; 4] = [2, 1, 58, 39];
    const CORNER: [i64; 4] = [0, 0, 12, 8];

    fn chosen(parts: &[[i64; 4]], iou: &[f32]) -> Option<usize> {
        let all = masks(parts, iou);
        let best = best(&all, [40, 60])?;
        let same =
            |i: &usize| all.low_res_masks.get(0).get(*i as i64) == best.low_res_mask.view([40, 60]);
        (0..parts.len()).find(same)
    }

    #[test]
    fn the_whole_subject_is_taken_not_a_part_nor_nearly_all() {
        let all = [WHOLE, SHIRT, NEARLY_ALL, PERSON, CORNER];
        assert_eq!(chosen(&all, &[1.0, 0.9, 0.9, 0.9, 1.0]), Some(3));
        // A mask with a low prediction by SAM loses.
        assert_eq!(chosen(&all, &[1.0, 0.9, 0.2, 0.2, 1.0]), Some(1));
        assert_eq!(chosen(&[WHOLE, CORNER], &[1.0, 1.0]), None);
        assert_eq!(chosen(&[PERSON], &[f32::NAN]), None);
    }

    #[test]
    fn a_mask_that_lies_over_the_padding_counts_only_where_the_picture_is() {
        // The picture fills 30 of the 60 columns: the right half of the second mask is padding.
        let all = masks(&[[0, 0, 8, 40], [10, 5, 60, 35]], &[0.9, 0.9]);
        let best = best(&all, [40, 30]).expect("one lies in the middle");
        assert_eq!(
            best.low_res_mask.view([40, 60]),
            all.low_res_masks.get(0).get(1)
        );
        let whole = masks(&[[0, 0, 30, 40]], &[0.9]);
        assert!(super::best(&whole, [40, 30]).is_none());
    }

    #[test]
    fn the_correlation_is_that_of_the_formula() {
        let mask = Tensor::from_slice(&[0u8, 1, 0]).view([1, 1, 3]).gt(0);
        let r = middle_correlations(&mask)[0];
        assert!((r - 1.0).abs() < 1e-12, "{r}");
        let mask = Tensor::from_slice(&[1u8, 0, 0]).view([1, 1, 3]).gt(0);
        let r = middle_correlations(&mask)[0];
        // (-1, 2, -1) against (2, -1, -1): -3 / 6.
        assert!((r + 0.5).abs() < 1e-12, "{r}");
    }
}
