//! SAM's picture encoder: a plain ViT, most of whose layers attend inside windows only (arXiv
//! 2203.16527).

use serde::Deserialize;
use tch::Tensor;

use super::vision_attention::SamVisionAttention;
use crate::io::config_file::Class;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::weights::WeightPath;
use crate::models::config::{PRETRAINED, PRETRAINED_BEFORE_5};
use crate::models::layers::{LayerNorm, Linear};

/// `vision_config` of `config.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamVisionConfig {
    /// Width of a token.
    pub hidden_size: i64,
    /// Channels of the output.
    pub output_channels: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of heads.
    pub num_attention_heads: i64,
    /// Pixels of a picture's side.
    pub image_size: i64,
    /// Pixels of a patch's side.
    pub patch_size: i64,
    /// Added to the variance in the norms of the layers.
    pub layer_norm_eps: f64,
    /// Inner width of the feed-forward part.
    pub mlp_dim: Option<i64>,
    /// Inner width over `hidden_size`, used if `mlp_dim` is absent.
    pub mlp_ratio: f64,
    /// Patches of a window's side.
    pub window_size: i64,
    /// Layers that attend to the whole picture, counted from 0.
    pub global_attn_indexes: Vec<i64>,
    /// Half the width of a position embedding.
    pub num_pos_feats: i64,
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "SamVisionConfig",
    fields: &[
        PRETRAINED,
        &[
            ("hidden_size", Read),
            ("output_channels", Read),
            ("num_hidden_layers", Read),
            ("num_attention_heads", Read),
            ("image_size", Read),
            ("patch_size", Read),
            ("layer_norm_eps", Read),
            ("mlp_dim", ReadOrNull),
            ("mlp_ratio", Read),
            ("window_size", Read),
            ("global_attn_indexes", Read),
            ("num_pos_feats", Read),
            ("hidden_act", Only(&["\"gelu\""])),
            ("num_channels", Only(&["3"])),
            ("qkv_bias", Only(&["true"])),
            ("use_abs_pos", Only(&["true"])),
            ("use_rel_pos", Only(&["true"])),
            ("attention_dropout", Harmless("only in training")),
            ("initializer_range", Harmless("only before training")),
        ],
    ],
    besides: &[PRETRAINED_BEFORE_5],
};

impl Default for SamVisionConfig {
    fn default() -> Self {
        SamVisionConfig {
            hidden_size: 768,
            output_channels: 256,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 1024,
            patch_size: 16,
            layer_norm_eps: 1e-6,
            mlp_dim: None,
            mlp_ratio: 4.0,
            window_size: 14,
            global_attn_indexes: vec![2, 5, 8, 11],
            num_pos_feats: 128,
        }
    }
}

impl SamVisionConfig {
    /// Patches along a side of the picture.
    pub fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Inner width of the feed-forward part.
    pub fn inner(&self) -> i64 {
        let by_ratio = (self.hidden_size as f64 * self.mlp_ratio) as i64;
        self.mlp_dim.unwrap_or(by_ratio)
    }
}

/// Added to the variance in the neck's norms, whatever the config says about the layers' norms.
const EPS_OF_NECK: f64 = 1e-6;

/// Attention and a feed-forward part, each with a norm before it and a residual around it.
struct SamVisionLayer {
    layer_norm1: LayerNorm,
    attn: SamVisionAttention,
    layer_norm2: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    /// Patches of a window's side; `None` if all patches attend to each other.
    window: Option<i64>,
}

impl SamVisionLayer {
    fn new(path: &WeightPath, config: &SamVisionConfig, window: Option<i64>) -> Self {
        let (dim, eps) = (config.hidden_size, config.layer_norm_eps);
        let side = window.unwrap_or(config.grid());
        SamVisionLayer {
            layer_norm1: LayerNorm::new(&(path / "layer_norm1"), dim, eps),
            attn: SamVisionAttention::new(&(path / "attn"), dim, config.num_attention_heads, side),
            layer_norm2: LayerNorm::new(&(path / "layer_norm2"), dim, eps),
            lin1: Linear::new(&(path / "mlp.lin1"), dim, config.inner()),
            lin2: Linear::new(&(path / "mlp.lin2"), config.inner(), dim),
            window,
        }
    }

    /// `[B, H, W, D]` to the same shape.
    fn forward(&self, xs: &Tensor) -> Tensor {
        let (_, height, width, _) = xs.size4().expect("patches have four axes");
        let normed = self.layer_norm1.forward(xs);
        let attended = match self.window {
            None => self.attn.forward(&normed),
            Some(side) => {
                let windows = self.attn.forward(&partition(&normed, side));
                unpartition(&windows, side, height, width)
            }
        };
        let xs = xs + attended;
        let inner = self
            .lin1
            .forward(&self.layer_norm2.forward(&xs))
            .gelu("none");
        &xs + self.lin2.forward(&inner)
    }
}

