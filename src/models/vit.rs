//! The vision transformers of DINO (arXiv 2104.14294, `ViTModel` of transformers), DINOv2 (arXiv 2304.07193,
//! `Dinov2Model`) and DreamSim's single branch on DINO (arXiv 2306.09344). They differ in names, DINOv2 scales what
//! each half of a layer adds, and DreamSim takes the class token before the last norm.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use tch::Tensor;

use super::attention::{merge_heads, scaled_dot_product, split_heads};
use super::clip_vision_model::check_sizes;
use super::config::{LAYERS, WIDTHS, expect_fixed, expect_sizes};
use super::layers::{LayerNorm, Linear};
use super::patch_embedding::{PatchEmbedding, interpolated_positions};
use crate::error::model;
use crate::io::weights::WeightPath;

/// `config.json`. Sizes must be there; transformers writes them even where they are its defaults.
#[derive(Clone, Debug, Deserialize)]
pub struct VitConfig {
    /// `vit`, `dinov2` or `dreamsim`.
    pub model_type: VitKind,
    /// Width of a token.
    pub hidden_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of heads.
    pub num_attention_heads: i64,
    /// Inner width of the feed-forward part, in `vit` and `dreamsim`.
    pub intermediate_size: Option<i64>,
    /// The same over `hidden_size`, in `dinov2`.
    pub mlp_ratio: Option<i64>,
    /// Pixels of a side of the pictures that the position embeddings are for.
    pub image_size: i64,
    /// Pixels of a patch's side.
    pub patch_size: i64,
    /// Added to the variance in every norm.
    pub layer_norm_eps: f64,
    /// All other fields.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The three families.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum VitKind {
    /// `ViTModel`: DINO.
    Vit,
    /// `Dinov2Model`: DINOv2.
    Dinov2,
    /// As `vit`, without a last norm: DINO with DreamSim's LoRA merged, see `scripts/convert_encoder.py`.
    Dreamsim,
}

impl VitKind {
    /// As `config.json` spells it.
    pub fn name(self) -> &'static str {
        match self {
            VitKind::Vit => "vit",
            VitKind::Dinov2 => "dinov2",
            VitKind::Dreamsim => "dreamsim",
        }
    }
}

/// Fields that change the architecture, with the value that is computed here.
const FIXED: [(&str, &str); 5] = [
    ("hidden_act", "\"gelu\""),
    ("num_channels", "3"),
    ("qkv_bias", "true"),
    ("use_swiglu_ffn", "false"),
    ("num_register_tokens", "0"),
];

/// Attention and a feed-forward part, each behind its norm and around a residual.
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
        let (dim, eps) = (config.hidden_size, config.layer_norm_eps);
        let [norm1, norm2, fc1, fc2] = match config.model_type {
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
            let is_scaled = config.model_type == VitKind::Dinov2;
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
            heads: config.num_attention_heads,
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
    /// Reads the network. A saved pooling layer or mask token is no part of it, see
    /// [`VitModel::UNUSED`].
    ///
    /// # Errors
    /// When the config has a field that changes the architecture, or sizes that can not go together.
    pub fn new(path: &WeightPath, config: &VitConfig) -> Result<Self> {
        expect_fixed("config.json", &config.rest, &FIXED)?;
        let dim = config.hidden_size;
        check_sizes(
            dim,
            config.num_attention_heads,
            config.image_size,
            config.patch_size,
        )?;
        let inner = match (
            config.model_type,
            config.intermediate_size,
            config.mlp_ratio,
        ) {
            (VitKind::Vit | VitKind::Dreamsim, Some(inner), _) => inner,
            (VitKind::Dinov2, _, Some(ratio)) => ratio.saturating_mul(dim),
            (VitKind::Vit | VitKind::Dreamsim, None, _) => {
                return Err(model("config.json: no intermediate_size"));
            }
            (VitKind::Dinov2, _, None) => return Err(model("config.json: no mlp_ratio")),
        };
        let sizes = [
            ("num_hidden_layers", config.num_hidden_layers, LAYERS),
            ("width of the feed-forward part", inner, WIDTHS),
        ];
        expect_sizes("config.json", &sizes)?;
        let grid = config.image_size / config.patch_size;
        let (embeddings, layers) = (path / "embeddings", path / "encoder.layer");
        Ok(VitModel {
            cls_token: embeddings.tensor("cls_token", &[1, 1, dim]),
            position_embeddings: embeddings
                .tensor("position_embeddings", &[1, grid * grid + 1, dim]),
            patch_embeddings: PatchEmbedding::new(
                &(&embeddings / "patch_embeddings.projection"),
                dim,
                config.patch_size,
                true,
            ),
            layers: (0..config.num_hidden_layers)
                .map(|i| VitLayer::new(&(&layers / i), config, inner))
                .collect(),
            layernorm: (config.model_type != VitKind::Dreamsim)
                .then(|| LayerNorm::new(&(path / "layernorm"), dim, config.layer_norm_eps)),
            patch_size: config.patch_size,
        })
    }

    /// Tensors of checkpoints that no embedding needs.
    pub const UNUSED: [&str; 3] = [
        "pooler.dense.weight",
        "pooler.dense.bias",
        "embeddings.mask_token",
    ];

    /// The class token behind the last norm, where there is one, `[B, D]`, of prepared pictures `[B, 3, H, W]` of any size
    /// that is at least one patch: position embeddings are interpolated.
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
