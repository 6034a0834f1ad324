//! Finds the subject of a picture, or its face, as a box for the target's crop (Sec. 3.2). The box comes from
//! the model's own cross-attention to the word; no trained detector is used.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::base_word::BaseWordPrompt;
use super::crop::{CropBox, with_proportions};
use super::figure::{PositionBox, bounding_box, largest_part, within};
use super::masks::{subject_masks, word_maps};
use super::otsu::Otsu;
use super::templates::article;
use crate::backbone::Backbone;
use crate::backbone::unet_pass::UnetPass;
use crate::libtorch::noise;
use crate::models::unet::attention_probe::{AttentionProbe, WatchedWords};
use crate::models::unet::cross_attention::AttentionRequest;

/// Maximum enlargement of a crop. A smaller crop has too little detail to learn from.
pub const MOST_ENLARGED: i64 = 4;
/// The noise levels at which attention is measured, in tenths of the schedule. Up to the middle of the
/// schedule, the toy model's boxes contain the figure wherever it stands; with more noise the network guesses
/// the position.
const NOISE_LEVELS: [i64; 3] = [1, 3, 5];
/// Seed of the noise. It is the same for every picture and seed, so that a picture always has the same box.
const NOISE_SEED: i64 = 0;
/// Margin on every side of a box, as a fraction of its size, because attention misses ears and feet.
const MARGIN: i64 = 20;
/// The word whose attention finds a face.
const FACE: &str = "face";

/// What a box should contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxTarget {
    /// The subjects of all base words.
    Subject,
    /// The face of the only subject.
    Face,
}

/// A box that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundBox {
    /// The box in pixels, extended to the picture's proportions.
    pub part: CropBox,
    /// What the box contains: the subject, if no plausible face was found.
    pub what: BoxTarget,
}

impl FoundBox {
    /// Whether the box is too large to be enlarged: at least nine tenths of the picture's width, and of its
    /// height too, because the box has the picture's proportions.
    pub fn is_nearly_everything(&self, width: i64) -> bool {
        self.part[2] * 10 >= width * 9
    }
}

/// A prompt, and the words in it whose attention is measured.
pub struct Look {
    /// "a picture of a cat".
    pub prompt: String,
    /// The words whose attention is measured.
    pub words: Vec<String>,
}

/// The prompts for finding a box: first the one of the subjects, then, if a face is wanted, the one of the face.
pub fn looks(base_words: &[String], wanted: BoxTarget) -> Vec<Look> {
    let phrase = |word: &String| format!("{} {word}", article(word));
    let phrases: Vec<String> = base_words.iter().map(phrase).collect();
    let phrases = phrases.join(" and ");
    let subject = Look {
        prompt: format!("a picture of {phrases}"),
        words: base_words.to_vec(),
    };
    let face = Look {
        prompt: format!("a picture of the {FACE} of {phrases}"),
        words: vec![FACE.to_owned()],
    };
    match wanted {
        BoxTarget::Subject => vec![subject],
        BoxTarget::Face => vec![subject, face],
    }
}

/// The wanted box in the picture whose latents are `z_0 [1, C, H, W]`; `None` if the attention is the same
/// everywhere.
///
/// The latents are noised to three levels. At each level the cross-attention of the word's tokens is averaged
/// over heads and layers, at the latents' size; then the levels are averaged. Otsu's threshold splits the map,
/// and the box surrounds the largest connected part.
///
/// A face is searched inside the subject's box. It is plausible if at least half of its mask lies there, and if
/// the box around that part is at most half as large as the subject's box.
///
/// # Errors
/// When a word is not in the prompt within the token limit.
pub fn find_box(
    backbone: &Backbone,
    z_0: &Tensor,
    base_words: &[String],
    wanted: BoxTarget,
) -> Result<Option<FoundBox>> {
    let factor = backbone.vae_scale_factor();
    let (_, _, height, width) = z_0.size4()?;
    let columns = width as usize;
    let mut looks = looks(base_words, wanted).into_iter();
    let mut masks = || {
        looks
            .next()
            .map(|look| masks(backbone, z_0, &look))
            .transpose()
    };

    let subjects = masks()?.unwrap_or_default();
    let Some(subject) = box_of_subjects(&subjects, columns) else {
        return Ok(None);
    };
    let face = masks()?.and_then(|face| box_of_face(&face[0], columns, subject));
    let (part, what) = match face {
        Some(face) => (face, BoxTarget::Face),
        None => (subject, BoxTarget::Subject),
    };
    Ok(Some(FoundBox {
        part: in_pixels(part, factor, width * factor, height * factor),
        what,
    }))
}

