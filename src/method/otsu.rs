//! Otsu's threshold (IEEE Trans. SMC 9(1), 1979), as scikit-image's `threshold_otsu` computes it.

/// Bins of the histogram; scikit-image's default.
const BINS: usize = 256;

/// The threshold that best separates `values` into background and foreground, which has the larger values. It
/// is computed from a histogram of 256 bins between the smallest and the largest value: the centre of the bin
/// after which a split gives the largest variance between both parts, or of the first such bin. If all values
/// are equal, the threshold is that value, so that no value is larger.
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

    // Number of values and sum of values in the bins up to and including i, and from i on.
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
        // scikit-image multiplies the weights in f32. The same is done here, so that equal variances stay equal.
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

/// Number of values in each bin. A bin includes its lower edge; the last bin also includes its upper edge.
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
        // By hand: all bins from the first to the last but one give the same split; the first is taken.
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
