//! Timesteps spread over a schedule, in the very arithmetic of numpy: where a timestep falls between
//! two whole numbers, the last bit decides which one it is rounded to.

/// Entry `i` of `n` with trailing spacing, numpy's `arange(total, 0, -total / n)` rounded, less one.
pub(super) fn trailing(total: f64, n: usize, i: usize) -> f64 {
    let step = (total - total / n as f64) - total;
    (total + i as f64 * step).round_ties_even() - 1.0
}

/// Entry `k` of `intervals + 1`, numpy's `linspace(0, last, intervals + 1)`, not rounded.
pub(super) fn linspace(last: f64, intervals: usize, k: usize) -> f64 {
    if k == intervals {
        last
    } else {
        k as f64 * (last / intervals as f64)
    }
}
