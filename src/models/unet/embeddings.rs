//! Timesteps as vectors.

use tch::{Kind, Tensor};

use crate::io::weights::WeightPath;
use crate::models::layers::{Linear, silu};

/// Sinusoidal embeddings (`Timesteps` in diffusers; arXiv 1706.03762, arXiv 2006.11239).
pub struct Timesteps {
    num_channels: i64,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl Timesteps {
    /// `num_channels` values, half sines and half cosines; with `flip_sin_to_cos` the cosines come
    /// first.
    pub fn new(num_channels: i64, flip_sin_to_cos: bool, freq_shift: f64) -> Self {
        Timesteps {
            num_channels,
            flip_sin_to_cos,
            freq_shift,
        }
    }

    /// Positions `[B]` to `[B, num_channels]`, in f32 whatever the network's precision is.
    pub fn forward(&self, positions: &Tensor) -> Tensor {
        let half = self.num_channels / 2;
        let exponent = Tensor::arange(half, (Kind::Float, positions.device()))
            * (-(10_000f64.ln()) / (half as f64 - self.freq_shift));
        let angles = positions.to_kind(Kind::Float).unsqueeze(1) * exponent.exp().unsqueeze(0); // [B, half]
        let (sin, cos) = (angles.sin(), angles.cos());
        let halves = if self.flip_sin_to_cos {
            [cos, sin]
        } else {
            [sin, cos]
        };
        Tensor::cat(&halves, 1) // [B, num_channels]
    }
}

/// Two linear layers with SiLU between them.
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// `d_in` to `d_out` to `d_out`.
    pub fn new(path: &WeightPath, d_in: i64, d_out: i64) -> Self {
        TimestepEmbedding {
            linear_1: Linear::new(&(path / "linear_1"), d_in, d_out),
            linear_2: Linear::new(&(path / "linear_2"), d_out, d_out),
        }
    }

    /// `[B, D_in]` to `[B, D_out]`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        self.linear_2.forward(&silu(self.linear_1.forward(xs)))
    }
}
