//! Timesteps spread over a schedule with exactly numpy's arithmetic: if a timestep is halfway
//! between two whole numbers, the last bit decides how it is rounded.

use super::config::{SchedulerConfig, TimestepSpacing};

/// `n` falling timesteps, all whole numbers, spread as in DDIM and PNDM; leading spacing if the
/// config names no spacing.
pub(super) fn evenly_spread(config: &SchedulerConfig, n: usize) -> Vec<f64> {
    let train = config.num_train_timesteps;
    let total = train as f64;
    let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
    let entry = |i| match spacing {
        TimestepSpacing::Linspace if n == 1 => 0.0,
        TimestepSpacing::Linspace => linspace(total - 1.0, n - 1, n - 1 - i).round_ties_even(),
        TimestepSpacing::Leading => ((train / n) * (n - 1 - i)) as f64 + config.steps_offset as f64,
        TimestepSpacing::Trailing => trailing(total, n, i),
    };
    (0..n).map(entry).collect()
}

/// The largest `steps_offset` with which every timestep of [`evenly_spread`] is within the
/// schedule. Only leading spacing adds the offset. With a larger one diffusers ends with an
/// IndexError.
pub(super) fn last_offset(config: &SchedulerConfig, n: usize) -> i64 {
    let train = config.num_train_timesteps;
    match config.timestep_spacing {
        None | Some(TimestepSpacing::Leading) => (train - 1 - (train / n) * (n - 1)) as i64,
        Some(TimestepSpacing::Trailing | TimestepSpacing::Linspace) => train as i64 - 1,
    }
}

/// Entry `i` of `n` with trailing spacing: numpy's `arange(total, 0, -total / n)`, rounded, less
/// one.
pub(super) fn trailing(total: f64, n: usize, i: usize) -> f64 {
    let step = (total - total / n as f64) - total;
    (total + i as f64 * step).round_ties_even() - 1.0
}

/// Entry `k` of `intervals + 1`: numpy's `linspace(0, last, intervals + 1)`, not rounded.
pub(super) fn linspace(last: f64, intervals: usize, k: usize) -> f64 {
    if k == intervals {
        last
    } else {
        k as f64 * (last / intervals as f64)
    }
}
