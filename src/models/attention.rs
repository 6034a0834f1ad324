//! Attention and the transformer block of the U-Net.

use tch::{Kind, Tensor};

use super::layers::{LayerNorm, Linear, plus, times};
use crate::io::weights::WeightPath;
use crate::models::unet::cross_attention::LayerText;
use crate::models::unet::shared_attention::LayerSharing;
use crate::models::unet::text_memory::LayerId;

/// Sizes of one attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Width of the query tokens.
    pub query_dim: i64,
    /// Width of the key and value tokens; equal to `query_dim` in self-attention.
    pub cross_attention_dim: i64,
    /// Number of heads.
    pub heads: i64,
    /// Width of one head.
    pub dim_head: i64,
    /// Whether the products run in f32 whatever the precision of the weights is.
    pub upcast: bool,
}

/// Multi-head attention: `softmax(q kᵀ / √d) v` (arXiv 1706.03762).
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    /// In self-attention on a GPU: the three layers as one.
    to_qkv: Option<Linear>,
    to_out: Linear,
    heads: i64,
    upcast: bool,
    id: LayerId,
    /// The layer's path in the network, which identifies it to an image prompt.
    name: String,
}

impl Attention {
    /// Reads `to_q`, `to_k`, `to_v` (no bias) and `to_out.0`.
    pub fn new(path: &WeightPath, config: &AttentionConfig) -> Self {
        let inner = config.heads * config.dim_head;
        Attention {
            to_q: Linear::without_bias(&(path / "to_q"), config.query_dim, inner),
            to_k: Linear::without_bias(&(path / "to_k"), config.cross_attention_dim, inner),
            to_v: Linear::without_bias(&(path / "to_v"), config.cross_attention_dim, inner),
            to_qkv: None,
            to_out: Linear::new(&(path / "to_out" / 0), inner, config.query_dim),
            heads: config.heads,
            upcast: config.upcast,
            id: LayerId::unique(),
            name: path.name().to_owned(),
        }
    }

    /// The same for self-attention.
    pub fn of_itself(path: &WeightPath, config: &AttentionConfig) -> Self {
        let mut attention = Attention::new(path, config);
        let Attention {
            to_q, to_k, to_v, ..
        } = &mut attention;
        attention.to_qkv = Linear::joined(&mut [to_q, to_k, to_v]);
        attention
    }

    /// `hidden_states [B, S, query_dim]` attend to themselves. The result has the same shape.
    pub fn forward(&self, hidden_states: &Tensor) -> Tensor {
        let qkv = match &self.to_qkv {
            Some(to_qkv) => to_qkv.forward(hidden_states).chunk(3, -1),
            None => [&self.to_q, &self.to_k, &self.to_v]
                .map(|proj| proj.forward(hidden_states))
                .into(),
        };
        let mut qkv = qkv.into_iter().map(|x| self.split(x)); // [B, heads, S, d]
        let mut next = || qkv.next().expect("there are three");
        self.leave(&self.attend(&next(), &next(), &next(), None))
    }

    /// Attention of `hidden_states` to the text of `layer`. Applies the layer's mask and passes
    /// queries and keys to its probe. With an image prompt, attention to the image is added:
    /// `Attention(q, k, v) + λ Attention(q, k', v')` (arXiv 2308.06721, Eq. 5).
    pub fn cross(&self, hidden_states: &Tensor, layer: &LayerText) -> Tensor {
        let text = &layer.text;
        let query = text.all_rows(&self.to_q.forward(hidden_states));
        let query = self.split(query); // [B, heads, S, d]
        let project = |tokens: &Tensor| self.keys_and_values(tokens);
        let [key, value] = text.keys_and_values(self.id, project, |x| self.split(x));
        let kind = if self.upcast {
            Kind::Float
        } else {
            query.kind()
        };
        let mask = layer.mask.as_ref().map(|mask| mask.to_kind(kind));
        layer.record(&query.to_kind(kind), &key.to_kind(kind), mask.as_ref());
        let mut attended = self.attend(&query, &key, &value, mask.as_ref());
        if let Some(image) = text.image {
            let project = || image.keys_and_values(&self.name).map(|x| self.split(x));
            let [key, value] = text.image_keys_and_values(self.id, project);
            attended = &attended + self.attend(&query, &key, &value, None) * image.scale;
        }
        self.leave(&attended)
    }

    /// Self-attention shared between images: `softmax(Q* K⁺ᵀ / √d + log M⁺) V⁺` (arXiv 2402.03286,
    /// Sec. 3), `[R n, S, query_dim]` to the same shape.
    fn shared(&self, hidden_states: &Tensor, sharing: &LayerSharing) -> Tensor {
        let query = sharing.queries(self.id, self.to_q.forward(hidden_states));
        let query = self.split(query); // [R n, heads, S, d]
        let own = self.keys_and_values(hidden_states);
        let [key, value] = own.map(|own| sharing.with_sources(self.split(own))); // [R n, heads, (1 + A) S, d]
        self.leave(&self.attend(&query, &key, &value, sharing.mask.as_ref()))
    }

