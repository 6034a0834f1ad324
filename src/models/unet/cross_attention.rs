//! The text as cross-attention reads it, and the optional inputs that change or record a pass's
//! attention. A mask says which tokens each position of the picture may attend to. A probe records
//! attention maps. Sharing lets images attend to each other. An input that is absent costs nothing.

use tch::Tensor;

use super::attention_probe::{AttentionMaps, AttentionProbe};
use super::ip_adapter::ImagePrompt;
use super::shared_attention::{AttentionSharing, LayerSharing, Queries};
use super::shared_rows::SharedRows;
use super::text_memory::{LayerId, TextMemory};
use super::token_mask::TokenMask;

/// The text of a pass, and everything that decides how the attention layers read it.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// The states of the text's tokens `[B, S, D]`.
    pub encoder_hidden_states: &'a Tensor,
    /// An image prompt, which is read beside the text.
    pub image: Option<&'a ImagePrompt>,
    /// Keys and values computed by earlier passes. `None` if the text is differentiated: then each
    /// pass computes its own.
    pub memory: Option<&'a TextMemory>,
    /// Rows that differ only in their text; `None`: every row is computed from the start.
    pub shared_rows: Option<&'a SharedRows>,
    /// Which tokens each position attends to; `None`: all tokens.
    pub mask: Option<&'a TokenMask>,
    /// Records attention maps of the pass, if present.
    pub probe: Option<&'a AttentionProbe>,
    /// How self-attention in the decoder is shared between images, if it is.
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

/// The changes to one pass's attention and the recordings of it; by default there are none. A
/// request is used up by its pass.
#[derive(Debug, Default)]
pub struct AttentionRequest {
    /// Which tokens each position attends to; `None`: all tokens.
    pub mask: Option<TokenMask>,
    /// The words whose attention maps the pass returns; `None`: no maps.
    pub probe: Option<AttentionProbe>,
    /// How self-attention in the decoder is shared between images; `None`: not at all.
    pub sharing: Option<AttentionSharing>,
}

/// What a pass returns about its attention.
#[derive(Debug)]
pub struct AttentionOutput {
    /// The maps recorded by the request's probe, see [`AttentionProbe::into_maps`]; `None` without
    /// a probe.
    pub maps: Option<Vec<AttentionMaps>>,
    /// The queries recorded by the request's sharing; empty if it records none.
    pub queries: Queries,
}

impl AttentionRequest {
    /// The recordings of the pass that was given this request.
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

/// A pass's text as the layers of one resolution read it.
pub struct LayerText<'a> {
    /// The text of the pass.
    pub text: Text<'a>,
    /// Which tokens a position attends to `[B, 1, HW, S]`, see `TokenMask::at`; `None`: every position
    /// attends to every token.
    pub mask: Option<Tensor>,
    /// How self-attention is shared between images; `None`: not at all.
    pub sharing: Option<LayerSharing<'a>>,
    height: i64,
    width: i64,
}

impl<'a> Text<'a> {
    /// The same text with the mask, probe and sharing of a request.
    pub fn attending(self, request: &'a AttentionRequest) -> Text<'a> {
        Text {
            mask: request.mask.as_ref(),
            probe: request.probe.as_ref(),
            sharing: request.sharing.as_ref(),
            ..self
        }
    }

    /// Selects from all rows `[B, ..]` the rows `[B', ..]` that are computed before a layer reads
    /// the text.
    pub fn rows_without_text(&self, rows: &Tensor) -> Tensor {
        self.shared_rows
            .map_or_else(|| rows.shallow_clone(), |shared| shared.one_of_each(rows))
    }

    /// Expands rows computed before the text was read to all rows `[B, ..]`.
    pub fn all_rows(&self, rows: &Tensor) -> Tensor {
        self.shared_rows
            .map_or_else(|| rows.shallow_clone(), |shared| shared.all(rows))
    }

    /// The text for layers with feature maps of this height and width.
    pub fn at(&self, height: i64, width: i64) -> LayerText<'a> {
        LayerText {
            text: *self,
            mask: self.mask.map(|mask| mask.at(height, width)),
            sharing: self.sharing.map(|sharing| sharing.at(height, width)),
            height,
            width,
        }
    }

    /// Keys and values of the text in a layer. `project` maps tokens `[.., S, D]` to keys and
    /// values `[.., S, D']`. `split` turns `[B, S, D']` into the form that the heads read. With a
    /// memory, results that the layer has computed before are reused.
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

    /// Keys and values of the image prompt, from `project` or from an earlier call.
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
    /// Passes queries and keys `[B, heads, HW or S, d]` of a layer, and its mask in the same format, to the
    /// probe, if there is one.
    pub fn record(&self, query: &Tensor, key: &Tensor, mask: Option<&Tensor>) {
        if let Some(probe) = self.text.probe {
            probe.record((self.height, self.width), query, key, mask);
        }
    }
}
