//! Otsu's threshold (IEEE Trans. SMC 9(1), 1979), as scikit-image's `threshold_otsu` computes it.

/// Bins of the histogram; scikit-image's default.
const BINS: usize = 256;

/// The value that parts `values` best in two: the larger ones are the foreground. A histogram of 256
/// bins from the smallest to the largest value; the centre of the bin behind which the variance
/// between both parts is largest, the first where several are equal. Values that are all the same
/// are their own threshold, so that none is larger.
///
/// # Panics
/// When there are no values.
pub fn otsu_threshold(values: &[f64]) -> f64 {
    let first = values[0];
    let (least, most) = values
        .iter()
        .fold((first, first), |(a, b), &x| (a.min(x), b.max(x)));
    if least == most {
        return first;
    }
    let edges = edges(least, most);
    let counts = histogram(values, &edges);
    let centre = |i: usize| (edges[i] + edges[i + 1]) / 2.0;

    // Pixels and the sum of their values in the bins up to i, and from i on.
    let mut below = [(0f32, 0f64); BINS];
    let mut above = [(0f32, 0f64); BINS];
    let add = |(weight, sum): (f32, f64), i: usize| {
        (weight + counts[i], sum + f64::from(counts[i]) * centre(i))
    };
    below[0] = add((0.0, 0.0), 0);
    above[BINS - 1] = add((0.0, 0.0), BINS - 1);
    for i in 1..BINS {
        below[i] = add(below[i - 1], i);
        above[BINS - 1 - i] = add(above[BINS - i], BINS - 1 - i);
    }
    let mut best = (0, f64::NEG_INFINITY);
    for i in 0..BINS - 1 {
        let ((weight_1, sum_1), (weight_2, sum_2)) = (below[i], above[i + 1]);
        let gap = sum_1 / f64::from(weight_1) - sum_2 / f64::from(weight_2);
        // The weights are multiplied in f32, as there, so that equal variances are equal here too.
        let variance = f64::from(weight_1 * weight_2) * (gap * gap);
        if variance > best.1 {
            best = (i, variance);
        }
    }
    centre(best.0)
}

/// numpy's `linspace`: the last edge is the largest value itself.
fn edges(least: f64, most: f64) -> Vec<f64> {
    let step = (most - least) / BINS as f64;
    let mut edges: Vec<f64> = (0..=BINS).map(|i| i as f64 * step + least).collect();
    edges[BINS] = most;
    edges
}

/// Values in each bin; a bin holds its lower edge, the last one its upper edge too.
fn histogram(values: &[f64], edges: &[f64]) -> [f32; BINS] {
    let mut counts = [0f32; BINS];
    for &value in values {
        let bin = edges[1..BINS].partition_point(|&edge| edge <= value);
        counts[bin] += 1.0;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_heaps_are_parted_between_them() {
        // By hand: any bin from the first to the last but one parts them alike; the first is taken.
        let threshold = otsu_threshold(&[1.0, 1.0, 5.0, 5.0, 5.0]);
        assert!(
            (threshold - (1.0 + 2.0 / 256.0)).abs() < 1e-12,
            "{threshold}"
        );
    }

    #[test]
    fn equal_values_have_no_foreground() {
        assert_eq!(otsu_threshold(&[0.25; 7]), 0.25);
    }
}
