//! The text as cross-attention reads it, and what a pass changes or records of its attention: a mask
//! says which tokens answer which position of the picture, a probe records attention maps, and sharing
//! lets images attend to each other. Each is an optional input of the pass and costs nothing where it
//! is absent.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use super::ip_adapter::ImagePrompt;
use super::shared_attention::{AttentionSharing, LayerSharing, Queries};
use super::shared_rows::SharedRows;
use super::text_memory::{LayerId, TextMemory};
use super::token_mask::TokenMask;

/// The text that a pass reads, and all that decides how the attention layers read it.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// `[B, S, D]`.
    pub encoder_hidden_states: &'a Tensor,
    /// An image prompt, which is read beside the text.
    pub image: Option<&'a ImagePrompt>,
    /// Keys and values that earlier passes have computed. `None` where the text is differentiated:
    /// then each pass computes its own.
    pub memory: Option<&'a TextMemory>,
    /// Rows that differ in nothing but their text; `None`: every row is computed from the start.
    pub shared_rows: Option<&'a SharedRows>,
    /// Which tokens answer which position; `None`: every token answers every position.
    pub mask: Option<&'a TokenMask>,
    /// Records attention maps of the pass.
    pub probe: Option<&'a AttentionProbe>,
    /// What the decoder's self-attention shares between images.
    pub sharing: Option<&'a AttentionSharing>,
}

impl<'a> From<&'a Tensor> for Text<'a> {
    fn from(encoder_hidden_states: &'a Tensor) -> Self {
        Text {
            encoder_hidden_states,
            image: None,
            memory: None,
            shared_rows: None,
            mask: None,
            probe: None,
            sharing: None,
        }
    }
}

/// What one pass changes and records of attention; by default nothing. A pass consumes its request.
#[derive(Debug, Default)]
pub struct AttentionRequest {
    /// Which tokens answer which position; `None`: every token answers every position.
    pub mask: Option<TokenMask>,
    /// Whose attention maps the pass returns; `None`: no maps.
    pub probe: Option<AttentionProbe>,
    /// What the decoder's self-attention shares between images; `None`: nothing.
    pub sharing: Option<AttentionSharing>,
}

/// What a pass returns of its attention.
#[derive(Debug)]
pub struct AttentionOutput {
    /// The maps of the request's probe, see [`AttentionProbe::into_maps`]; `None` without a probe.
    pub maps: Option<Vec<Tensor>>,
    /// The queries that the request's sharing has kept; empty where it keeps none.
    pub queries: Queries,
}

impl AttentionRequest {
    /// What the pass that was given this request has recorded.
    pub fn into_output(self) -> AttentionOutput {
        AttentionOutput {
            maps: self.probe.map(AttentionProbe::into_maps),
            queries: self
                .sharing
                .map(AttentionSharing::into_queries)
                .unwrap_or_default(),
        }
    }
}

/// Records the attention maps of some tokens in some rows of one pass.
#[derive(Debug)]
pub struct AttentionProbe {
    first_row: i64,
    rows: i64,
    /// Places of the tokens `[T]`.
    tokens: Tensor,
    maps: RefCell<Vec<Tensor>>,
}

impl AttentionProbe {
    /// Records `rows` rows from `first_row` on, for the tokens at these places `[T]`.
    pub fn new(first_row: i64, rows: i64, tokens: &Tensor) -> Self {
        AttentionProbe {
            first_row,
            rows,
            tokens: tokens.shallow_clone(),
            maps: RefCell::default(),
        }
    }

    /// One tensor for each cross-attention layer, in the order of the pass: the part of every position's
    /// attention that went to each token, averaged over the heads `[rows, T, h, w]` f32.
    pub fn into_maps(self) -> Vec<Tensor> {
        self.maps.into_inner()
    }

