//! The transformer layer of CLIP (arXiv 2103.00020), the same in its text half and its vision half:
//! `CLIPEncoderLayer` of transformers.

use serde::Deserialize;
use tch::Tensor;

use super::attention::{merge_heads, scaled_dot_product, split_heads};
use super::layers::{LayerNorm, Linear};
use crate::io::config_file::Field::{Harmless, Read};
use crate::io::config_file::Fields;
use crate::io::weights::WeightPath;

/// Three functions are called GELU; CLIP checkpoints use one of these two.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// `x σ(1.702 x)`.
    QuickGelu,
    /// `x Φ(x)`.
    Gelu,
}

impl HiddenAct {
    fn forward(self, xs: &Tensor) -> Tensor {
        match self {
            HiddenAct::QuickGelu => xs * (xs * 1.702).sigmoid(),
            HiddenAct::Gelu => xs.gelu("none"),
        }
    }
}

/// Parameters that the text half and the vision half share.
pub(super) const CLIP_LAYERS: &Fields = &[
    ("hidden_size", Read),
    ("intermediate_size", Read),
    ("num_hidden_layers", Read),
    ("num_attention_heads", Read),
    ("hidden_act", Read),
    ("layer_norm_eps", Read),
    ("attention_dropout", Harmless("only in training")),
    ("initializer_range", Harmless("only before training")),
    ("initializer_factor", Harmless("only before training")),
];

/// Sizes of one layer.
#[derive(Clone, Copy, Debug)]
pub struct ClipLayerConfig {
    /// Width of a token.
    pub dim: i64,
    /// Inner width of the feed-forward part.
    pub inner: i64,
    /// Number of heads.
    pub heads: i64,
    /// The activation between the two linear layers of the feed-forward part.
    pub hidden_act: HiddenAct,
    /// Added to the variance in both norms.
    pub eps: f64,
    /// Whether a token attends only to itself and earlier tokens, as in the text half.
    pub is_causal: bool,
}

/// Attention and a feed-forward part, each with a norm before it and a residual around it.
pub struct ClipLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    config: ClipLayerConfig,
}

impl ClipLayer {
    /// Reads `self_attn`, `layer_norm1`, `mlp` and `layer_norm2`.
    pub fn new(path: &WeightPath, config: &ClipLayerConfig) -> Self {
        let (dim, inner) = (config.dim, config.inner);
        let attn = path / "self_attn";
        ClipLayer {
            layer_norm1: LayerNorm::new(&(path / "layer_norm1"), dim, config.eps),
            q_proj: Linear::new(&(&attn / "q_proj"), dim, dim),
            k_proj: Linear::new(&(&attn / "k_proj"), dim, dim),
            v_proj: Linear::new(&(&attn / "v_proj"), dim, dim),
            out_proj: Linear::new(&(&attn / "out_proj"), dim, dim),
            layer_norm2: LayerNorm::new(&(path / "layer_norm2"), dim, config.eps),
            fc1: Linear::new(&(path / "mlp.fc1"), dim, inner),
            fc2: Linear::new(&(path / "mlp.fc2"), inner, dim),
            config: *config,
        }
    }

    /// `[B, S, D]` to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let normed = self.layer_norm1.forward(xs);
        let [query, key, value] = [&self.q_proj, &self.k_proj, &self.v_proj]
            .map(|proj| split_heads(&proj.forward(&normed), self.config.heads));
        let attended = scaled_dot_product(&query, &key, &value, self.config.is_causal);
        let xs = xs + self.out_proj.forward(&merge_heads(&attended));
        let normed = self.layer_norm2.forward(&xs);
        let inner = self.config.hidden_act.forward(&self.fc1.forward(&normed));
        xs + self.fc2.forward(&inner)
    }
}
