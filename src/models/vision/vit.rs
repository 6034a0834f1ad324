//! The vision transformers of DINO (arXiv 2104.14294, `ViTModel` of transformers), DINOv2 (arXiv
//! 2304.07193, `Dinov2Model`) and DreamSim's single branch on DINO (arXiv 2306.09344). They use
//! different names. DINOv2 scales the output of each half of a layer, and DreamSim takes the class
//! token before the last norm.

use anyhow::Result;
use serde::Deserialize;
use serde_json::json;
use tch::Tensor;

use super::clip_vision_model::check_sizes;
use super::patch_embedding::{PatchEmbedding, interpolated_positions};
use crate::io::config_file::Field::{Harmless, Only, Read};
use crate::io::config_file::{self, Class, ConfigFile};
use crate::io::weights::WeightPath;
use crate::models::attention::{merge_heads, scaled_dot_product, split_heads};
use crate::models::config::{LAYERS, PRETRAINED, PRETRAINED_BEFORE_5, WIDTHS, expect_sizes};
use crate::models::layers::{LayerNorm, Linear};

/// `config.json` of one of the three kinds, with the defaults of transformers' class.
#[derive(Clone, Debug)]
pub struct VitConfig {
    kind: VitKind,
    fields: VitFields,
}

/// The fields of both classes, with the defaults of `ViTConfig`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VitFields {
    /// Width of a token.
    hidden_size: i64,
    /// Number of layers.
    num_hidden_layers: i64,
    /// Number of heads.
    num_attention_heads: i64,
    /// Inner width of the feed-forward part, in `vit` and `dreamsim`.
    intermediate_size: i64,
    /// Inner width over `hidden_size`, in `dinov2`.
    mlp_ratio: i64,
    /// Side in pixels of the pictures for which the position embeddings were made.
    image_size: i64,
    /// Pixels of a patch's side.
    patch_size: i64,
    /// Added to the variance in every norm.
    layer_norm_eps: f64,
}

impl Default for VitFields {
    fn default() -> Self {
        VitFields {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            mlp_ratio: 4,
            image_size: 224,
            patch_size: 16,
            layer_norm_eps: 1e-12,
        }
    }
}

/// The three families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VitKind {
    /// `ViTModel`: DINO.
    Vit,
    /// `Dinov2Model`: DINOv2.
    Dinov2,
    /// As `vit`, without the last norm: DINO with DreamSim's LoRA merged, see
    /// `scripts/convert_encoder.py`.
    Dreamsim,
}

impl VitKind {
    /// The name in `model_type` of `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            VitKind::Vit => "vit",
            VitKind::Dinov2 => "dinov2",
            VitKind::Dreamsim => "dreamsim",
        }
    }

    fn class(self) -> &'static Class {
        match self {
            VitKind::Vit | VitKind::Dreamsim => &VIT,
            VitKind::Dinov2 => &DINOV2,
        }
    }
}

/// Parameters of both classes.
const BOTH: &config_file::Fields = &[
    ("hidden_size", Read),
    ("num_hidden_layers", Read),
    ("num_attention_heads", Read),
    ("image_size", Read),
    ("patch_size", Read),
    ("layer_norm_eps", Read),
    ("hidden_act", Only(&["\"gelu\""])),
    ("num_channels", Only(&["3"])),
    ("qkv_bias", Only(&["true"])),
    ("hidden_dropout_prob", Harmless("only in training")),
    ("attention_probs_dropout_prob", Harmless("only in training")),
    ("initializer_range", Harmless("only before training")),
];

/// A key that is not a parameter.
const BESIDE: &config_file::Fields = &[("head_dim", Harmless("checked separately"))];

/// How each parameter of `ViTConfig` is treated.
pub const VIT: Class = Class {
    name: "ViTConfig",
    fields: &[
        PRETRAINED,
        BOTH,
        &[
            ("intermediate_size", Read),
            ("encoder_stride", Harmless("for another head")),
            (
                "pooler_output_size",
                Harmless("the class token is not pooled"),
            ),
            ("pooler_act", Harmless("the class token is not pooled")),
        ],
    ],
    besides: &[PRETRAINED_BEFORE_5, BESIDE],
};