/// The masks of the words of a prompt in one picture, row by row.
fn masks(backbone: &Backbone, z_0: &Tensor, look: &Look) -> Result<Vec<Vec<bool>>> {
    let _frozen = tch::no_grad_guard();
    let (_, _, height, width) = z_0.size4()?;
    let factor = backbone.vae_scale_factor();
    let size = [height * factor, width * factor];
    let prompt = BaseWordPrompt::with_words(backbone, &look.prompt, &look.words, size)?;
    let c = &prompt.conditioning.prompt_embeds; // [1, S, D]
    let watched = WatchedWords::new(&prompt.places(), c.size()[1], c);
    let schedule = &backbone.noise_schedule;
    let mut maps = Vec::new();
    for level in NOISE_LEVELS {
        let eps = noise(NOISE_SEED + level, &z_0.size()).to_device(z_0.device());
        let timestep = schedule.num_train_timesteps() * level / 10;
        let timesteps = Tensor::from_slice(&[timestep]).to_device(backbone.device());
        let z_t = schedule.add_noise(z_0, &eps, &timesteps);
        let pass = UnetPass::new(&z_t, &timesteps, &prompt.conditioning);
        let request = AttentionRequest {
            probe: Some(AttentionProbe::new(0, 1, &watched)),
            ..AttentionRequest::default()
        };
        let (_, attention) = backbone.predict_attending(pass, request);
        let layers = attention.maps.expect("the request has a probe");
        maps.push(word_maps(&layers, [height, width])); // [1, G, H, W]
    }
    let maps = Tensor::cat(&maps, 0).mean_dim([0i64].as_slice(), true, Kind::Float);
    let masks = subject_masks(&maps, &Otsu::new(maps.device()))
        .gt(0.5)
        .to_device(Device::Cpu);
    (0..look.words.len() as i64)
        .map(|word| {
            Ok(Vec::<bool>::try_from(
                masks.get(0).get(word).flatten(0, -1),
            )?)
        })
        .collect()
}

/// The box around the largest connected part of each mask.
fn box_of_subjects(masks: &[Vec<bool>], columns: usize) -> Option<PositionBox> {
    let parts: Vec<Vec<bool>> = masks
        .iter()
        .map(|mask| largest_part(mask, columns))
        .collect();
    let any = (0..masks[0].len()).map(|place| parts.iter().any(|part| part[place]));
    bounding_box(&any.collect::<Vec<_>>(), columns)
}

/// The box of a face inside the subject's box; `None` if the face is not plausible.
fn box_of_face(mask: &[bool], columns: usize, subject: PositionBox) -> Option<PositionBox> {
    let count = |mask: &[bool]| mask.iter().filter(|&&is_set| is_set).count();
    let inside = within(mask, columns, subject);
    if count(&inside) * 2 < count(mask) {
        return None;
    }
    let face = bounding_box(&largest_part(&inside, columns), columns)?;
    let area = |[_, _, w, h]: PositionBox| w * h;
    (area(face) * 2 <= area(subject)).then_some(face)
}

