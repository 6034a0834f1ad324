//! `--target auto`: the base image that the others resemble most.

use tch::{Kind, Tensor};

/// The most typical of N base images by their features `h [N, C, H, W]`: each map is averaged over
/// its positions, every channel is standardised over the N images, and the image with the smallest
/// sum of Euclidean distances to the others (the medoid) is taken, the first where several are
/// equal.
pub fn most_typical(h: &Tensor) -> usize {
    let pooled = h
        .to_kind(Kind::Float)
        .mean_dim([2i64, 3].as_slice(), false, Kind::Float); // [N, C]
    let centred = &pooled - pooled.mean_dim([0i64].as_slice(), true, Kind::Float);
    let deviation = centred
        .square()
        .mean_dim([0i64].as_slice(), true, Kind::Float)
        .sqrt();
    let standard = centred / deviation.clamp_min(1e-12);
    let distances = (standard.unsqueeze(0) - standard.unsqueeze(1))
        .square()
        .sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
        .sqrt(); // [N, N]
    let sums = distances.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    sums.argmin(None, false).int64_value(&[]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_in_the_middle_is_the_most_typical() {
        let h = Tensor::from_slice(&[0.0f32, 10.0, 4.0, 5.0, 9.0]).view([5, 1, 1, 1]);
        assert_eq!(most_typical(&h), 3); // sums of distances: 28, 22, 16, 15, 19
    }
}