/// How each parameter of `Dinov2Config` is treated.
pub const DINOV2: Class = Class {
    name: "Dinov2Config",
    fields: &[
        PRETRAINED,
        BOTH,
        &[
            ("mlp_ratio", Read),
            ("layerscale_value", Harmless("only before training")),
            ("drop_path_rate", Harmless("only in training")),
            ("use_swiglu_ffn", Only(&["false"])),
            ("_out_features", Harmless("for other heads")),
            ("_out_indices", Harmless("for other heads")),
            ("apply_layernorm", Harmless("for other heads")),
            ("reshape_hidden_states", Harmless("for other heads")),
            ("use_mask_token", Harmless("only in training")),
        ],
    ],
    besides: &[
        PRETRAINED_BEFORE_5,
        BESIDE,
        &[
            ("num_register_tokens", Only(&["0"])),
            ("out_features", Harmless("for other heads")),
            ("out_indices", Harmless("for other heads")),
            ("stage_names", Harmless("for other heads")),
        ],
    ],
};

impl VitConfig {
    /// Reads the file of a network of this kind.
    ///
    /// # Errors
    /// When the file is of another kind, or a field has an unsupported value.
    pub fn read(file: &ConfigFile, kind: VitKind) -> Result<Self> {
        if file.text("model_type") != Some(kind.name()) {
            return Err(file.wrong("model_type", kind.name()));
        }
        let mut file = file.clone();
        if kind == VitKind::Dinov2 {
            file.set_default("patch_size", json!(14));
            file.set_default("layer_norm_eps", json!(1e-6));
        }
        let fields: VitFields = file.read(kind.class())?;
        // transformers looks for this key although it is not a parameter.
        let width = fields.hidden_size.checked_div(fields.num_attention_heads);
        if let Some(head_dim) = file.get("head_dim")
            && head_dim.as_i64() != width
        {
            return Err(file.wrong("head_dim", "hidden_size over num_attention_heads"));
        }
        Ok(VitConfig { kind, fields })
    }

    /// Inner width of the feed-forward part.
    fn inner(&self) -> i64 {
        match self.kind {
            VitKind::Vit | VitKind::Dreamsim => self.fields.intermediate_size,
            VitKind::Dinov2 => self
                .fields
                .mlp_ratio
                .saturating_mul(self.fields.hidden_size),
        }
    }
}

/// Attention and a feed-forward part, each with a norm before it and a residual around it.
struct VitLayer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    lambda1: Option<Tensor>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    lambda2: Option<Tensor>,
    heads: i64,
}

impl VitLayer {
    fn new(path: &WeightPath, config: &VitConfig, inner: i64) -> Self {
        let (dim, eps) = (config.fields.hidden_size, config.fields.layer_norm_eps);
        let [norm1, norm2, fc1, fc2] = match config.kind {
            VitKind::Vit | VitKind::Dreamsim => [
                "layernorm_before",
                "layernorm_after",
                "intermediate.dense",
                "output.dense",
            ],
            VitKind::Dinov2 => ["norm1", "norm2", "mlp.fc1", "mlp.fc2"],
        };
        let attention = path / "attention.attention";
        let scale = |name: &str| {
            let is_scaled = config.kind == VitKind::Dinov2;
            is_scaled.then(|| (path / name).tensor("lambda1", &[dim]))
        };
        VitLayer {
            norm1: LayerNorm::new(&(path / norm1), dim, eps),
            query: Linear::new(&(&attention / "query"), dim, dim),
            key: Linear::new(&(&attention / "key"), dim, dim),
            value: Linear::new(&(&attention / "value"), dim, dim),
            output: Linear::new(&(path / "attention.output.dense"), dim, dim),
            lambda1: scale("layer_scale1"),
            norm2: LayerNorm::new(&(path / norm2), dim, eps),
            fc1: Linear::new(&(path / fc1), dim, inner),
            fc2: Linear::new(&(path / fc2), inner, dim),
            lambda2: scale("layer_scale2"),
            heads: config.fields.num_attention_heads,
        }
    }