/// Cuts `[B, H, W, D]` into windows `[B · windows, side, side, D]`. Incomplete windows are filled
/// with zeros below and on the right.
fn partition(xs: &Tensor, side: i64) -> Tensor {
    let (b, height, width, dim) = xs.size4().expect("patches have four axes");
    let (rows, columns) = (windows(height, side), windows(width, side));
    let padding = [0, 0, 0, columns * side - width, 0, rows * side - height];
    let xs = xs.constant_pad_nd(padding);
    let xs = xs.view([b, rows, side, columns, side, dim]);
    let xs = xs.permute([0, 1, 3, 2, 4, 5]); // [B, rows, columns, side, side, D]
    xs.reshape([-1, side, side, dim])
}

/// The inverse of [`partition`].
fn unpartition(xs: &Tensor, side: i64, height: i64, width: i64) -> Tensor {
    let dim = xs.size()[3];
    let (rows, columns) = (windows(height, side), windows(width, side));
    let xs = xs.view([-1, rows, columns, side, side, dim]);
    let xs = xs.permute([0, 1, 3, 2, 4, 5]); // [B, rows, side, columns, side, D]
    let xs = xs.reshape([-1, rows * side, columns * side, dim]);
    xs.narrow(1, 0, height).narrow(2, 0, width)
}

fn windows(patches: i64, side: i64) -> i64 {
    (patches + side - 1) / side
}

/// The picture encoder.
pub struct SamVisionEncoder {
    projection_weight: Tensor,
    projection_bias: Tensor,
    pos_embed: Tensor,
    layers: Vec<SamVisionLayer>,
    neck_conv1: Tensor,
    neck_layer_norm1: LayerNorm,
    neck_conv2: Tensor,
    neck_layer_norm2: LayerNorm,
    patch_size: i64,
}

impl SamVisionEncoder {
    /// Reads `patch_embed`, `pos_embed`, `layers` and `neck`.
    pub fn new(path: &WeightPath, config: &SamVisionConfig) -> Self {
        let (dim, out) = (config.hidden_size, config.output_channels);
        let (patch, grid) = (config.patch_size, config.grid());
        let projection = path / "patch_embed.projection";
        let (layers, neck) = (path / "layers", path / "neck");
        let window = |i| (!config.global_attn_indexes.contains(&i)).then_some(config.window_size);
        SamVisionEncoder {
            projection_weight: projection.tensor("weight", &[dim, 3, patch, patch]),
            projection_bias: projection.tensor("bias", &[dim]),
            pos_embed: path.tensor("pos_embed", &[1, grid, grid, dim]),
            layers: (0..config.num_hidden_layers)
                .map(|i| SamVisionLayer::new(&(&layers / i), config, window(i)))
                .collect(),
            neck_conv1: (&neck / "conv1").tensor("weight", &[out, dim, 1, 1]),
            neck_layer_norm1: LayerNorm::new(&(&neck / "layer_norm1"), out, EPS_OF_NECK),
            neck_conv2: (&neck / "conv2").tensor("weight", &[out, out, 3, 3]),
            neck_layer_norm2: LayerNorm::new(&(&neck / "layer_norm2"), out, EPS_OF_NECK),
            patch_size: patch,
        }
    }

    /// `[B, 3, H, W]` to `[B, output_channels, H / patch_size, W / patch_size]`.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let bias = Some(&self.projection_bias);
        let stride = [self.patch_size; 2];
        let patches = pixel_values.conv2d(&self.projection_weight, bias, stride, [0, 0], [1, 1], 1);
        let mut states = patches.permute([0, 2, 3, 1]) + &self.pos_embed; // [B, H', W', D]
        for layer in &self.layers {
            states = layer.forward(&states);
        }
        let conv = |xs: &Tensor, weight: &Tensor, padding: i64| {
            xs.conv2d(weight, None::<&Tensor>, [1, 1], [padding; 2], [1, 1], 1)
        };
        let states = states.permute([0, 3, 1, 2]); // [B, D, H', W']
        let states = conv(&states, &self.neck_conv1, 0); // [B, output_channels, H', W']
        let states = self.neck_layer_norm1.forward_channels(&states);
        let states = conv(&states, &self.neck_conv2, 1);
        self.neck_layer_norm2.forward_channels(&states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn windows_are_put_back_where_they_were_cut_out() {
        let xs = Tensor::arange(2 * 5 * 7 * 3, (Kind::Float, Device::Cpu)).view([2, 5, 7, 3]);
        let cut = partition(&xs, 3);
        assert_eq!(cut.size(), [2 * 2 * 3, 3, 3, 3]);
        // The second window begins in the fourth column; the last window holds two rows and one
        // column.
        assert_eq!(cut.get(1).get(0).get(0), xs.get(0).get(0).get(3));
        assert_eq!(
            cut.get(11).sum(Kind::Float),
            xs.get(1).narrow(0, 3, 2).narrow(1, 6, 1).sum(Kind::Float)
        );
        assert_eq!(unpartition(&cut, 3, 5, 7), xs);
    }
}