    /// Keys and values of a `context [.., cross_attention_dim]`, each `[.., heads · d]`.
    fn keys_and_values(&self, context: &Tensor) -> [Tensor; 2] {
        [&self.to_k, &self.to_v].map(|proj| proj.forward(context))
    }

    /// `[B, S, heads · d]` to `[B, heads, S, d]`.
    fn split(&self, xs: Tensor) -> Tensor {
        split_heads(&xs, self.heads)
    }

    /// `softmax(q kᵀ / √d) v`, all `[B, heads, S, d]`.
    fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: Option<&Tensor>,
    ) -> Tensor {
        let product = |q: &Tensor, k: &Tensor, v: &Tensor| {
            Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, None, false)
        };
        if self.upcast {
            let [q, k, v] = [query, key, value].map(|x| x.to_kind(Kind::Float));
            product(&q, &k, &v).to_kind(value.kind())
        } else {
            product(query, key, value)
        }
    }

    /// The output projection: `[B, heads, S, d]` to `[B, S, query_dim]`.
    fn leave(&self, attended: &Tensor) -> Tensor {
        self.to_out.forward(&merge_heads(attended))
    }
}

/// `[B, S, heads * d]` to `[B, heads, S, d]`, a view.
pub fn split_heads(xs: &Tensor, heads: i64) -> Tensor {
    let (b, s, width) = xs.size3().expect("tokens have three axes");
    xs.view([b, s, heads, width / heads]).transpose(1, 2)
}

/// `[B, heads, S, d]` to `[B, S, heads * d]`.
pub fn merge_heads(xs: &Tensor) -> Tensor {
    let (b, heads, s, width) = xs.size4().expect("heads have four axes");
    xs.transpose(1, 2).reshape([b, s, heads * width])
}

/// libtorch's fused attention; `causal` hides every later token.
pub fn scaled_dot_product(query: &Tensor, key: &Tensor, value: &Tensor, causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(
        query,
        key,
        value,
        None::<&Tensor>,
        0.0,
        causal,
        None,
        false,
    )
}

/// `x · GELU(gate)` with the exact GELU (arXiv 2002.05202), then a linear layer.
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// The inner width is four times the outer width, as in all checkpoints of this family.
    fn new(path: &WeightPath, dim: i64) -> Self {
        let inner = 4 * dim;
        FeedForward {
            proj: Linear::new(&(path / "net.0.proj"), dim, 2 * inner),
            out: Linear::new(&(path / "net.2"), inner, dim),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        let gated = {
            let both = self.proj.forward(xs).chunk(2, -1);
            times(both[1].gelu("none"), &both[0])
        };
        self.out.forward(&gated)
    }
}

/// Self-attention, cross-attention, feed-forward, each after a norm and with a residual.
pub struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    /// `config` describes the cross-attention; self-attention has the same heads.
    pub fn new(path: &WeightPath, config: &AttentionConfig) -> Self {
        let dim = config.query_dim;
        let own = AttentionConfig {
            cross_attention_dim: dim,
            ..*config
        };
        BasicTransformerBlock {
            norm1: LayerNorm::new(&(path / "norm1"), dim, 1e-5),
            attn1: Attention::of_itself(&(path / "attn1"), &own),
            norm2: LayerNorm::new(&(path / "norm2"), dim, 1e-5),
            attn2: Attention::new(&(path / "attn2"), config),
            norm3: LayerNorm::new(&(path / "norm3"), dim, 1e-5),
            ff: FeedForward::new(&(path / "ff"), dim),
        }
    }

    /// `hidden_states [B, S, D]` with a text of `[B, S', D']`. If rows differ only in their text,
    /// the input may hold one row for each group of equal rows; the output holds all rows.
    pub fn forward(&self, hidden_states: &Tensor, layer: &LayerText) -> Tensor {
        let mut normed = self.norm1.forward(hidden_states);
        let attended = match &layer.sharing {
            None => self.attn1.forward(&normed),
            Some(sharing) => self.attn1.shared(&normed, sharing),
        };
        let mut hidden_states = plus(attended, hidden_states);
        normed = self.norm2.forward(&hidden_states);
        hidden_states = layer.text.all_rows(&hidden_states);
        hidden_states = plus(self.attn2.cross(&normed, layer), &hidden_states);
        normed = self.norm3.forward(&hidden_states);
        plus(self.ff.forward(&normed), &hidden_states)
    }
}