/// Converts a box of latent positions, each `factor` pixels wide, to a box in a picture of `width` x `height`
/// pixels: adds the margin, enlarges it to the smallest allowed size, and extends it to the picture's
/// proportions.
fn in_pixels(part: PositionBox, factor: i64, width: i64, height: i64) -> CropBox {
    let side = |start: i64, length: i64, most: i64| {
        let (start, length) = (start * factor, length * factor);
        let margin = (length + MARGIN / 2) / MARGIN;
        let least = (most + MOST_ENLARGED - 1) / MOST_ENLARGED;
        let grown = (length + 2 * margin).max(least);
        let first = start - (grown - length) / 2;
        let (first, end) = (first.max(0), (first + grown).min(most));
        // Parts outside the picture are cut off, unless the rest would be too small.
        let length = (end - first).max(least);
        (first.min(most - length), length)
    };
    let (x, w) = side(part[0], part[2], width);
    let (y, h) = side(part[1], part[3], height);
    with_proportions([x, y, w, h], width, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask of 8 x 8 positions with these boxes filled.
    fn mask(boxes: &[PositionBox]) -> Vec<bool> {
        let full = [true; 64];
        let filled = boxes.iter().map(|&part| within(&full, 8, part));
        filled.fold(vec![false; 64], |mask, part| {
            mask.iter().zip(part).map(|(a, b)| *a || b).collect()
        })
    }

    #[test]
    fn the_box_is_around_the_largest_part_of_every_subject() {
        let one = mask(&[[1, 1, 2, 3], [6, 6, 1, 1]]);
        assert_eq!(box_of_subjects(&[one], 8), Some([1, 1, 2, 3]));
        let (left, right) = (mask(&[[0, 2, 2, 2]]), mask(&[[5, 3, 2, 4], [0, 7, 1, 1]]));
        assert_eq!(box_of_subjects(&[left, right], 8), Some([0, 2, 7, 5]));
        assert_eq!(box_of_subjects(&[mask(&[])], 8), None);
    }

    #[test]
    fn a_face_is_inside_of_its_subject_and_at_most_half_of_it() {
        let subject = [2, 0, 4, 8];
        let face = |boxes: &[PositionBox]| box_of_face(&mask(boxes), 8, subject);
        assert_eq!(face(&[[3, 1, 2, 2]]), Some([3, 1, 2, 2]));
        assert_eq!(face(&[[5, 1, 2, 2]]), Some([5, 1, 1, 2]), "half is inside");
        assert_eq!(face(&[[5, 1, 3, 2]]), None, "a third is inside");
        assert_eq!(face(&[[2, 0, 4, 4]]), Some([2, 0, 4, 4]), "half as large");
        assert_eq!(face(&[[2, 0, 4, 5]]), None, "larger than half");
        assert_eq!(face(&[]), None);
    }

    #[test]
    fn a_box_has_a_margin_a_least_size_and_the_pictures_proportions() {
        // 40 of 160 pixels, and a margin of 2 on either side; the picture is square.
        assert_eq!(in_pixels([5, 5, 5, 5], 8, 160, 160), [38, 38, 44, 44]);
        // At the edge the margin is cut off, and the box is extended inwards to the proportions.
        assert_eq!(in_pixels([0, 5, 5, 5], 8, 160, 160), [0, 38, 44, 44]);
        // One position of 8 pixels: the box becomes a quarter of the picture, the smallest size.
        assert_eq!(in_pixels([10, 10, 1, 1], 8, 160, 160), [64, 64, 40, 40]);
        assert_eq!(in_pixels([19, 0, 1, 1], 8, 160, 160), [120, 0, 40, 40]);
        assert_eq!(in_pixels([0, 0, 20, 20], 8, 160, 160), [0, 0, 160, 160]);
        assert_eq!(in_pixels([6, 2, 8, 4], 8, 160, 80), [44, 14, 72, 36]);
    }

    #[test]
    fn nine_tenths_of_the_picture_are_nearly_all_of_it() {
        let found = |w| FoundBox {
            part: [0, 0, w, w],
            what: BoxTarget::Subject,
        };
        assert!(!found(57).is_nearly_everything(64));
        assert!(found(58).is_nearly_everything(64));
    }
}
