//! The CLIP vision encoder (arXiv 2103.00020): `CLIPVisionModelWithProjection` of transformers.

use anyhow::Result;
use serde::Deserialize;
use tch::Tensor;

use super::image_processor::LARGEST;
use super::patch_embedding::PatchEmbedding;
use crate::error::model;
use crate::io::config_file::Class;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::weights::WeightPath;
use crate::models::clip_layer::{CLIP_LAYERS, ClipLayer, ClipLayerConfig, HiddenAct};
use crate::models::config::{LAYERS, PRETRAINED, PRETRAINED_BEFORE_5, WIDTHS, expect_sizes};
use crate::models::layers::{LayerNorm, Linear};

/// `vision_config` in `config.json`. Missing fields have the defaults of transformers'
/// `CLIPVisionConfig`, which does not write default values.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipVisionConfig {
    /// Class names, for a separate vision half.
    pub(super) architectures: Option<Vec<String>>,
    /// Width of an embedding, for a separate vision half; a whole CLIP has its own field.
    pub(super) projection_dim: i64,
    /// Width of a token.
    pub hidden_size: i64,
    /// Inner width of the feed-forward part.
    pub intermediate_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of heads.
    pub num_attention_heads: i64,
    /// Pixels of a picture's side.
    pub image_size: i64,
    /// Pixels of a patch's side.
    pub patch_size: i64,
    /// `quick_gelu` or `gelu` (the exact one).
    pub hidden_act: HiddenAct,
    /// Added to the variance in every norm.
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        ClipVisionConfig {
            architectures: None,
            projection_dim: 512,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "CLIPVisionConfig",
    fields: &[
        CLIP_LAYERS,
        &[
            ("architectures", ReadOrNull),
            ("projection_dim", Read),
            ("image_size", Read),
            ("patch_size", Read),
            ("num_channels", Only(&["3"])),
        ],
        PRETRAINED,
    ],
    besides: &[
        PRETRAINED_BEFORE_5,
        &[("dropout", Harmless("only in training"))],
    ],
};

/// A CLIP vision encoder with its projection.
pub struct ClipVisionModel {
    class_embedding: Tensor,
    patch_embedding: PatchEmbedding,
    position_embedding: Tensor,
    pre_layrnorm: LayerNorm,
    layers: Vec<ClipLayer>,
    post_layernorm: LayerNorm,
    visual_projection: Linear,
    image_size: i64,
}

impl ClipVisionModel {
    /// Reads `vision_model` and `visual_projection`, which maps to `projection_dim`.
    ///
    /// # Errors
    /// When sizes in the config do not fit together.
    pub fn new(path: &WeightPath, config: &ClipVisionConfig, projection_dim: i64) -> Result<Self> {
        let (dim, eps) = (config.hidden_size, config.layer_norm_eps);
        check_sizes(
            dim,
            config.num_attention_heads,
            config.image_size,
            config.patch_size,
        )?;
        expect_sizes(
            "config.json",
            &[
                ("intermediate_size", config.intermediate_size, WIDTHS),
                ("num_hidden_layers", config.num_hidden_layers, LAYERS),
                ("projection_dim", projection_dim, WIDTHS),
            ],
        )?;
        let vision_model = path / "vision_model";
        let (embeddings, layers) = (
            &vision_model / "embeddings",
            &vision_model / "encoder.layers",
        );
        let grid = config.image_size / config.patch_size;
        let layer = ClipLayerConfig {
            dim,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
            eps,
            is_causal: false,
        };
        Ok(ClipVisionModel {
            class_embedding: embeddings.tensor("class_embedding", &[dim]),
            patch_embedding: PatchEmbedding::new(
                &(&embeddings / "patch_embedding"),
                dim,
                config.patch_size,
                false,
            ),
            position_embedding: (&embeddings / "position_embedding")
                .tensor("weight", &[grid * grid + 1, dim]),
            // The misspelling is the checkpoints' own.
            pre_layrnorm: LayerNorm::new(&(&vision_model / "pre_layrnorm"), dim, eps),
            layers: (0..config.num_hidden_layers)
                .map(|i| ClipLayer::new(&(&layers / i), &layer))
                .collect(),
            post_layernorm: LayerNorm::new(&(&vision_model / "post_layernorm"), dim, eps),
            visual_projection: Linear::without_bias(
                &(path / "visual_projection"),
                dim,
                projection_dim,
            ),
            image_size: config.image_size,
        })
    }

    /// The side in pixels of the pictures that the network reads.
    pub fn image_size(&self) -> i64 {
        self.image_size
    }

    /// Image embeddings `[B, projection_dim]` of prepared pictures `[B, 3, image_size,
    /// image_size]`: the class token of the last layer, normalised and projected; the length is not
    /// normalised.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let patches = self.patch_embedding.forward(pixel_values); // [B, S, D]
        let (b, dim) = (patches.size()[0], patches.size()[2]);
        let class = self.class_embedding.expand([b, 1, dim], false);
        let tokens = Tensor::cat(&[class, patches], 1) + &self.position_embedding; // [B, 1 + S, D]
        let mut states = self.pre_layrnorm.forward(&tokens);
        for layer in &self.layers {
            states = layer.forward(&states);
        }
        let pooled = self.post_layernorm.forward(&states.select(1, 0)); // [B, D]
        self.visual_projection.forward(&pooled)
    }
}

/// Refuses sizes on which libtorch would fail.
///
/// # Errors
/// When heads do not divide the width, a patch does not divide the picture, or a size is out of
/// range.
pub fn check_sizes(dim: i64, heads: i64, image_size: i64, patch_size: i64) -> Result<()> {
    let sizes = [
        ("hidden_size", dim, WIDTHS),
        ("image_size", image_size, 1..=i64::from(LARGEST)),
    ];
    expect_sizes("config.json", &sizes)?;
    for (what, value, part, of) in [
        ("hidden_size", dim, "num_attention_heads", heads),
        ("image_size", image_size, "patch_size", patch_size),
    ] {
        if value < 1 || of < 1 || value % of != 0 {
            return Err(model(format!(
                "config.json: found {what} {value} and {part} {of}, expected a multiple"
            )));
        }
    }
    Ok(())
}