    /// `[B, S, D]` to the same shape.
    fn forward(&self, xs: &Tensor) -> Tensor {
        let scaled = |added: Tensor, lambda: &Option<Tensor>| match lambda {
            Some(lambda) => added * lambda,
            None => added,
        };
        let normed = self.norm1.forward(xs);
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|proj| split_heads(&proj.forward(&normed), self.heads));
        let attended = merge_heads(&scaled_dot_product(&query, &key, &value, false));
        let xs = xs + scaled(self.output.forward(&attended), &self.lambda1);
        let inner = self.fc1.forward(&self.norm2.forward(&xs)).gelu("none");
        &xs + scaled(self.fc2.forward(&inner), &self.lambda2)
    }
}

/// A DINO, DINOv2 or DreamSim encoder.
pub struct VitModel {
    cls_token: Tensor,
    position_embeddings: Tensor,
    patch_embeddings: PatchEmbedding,
    layers: Vec<VitLayer>,
    layernorm: Option<LayerNorm>,
    patch_size: i64,
}

impl VitModel {
    /// Reads the network. A saved pooling layer or mask token is not read, see
    /// [`VitModel::UNUSED`].
    ///
    /// # Errors
    /// When the config has a field that changes the architecture, or sizes that do not fit
    /// together.
    pub fn new(path: &WeightPath, config: &VitConfig) -> Result<Self> {
        let fields = &config.fields;
        let (dim, patch_size, inner) = (fields.hidden_size, fields.patch_size, config.inner());
        check_sizes(
            dim,
            fields.num_attention_heads,
            fields.image_size,
            patch_size,
        )?;
        let sizes = [
            ("num_hidden_layers", fields.num_hidden_layers, LAYERS),
            ("width of the feed-forward part", inner, WIDTHS),
        ];
        expect_sizes("config.json", &sizes)?;
        let grid = fields.image_size / patch_size;
        let (embeddings, layers) = (path / "embeddings", path / "encoder.layer");
        Ok(VitModel {
            cls_token: embeddings.tensor("cls_token", &[1, 1, dim]),
            position_embeddings: embeddings
                .tensor("position_embeddings", &[1, grid * grid + 1, dim]),
            patch_embeddings: PatchEmbedding::new(
                &(&embeddings / "patch_embeddings.projection"),
                dim,
                patch_size,
                true,
            ),
            layers: (0..fields.num_hidden_layers)
                .map(|i| VitLayer::new(&(&layers / i), config, inner))
                .collect(),
            layernorm: (config.kind != VitKind::Dreamsim)
                .then(|| LayerNorm::new(&(path / "layernorm"), dim, config.fields.layer_norm_eps)),
            patch_size,
        })
    }

    /// Tensors of checkpoints that are not needed for embeddings.
    pub const UNUSED: [&str; 3] = [
        "pooler.dense.weight",
        "pooler.dense.bias",
        "embeddings.mask_token",
    ];

    /// The class token `[B, D]` of prepared pictures `[B, 3, H, W]`, after the last norm if there
    /// is one. Pictures may have any size of at least one patch: position embeddings are
    /// interpolated.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let (_, _, h, w) = pixel_values.size4().expect("pictures have four axes");
        let patches = self.patch_embeddings.forward(pixel_values); // [B, S, D]
        let (b, dim) = (patches.size()[0], patches.size()[2]);
        let class = self.cls_token.expand([b, 1, dim], false);
        let positions = interpolated_positions(
            &self.position_embeddings,
            h / self.patch_size,
            w / self.patch_size,
        );
        let mut states = Tensor::cat(&[class, patches], 1) + positions; // [B, 1 + S, D]
        for layer in &self.layers {
            states = layer.forward(&states);
        }
        let class = states.select(1, 0); // [B, D]
        match &self.layernorm {
            Some(norm) => norm.forward(&class),
            None => class,
        }
    }
}
