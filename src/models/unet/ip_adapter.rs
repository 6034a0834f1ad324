//! The networks of IP-Adapter (arXiv 2308.06721): a picture becomes a few tokens. Every
//! cross-attention layer reads these tokens beside the text, with separate keys and values.

use std::collections::HashMap;
use std::rc::Rc;

use tch::Tensor;

use crate::io::weights::WeightPath;
use crate::models::layers::{LayerNorm, Linear};

/// Number of tokens for a picture. The file does not contain it; diffusers uses the same constant.
pub const TOKENS: i64 = 4;

/// `ImageProjection` of diffusers, `ImageProjModel` of the paper's authors: one linear layer and a norm.
pub struct ImageProjection {
    proj: Linear,
    norm: LayerNorm,
    cross_attention_dim: i64,
}

impl ImageProjection {
    /// Reads `proj` and `norm` at `path`.
    pub fn new(path: &WeightPath, image_embed_dim: i64, cross_attention_dim: i64) -> Self {
        ImageProjection {
            proj: Linear::new(
                &(path / "proj"),
                image_embed_dim,
                TOKENS * cross_attention_dim,
            ),
            norm: LayerNorm::new(&(path / "norm"), cross_attention_dim, 1e-5),
            cross_attention_dim,
        }
    }

    /// Image embeddings `[B, E]`, not of unit length, to tokens `[B, 4, D]`.
    pub fn forward(&self, image_embeds: &Tensor) -> Tensor {
        let tokens = self.proj.forward(image_embeds); // [B, 4 D]
        self.norm
            .forward(&tokens.view([-1, TOKENS, self.cross_attention_dim])) // [B, 4, D]
    }
}

/// `to_k_ip` and `to_v_ip` of every cross-attention layer of a U-Net.
#[derive(Debug)]
pub struct ImageAttention {
    /// The two layers, by the path of the attention layer in the U-Net.
    layers: HashMap<String, [Linear; 2]>,
}

impl ImageAttention {
    /// Reads the projections for `layers`, which are paths in the U-Net with the widths inside the
    /// layers, in the order of diffusers' `attn_processors`. The file's numbering includes
    /// self-attention layers, which have no tensors in the file, so the numbers are 1, 3, 5, …
    pub fn new(path: &WeightPath, layers: &[(String, i64)], cross_attention_dim: i64) -> Self {
        let layer = |(place, (name, width)): (usize, &(String, i64))| {
            let path = path / (2 * place + 1);
            let projections = ["to_k_ip", "to_v_ip"].map(|projection| {
                Linear::without_bias(&(&path / projection), cross_attention_dim, *width)
            });
            (name.clone(), projections)
        };
        ImageAttention {
            layers: layers.iter().enumerate().map(layer).collect(),
        }
    }
}

/// A picture that is read beside the prompt of every row.
#[derive(Debug)]
pub struct ImagePrompt {
    /// The picture's tokens `[R, 4, D]`.
    pub tokens: Tensor,
    /// The layers that read the tokens.
    pub attention: Rc<ImageAttention>,
    /// λ, the weight of the attention to the picture.
    pub scale: f64,
}

impl ImagePrompt {
    /// The same image prompt with its tokens changed by `map`.
    pub fn map(&self, map: impl FnOnce(&Tensor) -> Tensor) -> ImagePrompt {
        ImagePrompt {
            tokens: map(&self.tokens),
            attention: Rc::clone(&self.attention),
            scale: self.scale,
        }
    }

    /// Keys and values `[R, 4, heads * d]` for the layer at this path of the U-Net.
    pub(in crate::models) fn keys_and_values(&self, layer: &str) -> [Tensor; 2] {
        let projections = self.attention.layers.get(layer);
        let projections = projections.expect("a pair was read for every cross-attention layer");
        projections
            .each_ref()
            .map(|projection| projection.forward(&self.tokens))
    }
}
