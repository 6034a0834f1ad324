//! Sigmas, `σ = √((1-ᾱ)/ᾱ)`: the noise of a timestep relative to the picture.

use super::noise_schedule::NoiseSchedule;

/// Exponent ρ of the spread of sigmas in arXiv 2206.00364, Eq. (5).
const RHO: f64 = 7.0;

/// σ for each timestep of a schedule, rising.
pub(super) fn sigma_table(schedule: &NoiseSchedule) -> Vec<f64> {
    schedule
        .alphas_cumprod
        .iter()
        .map(|a| ((1.0 - a) / a).sqrt())
        .collect()
}

/// σ at a fractional timestep, interpolated linearly in the table.
pub(super) fn interpolate(table: &[f64], timestep: f64) -> f64 {
    let last = table.len() - 1;
    let t = timestep.clamp(0.0, last as f64);
    let low = (t.floor() as usize).min(last - 1);
    let part = t - low as f64;
    table[low] * (1.0 - part) + table[low + 1] * part
}

/// The fractional timestep of a σ, interpolated linearly in log σ.
pub(super) fn sigma_to_timestep(table: &[f64], sigma: f64) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let at_or_below = table.iter().take_while(|s| s.ln() <= log_sigma).count();
    let low = at_or_below.saturating_sub(1).min(table.len() - 2);
    let (a, b) = (table[low].ln(), table[low + 1].ln());
    low as f64 + ((log_sigma - a) / (b - a)).clamp(0.0, 1.0)
}

/// `n` sigmas from `largest` down to `smallest` (arXiv 2206.00364, Eq. (5)).
pub(super) fn karras(smallest: f64, largest: f64, n: usize) -> Vec<f64> {
    let (low, high) = (smallest.powf(1.0 / RHO), largest.powf(1.0 / RHO));
    let steps = (n.max(2) - 1) as f64;
    (0..n)
        .map(|i| (high + i as f64 / steps * (low - high)).powf(RHO))
        .collect()
}
