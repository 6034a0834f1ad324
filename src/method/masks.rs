//! Masks of the subjects of a picture, from cross-attention maps (the paper's independent variant for several
//! subjects).

use tch::{Kind, Tensor};

use super::otsu::otsu_threshold;

/// Attention maps of G words from the maps of T tokens. Each layer's `[B, T, h, w]` is resized to the latents'
/// `size` by bilinear interpolation. Then the layers are averaged, and the tokens of each word over all its
/// occurrences. `words` has the indices of each word's tokens among the T. Returns `[B, G, H, W]` f32.
pub fn word_maps(layers: &[Tensor], words: &[Vec<i64>], size: [i64; 2]) -> Tensor {
    let resized: Vec<Tensor> = layers
        .iter()
        .map(|maps| maps.upsample_bilinear2d(size, false, None, None))
        .collect();
    let maps = Tensor::stack(&resized, 0).mean_dim([0i64].as_slice(), false, Kind::Float);
    let of_word = |places: &Vec<i64>| {
        let places = Tensor::from_slice(places).to_device(maps.device());
        maps.index_select(1, &places)
            .mean_dim([1i64].as_slice(), false, Kind::Float)
    };
    Tensor::stack(&words.iter().map(of_word).collect::<Vec<_>>(), 1)
}

/// Masks of the subjects `[B, G, H, W]`, ones and zeros: the positions whose value in the subject's map is
/// above its Otsu threshold. A position above the threshold of several subjects goes to the subject with the
/// larger map value. Words get different amounts of attention, so each map is first scaled to 0 to 1 by its own
/// smallest and largest value. If the values are equal, the position goes to the subject that is named first.
pub fn subject_masks(maps: &Tensor) -> Tensor {
    let (b, g, h, w) = maps.size4().expect("maps have four axes");
    let flat = maps
        .to_kind(Kind::Double)
        .view([b, g, h * w])
        .to_device(tch::Device::Cpu);
    let thresholds: Vec<f64> = (0..b * g)
        .map(|i| {
            let map = flat.get(i / g).get(i % g);
            otsu_threshold(&Vec::<f64>::try_from(&map).expect("a map is a list of numbers"))
        })
        .collect();
    let thresholds = Tensor::from_slice(&thresholds).view([b, g, 1]);
    let claimed = flat.gt_tensor(&thresholds);

    let least = flat.amin([-1i64].as_slice(), true);
    let most = flat.amax([-1i64].as_slice(), true);
    let normal = (&flat - &least) / (most - least).clamp_min(f64::MIN_POSITIVE);
    let strength = normal.masked_fill(&claimed.logical_not(), -1.0);
    let winner = strength.argmax(1, true); // [B, 1, HW]
    let is_winner =
        winner.eq_tensor(&Tensor::arange(g, (Kind::Int64, tch::Device::Cpu)).view([1, g, 1]));
    claimed
        .logical_and(&is_winner)
        .to_kind(Kind::Float)
        .view([b, g, h, w])
        .to_device(maps.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_tokens_are_averaged_at_the_latents_size() {
        let coarse = Tensor::from_slice(&[1f32, 2.0, 3.0]).view([1, 3, 1, 1]);
        let fine = Tensor::from_slice(&[1f32, 3.0, 0.0, 0.0, 5.0, 7.0]).view([1, 3, 1, 2]);
        let maps = word_maps(&[coarse, fine], &[vec![0, 2], vec![1]], [1, 2]);
        let values = Vec::<f32>::try_from(maps.flatten(0, -1)).expect("a list");
        // Tokens: (1, 2), (1, 1), (4, 5); the word of the first and the last: (2.5, 3.5).
        assert_eq!(values, [2.5, 3.5, 1.0, 1.0]);
    }

    #[test]
    fn each_subject_has_its_own_threshold_and_overlaps_go_to_the_larger_map() {
        // The second map is ten times weaker. Both are above their threshold at the third position, with scaled
        // values 0.8 and 1.
        let maps = Tensor::from_slice(&[0.0f32, 10.0, 8.0, 0.0, 0.0, 0.1, 1.0, 1.0]);
        let masks = subject_masks(&maps.view([1, 2, 2, 2]));
        let values = Vec::<f32>::try_from(masks.flatten(0, -1)).expect("a list");
        assert_eq!(values, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_map_without_differences_has_an_empty_mask() {
        let maps = Tensor::full([2, 1, 3, 3], 0.5, (Kind::Float, tch::Device::Cpu));
        assert_eq!(subject_masks(&maps).sum(Kind::Float).double_value(&[]), 0.0);
    }
}
