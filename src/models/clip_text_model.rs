//! The CLIP text encoder (arXiv 2103.00020): `CLIPTextModel` and `CLIPTextModelWithProjection` of
//! transformers.

use anyhow::Result;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::clip_layer::{CLIP_LAYERS, ClipLayer, ClipLayerConfig, HiddenAct};
use super::config::{LAYERS, PRETRAINED, PRETRAINED_BEFORE_5, WIDTHS, expect_sizes};
use super::layers::{LayerNorm, Linear};
use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::config_file::{Class, ConfigFile, Fields};
use crate::io::weights::WeightPath;

/// `text_encoder/config.json`, with the defaults of transformers' `CLIPTextConfig`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipTextConfig {
    /// Class names; `CLIPTextModelWithProjection` has one more layer.
    architectures: Option<Vec<String>>,
    /// Width of a token.
    pub hidden_size: i64,
    /// Inner width of the feed-forward part.
    pub intermediate_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of heads.
    pub num_attention_heads: i64,
    /// `quick_gelu` or `gelu` (the exact one).
    pub hidden_act: HiddenAct,
    /// Added to the variance in every norm.
    pub layer_norm_eps: f64,
    /// Number of positions.
    pub max_position_embeddings: i64,
    /// Number of tokens in the vocabulary.
    pub vocab_size: i64,
    /// Width of the projected, pooled embedding.
    pub projection_dim: i64,
    /// The token whose position is pooled. 2 is an old placeholder, see [`ClipTextModel::forward`].
    pub eos_token_id: i64,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        ClipTextConfig {
            architectures: None,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            max_position_embeddings: 77,
            vocab_size: 49408,
            projection_dim: 512,
            eos_token_id: 49407,
        }
    }
}

/// Keys of older files, and a key that transformers looks for although it is not a parameter.
const BEFORE_5: &Fields = &[
    ("dropout", Harmless("only in training")),
    // With another value every token would also attend to later tokens.
    ("is_causal", Only(&["true"])),
];

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "CLIPTextConfig",
    fields: &[
        CLIP_LAYERS,
        &[
            ("architectures", ReadOrNull),
            ("projection_dim", Read),
            ("max_position_embeddings", Read),
            ("vocab_size", Read),
            ("eos_token_id", Read),
            ("bos_token_id", Harmless("the tokenizer writes the start")),
            ("pad_token_id", Harmless("the tokenizer pads")),
        ],
        PRETRAINED,
    ],
    besides: &[PRETRAINED_BEFORE_5, BEFORE_5],
};

impl ClipTextConfig {
    /// Width of the pooled embedding.
    pub fn pooled_width(&self) -> i64 {
        if self.has_projection() {
            self.projection_dim
        } else {
            self.hidden_size
        }
    }

    /// Reads and checks the file of a separate text encoder.
    ///
    /// # Errors
    /// When the file is of another class, a size is outside the range of any text encoder, or a
    /// field has an unsupported value.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let config: Self = file.read(&CLASS)?;
        if !config.has_projection() && !config.is_a("CLIPTextModel") {
            let expected = "CLIPTextModel or CLIPTextModelWithProjection";
            return Err(file.wrong("architectures", expected));
        }
        config.check_sizes()?;
        Ok(config)
    }

    /// Reads and checks the text half of a complete CLIP, which projects to `projection_dim`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_half(file: &ConfigFile, projection_dim: i64) -> Result<Self> {
        let mut config: Self = file.read(&CLASS)?;
        config.architectures = Some(vec!["CLIPTextModelWithProjection".to_owned()]);
        config.projection_dim = projection_dim;
        config.check_sizes()?;
        Ok(config)
    }

    fn is_a(&self, name: &str) -> bool {
        let mut classes = self.architectures.iter().flatten();
        classes.any(|class| class == name)
    }

    fn has_projection(&self) -> bool {
        self.is_a("CLIPTextModelWithProjection")
    }

    /// Refuses sizes outside the range of any text encoder, and sizes on which libtorch would fail.
    fn check_sizes(&self) -> Result<()> {
        let file = "config.json of a text encoder";
        expect_sizes(
            file,
            &[
                ("hidden_size", self.hidden_size, WIDTHS),
                ("intermediate_size", self.intermediate_size, WIDTHS),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS),
                ("num_attention_heads", self.num_attention_heads, WIDTHS),
                (
                    "max_position_embeddings",
                    self.max_position_embeddings,
                    WIDTHS,
                ),
                ("vocab_size", self.vocab_size, 1..=1 << 24),
                ("projection_dim", self.projection_dim, WIDTHS),
            ],
        )?;
        match self.hidden_size % self.num_attention_heads {
            0 => Ok(()),
            _ => Err(model(format!(
                "{file}: hidden_size: found {}, expected a multiple of num_attention_heads, which is {}",
                self.hidden_size, self.num_attention_heads
            ))),
        }
    }
}

