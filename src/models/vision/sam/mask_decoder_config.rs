//! Sizes of SAM's mask decoder.

use serde::Deserialize;

use crate::io::config_file::Class;
use crate::io::config_file::Field::{Only, Read};
use crate::models::config::{PRETRAINED, PRETRAINED_BEFORE_5};

/// `mask_decoder_config` of `config.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamMaskDecoderConfig {
    /// Width of a token.
    pub hidden_size: i64,
    /// Inner width of the feed-forward parts.
    pub mlp_dim: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of heads.
    pub num_attention_heads: i64,
    /// The width divided by the width of the last attention from tokens to picture.
    pub attention_downsample_rate: i64,
    /// Number of masks for a prompt.
    pub num_multimask_outputs: i64,
    /// Number of linear layers of the head that predicts the quality of a mask.
    pub iou_head_depth: i64,
    /// Inner width of that head.
    pub iou_head_hidden_dim: i64,
    /// Added to the variance in the norms of the layers.
    pub layer_norm_eps: f64,
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "SamMaskDecoderConfig",
    fields: &[
        PRETRAINED,
        &[
            ("hidden_size", Read),
            ("mlp_dim", Read),
            ("num_hidden_layers", Read),
            ("num_attention_heads", Read),
            ("attention_downsample_rate", Read),
            ("num_multimask_outputs", Read),
            ("iou_head_depth", Read),
            ("iou_head_hidden_dim", Read),
            ("layer_norm_eps", Read),
            ("hidden_act", Only(&["\"relu\""])),
        ],
    ],
    besides: &[PRETRAINED_BEFORE_5],
};

impl Default for SamMaskDecoderConfig {
    fn default() -> Self {
        SamMaskDecoderConfig {
            hidden_size: 256,
            mlp_dim: 2048,
            num_hidden_layers: 2,
            num_attention_heads: 8,
            attention_downsample_rate: 2,
            num_multimask_outputs: 3,
            iou_head_depth: 3,
            iou_head_hidden_dim: 256,
            layer_norm_eps: 1e-6,
        }
    }
}
