//! Otsu's threshold (IEEE Trans. SMC 9(1), 1979), as scikit-image's `threshold_otsu` computes it, on the device of
//! the values.

use tch::{Device, Kind, Tensor};

/// Bins of the histogram; scikit-image's default.
const BINS: i64 = 256;

/// Separates values into background and foreground.
pub struct Otsu {
    /// For each split after bin i, the bins that are summed below it and above it, `[256, 4 · 255]` f64: the
    /// numbers of values, and the sums of values, each below and above.
    sums: Tensor,
}

impl Otsu {
    /// For values on this device.
    pub fn new(device: Device) -> Self {
        let options = (Kind::Double, Device::Cpu);
        let bins = Tensor::arange(BINS, options).view([BINS, 1]);
        let splits = Tensor::arange(BINS - 1, options).view([1, BINS - 1]);
        let centres = (&bins + 0.5) / BINS as f64;
        let below = bins.le_tensor(&splits).to_kind(Kind::Double);
        let above = 1.0 - &below;
        let sums = [&below, &above, &(&below * &centres), &(&above * &centres)];
        Otsu {
            sums: Tensor::cat(&sums, 1).to_device(device),
        }
    }

    /// The threshold of each row of values from 0 to 1, `[N, P]` f64 to `[N, 1]`, in which both 0 and 1 occur. A
    /// value above it is foreground.
    ///
    /// It is computed from a histogram of 256 bins: the centre of the bin after which a split gives the largest
    /// variance between both parts, or of the first such bin. Numbers and centres are multiples of 1/512, so that
    /// their sums are exact and equal variances stay equal in any order of summation. A row of zeros alone has a
    /// threshold above zero.
    pub fn thresholds(&self, values: &Tensor) -> Tensor {
        // A bin includes its lower edge, and the last bin also its upper edge.
        let bins = (values * BINS as f64)
            .to_kind(Kind::Int64)
            .clamp_max(BINS - 1);
        let counts = Tensor::zeros([values.size()[0], BINS], (Kind::Double, values.device()))
            .scatter_value_reduce_(1, &bins, 1.0, "add");
        let sums = counts.mm(&self.sums).view([-1, 2, 2, BINS - 1]);
        let (numbers, totals) = (sums.select(1, 0), sums.select(1, 1)); // [N, 2, 255]
        let means = totals / &numbers;
        let gap = means.select(1, 0) - means.select(1, 1);
        let variance = numbers.select(1, 0) * numbers.select(1, 1) * gap.square();
        (variance.argmax(1, true) + 0.5) / BINS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(values: &[f64]) -> f64 {
        let values = Tensor::from_slice(values).view([1, -1]);
        Otsu::new(Device::Cpu)
            .thresholds(&values)
            .double_value(&[0, 0])
    }

    #[test]
    fn two_heaps_are_parted_between_them() {
        // By hand: all bins from the first to the last but one give the same split; the first is taken.
        assert_eq!(threshold(&[0.0, 0.0, 1.0, 1.0, 1.0]), 0.5 / 256.0);
    }

    #[test]
    fn a_third_heap_goes_to_the_nearer_one() {
        // By hand: means 0.1 and 1 with weights 2 · 2 give 4 · 0.81; means 0 and 0.73 with weights 1 · 3 give 3 · 0.54.
        let found = threshold(&[0.0, 0.2, 1.0, 1.0]);
        assert_eq!(found, ((0.2f64 * 256.0).floor() + 0.5) / 256.0);
    }

    #[test]
    fn a_row_without_differences_has_no_foreground() {
        assert!(threshold(&[0.0; 7]) > 0.0);
    }
}