/// The outputs of the text encoder.
pub struct ClipTextOutput {
    /// The embeddings, then the output of every layer without the final norm: `num_hidden_layers +
    /// 1` tensors `[B, S, D]`. SDXL uses the last but one.
    pub hidden_states: Vec<Tensor>,
    /// The last layer's output after the final norm `[B, S, D]`, which SD 1.5 and 2.1 use.
    pub last_hidden_state: Tensor,
    /// The final state at the end-of-text token `[B, D]`, or `[B, projection_dim]` if the model has
    /// a projection.
    pub pooled: Tensor,
}

/// A CLIP text encoder.
pub struct ClipTextModel {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: i64,
}

impl ClipTextModel {
    /// Reads the network. Newer files omit the leading `text_model`.
    pub fn new(path: &WeightPath, config: &ClipTextConfig) -> Self {
        let with_projection = config.has_projection();
        let text_model = if path.contains("embeddings.token_embedding.weight") {
            path.clone()
        } else {
            path / "text_model"
        };
        let dim = config.hidden_size;
        let (embeddings, layers) = (&text_model / "embeddings", &text_model / "encoder.layers");
        let layer = ClipLayerConfig {
            dim,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
            eps: config.layer_norm_eps,
            is_causal: true,
        };
        ClipTextModel {
            token_embedding: (&embeddings / "token_embedding")
                .tensor("weight", &[config.vocab_size, dim]),
            position_embedding: (&embeddings / "position_embedding")
                .tensor("weight", &[config.max_position_embeddings, dim]),
            layers: (0..config.num_hidden_layers)
                .map(|i| ClipLayer::new(&(&layers / i), &layer))
                .collect(),
            final_layer_norm: LayerNorm::new(
                &(&text_model / "final_layer_norm"),
                dim,
                config.layer_norm_eps,
            ),
            text_projection: with_projection.then(|| {
                Linear::without_bias(&(path / "text_projection"), dim, config.projection_dim)
            }),
            eos_token_id: config.eos_token_id,
        }
    }

    /// Encodes `input_ids [B, S]`.
    pub fn forward(&self, input_ids: &Tensor) -> ClipTextOutput {
        self.forward_embeddings(input_ids, self.token_embeddings(input_ids))
    }

    /// The embedding of each token, without its position: `input_ids [B, S]` to `[B, S, D]`.
    pub fn token_embeddings(&self, input_ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.token_embedding, input_ids, -1, false, false)
    }

    /// As [`forward`](Self::forward), with given embeddings `tokens [B, S, D]`, which may differ
    /// from those of the ids. Differentiable with respect to `tokens`.
    ///
    /// The pooled position is that of the first end-of-text token. Configs of older checkpoints
    /// give its id as 2, which is the end-of-text token of no vocabulary; then the largest id is
    /// used, as in transformers.
    pub fn forward_embeddings(&self, input_ids: &Tensor, tokens: Tensor) -> ClipTextOutput {
        let s = input_ids.size()[1];
        let mut hidden_states = vec![tokens + self.position_embedding.narrow(0, 0, s)]; // [B, S, D]
        for layer in &self.layers {
            let next = layer.forward(hidden_states.last().expect("begins with the embeddings"));
            hidden_states.push(next);
        }
        let last = hidden_states.last().expect("begins with the embeddings");
        let last_hidden_state = self.final_layer_norm.forward(last);

        let is_eos = match self.eos_token_id {
            2 => input_ids.shallow_clone(),
            id => input_ids.eq(id).to_kind(Kind::Int64),
        };
        let place = is_eos.argmax(-1, false).view([-1, 1, 1]);
        let place = place.expand([-1, 1, last_hidden_state.size()[2]], false);
        let pooled = last_hidden_state.gather(1, &place, false).squeeze_dim(1); // [B, D]
        let pooled = match &self.text_projection {
            Some(projection) => projection.forward(&pooled),
            None => pooled,
        };
        ClipTextOutput {
            hidden_states,
            last_hidden_state,
            pooled,
        }
    }
}
