//! The transformer of SAM's mask decoder: tokens attend to the picture, and the picture attends to
//! the tokens.

use tch::Tensor;

use super::mask_decoder_config::SamMaskDecoderConfig;
use crate::io::weights::WeightPath;
use crate::models::attention::{merge_heads, scaled_dot_product, split_heads};
use crate::models::layers::{LayerNorm, Linear};

/// Outer width over inner width in the layers. The config's value is used for the final attention
/// alone, as in transformers.
const RATE_OF_LAYERS: i64 = 2;

/// Multi-head attention whose inner width may be smaller than the outer width.
struct SamAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

impl SamAttention {
    fn new(path: &WeightPath, config: &SamMaskDecoderConfig, downsample_rate: i64) -> Self {
        let dim = config.hidden_size;
        let inner = dim / downsample_rate;
        SamAttention {
            q_proj: Linear::new(&(path / "q_proj"), dim, inner),
            k_proj: Linear::new(&(path / "k_proj"), dim, inner),
            v_proj: Linear::new(&(path / "v_proj"), dim, inner),
            out_proj: Linear::new(&(path / "out_proj"), inner, dim),
            heads: config.num_attention_heads,
        }
    }

    /// `query [N, S, D]` attends to `key` and `value [N, S', D]`; the result has the shape of
    /// `query`.
    fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let query = split_heads(&self.q_proj.forward(query), self.heads); // [N, heads, S, d]
        let key = split_heads(&self.k_proj.forward(key), self.heads);
        let value = split_heads(&self.v_proj.forward(value), self.heads);
        let attended = scaled_dot_product(&query, &key, &value, false);
        self.out_proj.forward(&merge_heads(&attended))
    }
}

/// One layer: self-attention of tokens, tokens to picture, feed-forward, picture to tokens; each is
/// followed by its norm.
struct SamTwoWayAttentionBlock {
    self_attn: SamAttention,
    layer_norm1: LayerNorm,
    cross_attn_token_to_image: SamAttention,
    layer_norm2: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    layer_norm3: LayerNorm,
    layer_norm4: LayerNorm,
    cross_attn_image_to_token: SamAttention,
    is_first: bool,
}

impl SamTwoWayAttentionBlock {
    fn new(path: &WeightPath, config: &SamMaskDecoderConfig, is_first: bool) -> Self {
        let (dim, inner) = (config.hidden_size, config.mlp_dim);
        let norm = |name: &str| LayerNorm::new(&(path / name), dim, config.layer_norm_eps);
        let cross = |name: &str| SamAttention::new(&(path / name), config, RATE_OF_LAYERS);
        SamTwoWayAttentionBlock {
            self_attn: SamAttention::new(&(path / "self_attn"), config, 1),
            layer_norm1: norm("layer_norm1"),
            cross_attn_token_to_image: cross("cross_attn_token_to_image"),
            layer_norm2: norm("layer_norm2"),
            lin1: Linear::new(&(path / "mlp.lin1"), dim, inner),
            lin2: Linear::new(&(path / "mlp.lin2"), inner, dim),
            layer_norm3: norm("layer_norm3"),
            layer_norm4: norm("layer_norm4"),
            cross_attn_image_to_token: cross("cross_attn_image_to_token"),
            is_first,
        }
    }

    /// `queries [N, T, D]` and `keys [N, S, D]` to the same shapes. `tokens` and `positions` are
    /// added to the queries and keys of attention.
    fn forward(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        tokens: &Tensor,
        positions: &Tensor,
    ) -> (Tensor, Tensor) {
        // In the first layer the queries are the tokens themselves, and there is no residual.
        let queries = if self.is_first {
            self.self_attn.forward(queries, queries, queries)
        } else {
            let query = queries + tokens;
            queries + self.self_attn.forward(&query, &query, queries)
        };
        let queries = self.layer_norm1.forward(&queries);
        let key = keys + positions;
        let seen = &self.cross_attn_token_to_image;
        let queries = &queries + seen.forward(&(&queries + tokens), &key, keys);
        let queries = self.layer_norm2.forward(&queries);
        let inner = self.lin1.forward(&queries).relu();
        let queries = self
            .layer_norm3
            .forward(&(&queries + self.lin2.forward(&inner)));
        let answer = &self.cross_attn_image_to_token;
        let keys = keys + answer.forward(&key, &(&queries + tokens), &queries);
        (queries, self.layer_norm4.forward(&keys))
    }
}

/// All layers, and a final attention of the tokens to the picture.
pub struct SamTwoWayTransformer {
    layers: Vec<SamTwoWayAttentionBlock>,
    final_attn_token_to_image: SamAttention,
    layer_norm_final_attn: LayerNorm,
}

/// Added to the variance in the last norm, whatever the config says about the other norms.
const EPS_OF_FINAL_NORM: f64 = 1e-5;

impl SamTwoWayTransformer {
    /// Reads `layers`, `final_attn_token_to_image` and `layer_norm_final_attn`.
    pub fn new(path: &WeightPath, config: &SamMaskDecoderConfig) -> Self {
        let layers = path / "layers";
        SamTwoWayTransformer {
            layers: (0..config.num_hidden_layers)
                .map(|i| SamTwoWayAttentionBlock::new(&(&layers / i), config, i == 0))
                .collect(),
            final_attn_token_to_image: SamAttention::new(
                &(path / "final_attn_token_to_image"),
                config,
                config.attention_downsample_rate,
            ),
            layer_norm_final_attn: LayerNorm::new(
                &(path / "layer_norm_final_attn"),
                config.hidden_size,
                EPS_OF_FINAL_NORM,
            ),
        }
    }

    /// `tokens [N, T, D]` and the picture's `image [N, S, D]` with its `positions [1, S, D]`, to
    /// tokens and picture after each has attended to the other.
    pub fn forward(&self, tokens: &Tensor, image: Tensor, positions: &Tensor) -> (Tensor, Tensor) {
        let (mut queries, mut keys) = (tokens.shallow_clone(), image);
        for layer in &self.layers {
            (queries, keys) = layer.forward(&queries, &keys, tokens, positions);
        }
        let last = &self.final_attn_token_to_image;
        let seen = last.forward(&(&queries + tokens), &(&keys + positions), &keys);
        (self.layer_norm_final_attn.forward(&(queries + seen)), keys)
    }
}
