//! Transformer blocks over the positions of a feature map.

use tch::Tensor;

use super::cross_attention::Text;
use crate::io::weights::WeightPath;
use crate::models::attention::{AttentionConfig, BasicTransformerBlock};
use crate::models::layers::{Conv2d, GroupNorm, Linear, plus};

/// How channels become token width and back: newer checkpoints use linear layers, older ones 1×1
/// convolutions, around the same reshaping.
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn new(path: &WeightPath, channels: i64, linear: bool) -> Self {
        if linear {
            Projection::Linear(Linear::new(path, channels, channels))
        } else {
            Projection::Conv(Conv2d::new(path, channels, channels, 1))
        }
    }
}

/// Sizes of a [`Transformer2DModel`].
#[derive(Clone, Copy, Debug)]
pub struct Transformer2DConfig {
    /// The attention inside; its `query_dim` is the number of channels.
    pub attention: AttentionConfig,
    /// Number of transformer blocks.
    pub layers: i64,
    /// Groups of the first norm.
    pub norm_num_groups: i64,
    /// Whether linear layers, not 1×1 convolutions, are used.
    pub use_linear_projection: bool,
}

/// `Transformer2DModel` of diffusers, for feature maps.
pub struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2DModel {
    /// Reads the module at `path`.
    pub fn new(path: &WeightPath, config: &Transformer2DConfig) -> Self {
        let channels = config.attention.query_dim;
        let blocks = path / "transformer_blocks";
        Transformer2DModel {
            norm: GroupNorm::new(&(path / "norm"), config.norm_num_groups, channels, 1e-6),
            proj_in: Projection::new(&(path / "proj_in"), channels, config.use_linear_projection),
            transformer_blocks: (0..config.layers)
                .map(|i| BasicTransformerBlock::new(&(&blocks / i), &config.attention))
                .collect(),
            proj_out: Projection::new(&(path / "proj_out"), channels, config.use_linear_projection),
        }
    }

    /// `hidden_states [B, C, H, W]` with a text of `[B, S, D]`; rows as in
    /// [`BasicTransformerBlock`].
    pub fn forward(&self, hidden_states: &Tensor, text: &Text) -> Tensor {
        let (_, c, h, w) = hidden_states.size4().expect("feature maps have four axes");
        let to_tokens = |x: &Tensor| x.flatten(2, 3).transpose(1, 2).contiguous();
        let to_map = |x: &Tensor| x.transpose(1, 2).reshape([-1, c, h, w]);

        let mut tokens = {
            let normed = self.norm.forward(hidden_states);
            match &self.proj_in {
                Projection::Linear(linear) => linear.forward(&to_tokens(&normed)),
                Projection::Conv(conv) => to_tokens(&conv.forward(&normed)),
            }
        }; // [B, HW, C]
        let layer = text.at(h, w);
        for block in &self.transformer_blocks {
            tokens = block.forward(&tokens, &layer);
        }
        let out = match &self.proj_out {
            Projection::Linear(linear) => to_map(&linear.forward(&tokens)),
            Projection::Conv(conv) => conv.forward(&to_map(&tokens)),
        }; // [B, C, H, W]
        // Shared rows are still shared here if no block has read their text.
        plus(text.all_rows(&out), &text.all_rows(hidden_states))
    }
}