    /// `softmax(q kᵀ / √d)` of queries and keys `[B, heads, HW or S, d]`.
    fn record(&self, layer: &LayerText, query: &Tensor, key: &Tensor) {
        let rows = |x: &Tensor| x.narrow(0, self.first_row, self.rows);
        let (query, key) = (
            rows(query).to_kind(Kind::Float),
            rows(key).to_kind(Kind::Float),
        );
        let scale = (query.size()[3] as f64).sqrt();
        let mut logits = query.matmul(&key.transpose(2, 3)) / scale; // [rows, heads, HW, S]
        if let Some(mask) = &layer.mask {
            logits = logits.masked_fill(&rows(mask).logical_not(), f64::NEG_INFINITY);
        }
        let maps = logits
            .softmax(-1, Kind::Float)
            .index_select(-1, &self.tokens)
            .mean_dim([1i64].as_slice(), false, Kind::Float) // [rows, HW, T]
            .transpose(1, 2)
            .reshape([self.rows, -1, layer.height, layer.width]);
        self.maps.borrow_mut().push(maps);
    }
}

/// A pass's text as the layers of one resolution read it.
pub struct LayerText<'a> {
    /// The text of the pass.
    pub text: Text<'a>,
    /// Whether a token answers a position `[B, 1, HW, S]`; `None`: every token answers every position.
    pub mask: Option<Tensor>,
    /// What self-attention shares between images; `None`: nothing.
    pub sharing: Option<LayerSharing<'a>>,
    height: i64,
    width: i64,
}

impl<'a> Text<'a> {
    /// The same text under the mask, probe and sharing of a request.
    pub fn attending(self, request: &'a AttentionRequest) -> Text<'a> {
        Text {
            mask: request.mask.as_ref(),
            probe: request.probe.as_ref(),
            sharing: request.sharing.as_ref(),
            ..self
        }
    }

    /// Of all rows `[B, ..]` those that pass until the first layer reads the text `[B', ..]`.
    pub fn rows_without_text(&self, rows: &Tensor) -> Tensor {
        self.shared_rows
            .map_or_else(|| rows.shallow_clone(), |shared| shared.one_of_each(rows))
    }

    /// All rows `[B, ..]`, of those that pass without text or of all.
    pub fn all_rows(&self, rows: &Tensor) -> Tensor {
        self.shared_rows
            .map_or_else(|| rows.shallow_clone(), |shared| shared.all(rows))
    }

    /// For layers of this height and width.
    pub fn at(&self, height: i64, width: i64) -> LayerText<'a> {
        LayerText {
            text: *self,
            mask: self.mask.map(|mask| mask.at(height, width)),
            sharing: self.sharing.map(|sharing| sharing.at(height, width)),
            height,
            width,
        }
    }

    /// Keys and values of the text in a layer: `project` makes `[.., S, D']` each of tokens `[.., S, D]`,
    /// and `split` what the heads read of `[B, S, D']`. The memory, where there is one, returns what the
    /// layer has computed before.
    pub fn keys_and_values(
        &self,
        layer: LayerId,
        project: impl FnOnce(&Tensor) -> [Tensor; 2],
        split: impl Fn(Tensor) -> Tensor,
    ) -> [Tensor; 2] {
        match self.memory {
            None => project(self.encoder_hidden_states).map(split),
            Some(memory) => memory.keys_and_values(layer, project, split),
        }
    }

    /// Keys and values of the image prompt: what `project` makes, or has made before.
    pub fn image_keys_and_values(
        &self,
        layer: LayerId,
        project: impl FnOnce() -> [Tensor; 2],
    ) -> [Tensor; 2] {
        match self.memory {
            None => project(),
            Some(memory) => memory.image_keys_and_values(layer, project),
        }
    }
}

impl LayerText<'_> {
    /// Shows queries and keys `[B, heads, HW or S, d]` of a layer to the probe, if there is one.
    pub fn record(&self, query: &Tensor, key: &Tensor) {
        if let Some(probe) = self.text.probe {
            probe.record(self, query, key);
        }
    }
}
