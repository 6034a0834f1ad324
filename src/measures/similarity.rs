//! Cosines of embeddings, and the measures that are computed from them.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::Measure;
use crate::error::runtime;

/// Embeddings `[N, D]` of unit length, f64 on the CPU: their dot products are cosines.
///
/// # Errors
/// When a value is not finite, or an embedding is zero. The message names `what`.
pub fn unit(embeddings: &Tensor, what: &str) -> Result<Tensor> {
    let embeddings = embeddings.to_device(tch::Device::Cpu).to_kind(Kind::Double);
    let length = embeddings
        .square()
        .sum_dim_intlist([-1i64].as_slice(), true, Kind::Double)
        .sqrt();
    let least = length.min().double_value(&[]);
    if !(least > 0.0 && least.is_finite() && length.max().double_value(&[]).is_finite()) {
        return Err(runtime(format!(
            "{what}: an embedding is not finite or is zero, expected a direction"
        )));
    }
    Ok(embeddings / length)
}

/// The cosine of two rows of [`unit()`] `[D]`.
pub fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    a.dot(b).double_value(&[])
}

/// `100 max(cosine, 0)`.
pub fn clip_score(cosine: f64) -> f64 {
    100.0 * cosine.max(0.0)
}

/// The value of a measure that compares directions.
///
/// # Panics
/// For LPIPS, which does not compare directions.
pub fn of_cosine(measure: Measure, cosine: f64) -> f64 {
    match measure {
        Measure::ClipI | Measure::ClipT | Measure::Dino | Measure::Dinov2 => cosine,
        Measure::ClipScore => clip_score(cosine),
        Measure::Dreamsim => 1.0 - cosine,
        Measure::Lpips => unreachable!("LPIPS compares maps of features"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_is_that_of_the_angle() -> Result<()> {
        let rows = Tensor::from_slice(&[3.0f32, 4.0, 4.0, 3.0, -3.0, -4.0]).view([3, 2]);
        let rows = unit(&rows, "test")?;
        let of = |i, j| cosine(&rows.get(i), &rows.get(j));
        assert!((of(0, 0) - 1.0).abs() < 1e-12);
        assert!((of(0, 1) - 24.0 / 25.0).abs() < 1e-12);
        assert!((of(0, 2) + 1.0).abs() < 1e-12);
        assert_eq!(clip_score(of(0, 2)), 0.0);
        assert!((clip_score(of(0, 1)) - 96.0).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        for row in [[0.0f32, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            assert!(unit(&Tensor::from_slice(&row).view([1, 2]), "test").is_err());
        }
    }
}
