//! Masks of the subjects of a picture, from cross-attention maps (the paper's independent variant for several
//! subjects).

use tch::{Kind, Tensor};

use super::otsu::Otsu;
use crate::models::unet::attention_probe::AttentionMaps;

/// The attention maps of G words at the latents' `size`: the mean over all layers, each of which is resized by
/// bilinear interpolation. Returns `[B, G, H, W]` f32.
///
/// # Panics
/// When there are no maps.
pub fn word_maps(resolutions: &[AttentionMaps], size: [i64; 2]) -> Tensor {
    let layers: usize = resolutions.iter().map(|one| one.layers).sum();
    let share = |one: &AttentionMaps| {
        let share = one.layers as f64 / layers as f64;
        one.maps.upsample_bilinear2d(size, false, None, None) * share
    };
    let shares = resolutions.iter().map(share);
    shares
        .reduce(|sum, share| sum + share)
        .expect("a pass has cross-attention")
}

/// Masks of the subjects `[B, G, H, W]`, ones and zeros: the positions whose value in the subject's map is
/// above its Otsu threshold. A position above the threshold of several subjects goes to the subject with the
/// larger map value. Words get different amounts of attention, so each map is first scaled to 0 to 1 by its own
/// smallest and largest value. If the values are equal, the position goes to the subject that is named first.
pub fn subject_masks(maps: &Tensor, otsu: &Otsu) -> Tensor {
    let (b, g, h, w) = maps.size4().expect("maps have four axes");
    let flat = maps.to_kind(Kind::Double).reshape([b * g, h * w]);
    let (least, most) = flat.aminmax(1, true);
    let scaled = (&flat - &least) / (most - least).clamp_min(f64::MIN_POSITIVE);
    let claimed = scaled.gt_tensor(&otsu.thresholds(&scaled));
    // A claimed position has a value above 0.
    let strength = (scaled * &claimed).view([b, g, h * w]);
    let winner = strength.argmax(1, true); // [B, 1, HW]
    let is_winner =
        Tensor::zeros([b, g, h * w], (Kind::Float, maps.device())).scatter_value_(1, &winner, 1.0);
    (is_winner * claimed.view([b, g, h * w])).view([b, g, h, w])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn layers_are_averaged_at_the_latents_size() {
        let maps = |values: &[f32], width, layers| AttentionMaps {
            maps: Tensor::from_slice(values).view([1, 2, 1, width]),
            layers,
        };
        // One coarse layer and three fine ones.
        let (coarse, fine) = (maps(&[4.0, 8.0], 1, 1), maps(&[0.0, 4.0, 0.0, 8.0], 2, 3));
        let maps = word_maps(&[coarse, fine], [1, 2]);
        let values = Vec::<f32>::try_from(maps.flatten(0, -1)).expect("a list");
        assert_eq!(values, [1.0, 4.0, 2.0, 8.0]);
    }

    #[test]
    fn each_subject_has_its_own_threshold_and_overlaps_go_to_the_larger_map() {
        // The second map is ten times weaker. Both are above their threshold at the third position, with scaled
        // values 0.8 and 1.
        let maps = Tensor::from_slice(&[0.0f32, 10.0, 8.0, 0.0, 0.0, 0.1, 1.0, 1.0]);
        let masks = subject_masks(&maps.view([1, 2, 2, 2]), &Otsu::new(Device::Cpu));
        let values = Vec::<f32>::try_from(masks.flatten(0, -1)).expect("a list");
        assert_eq!(values, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_map_without_differences_has_an_empty_mask() {
        let maps = Tensor::full([2, 1, 3, 3], 0.5, (Kind::Float, Device::Cpu));
        let masks = subject_masks(&maps, &Otsu::new(Device::Cpu));
        assert_eq!(masks.sum(Kind::Float).double_value(&[]), 0.0);
    }
}
