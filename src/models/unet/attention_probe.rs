//! Records how much attention each position of the picture pays to some words of the text.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::libtorch::any_attention;

/// The number of columns is a multiple of this, as fused kernels require.
const COLUMNS: usize = 8;

/// Words of a text whose attention is recorded.
#[derive(Debug)]
pub struct WatchedWords {
    /// For each token of the text and each word: 1 / n if the token is one of the word's n tokens, else 0.
    /// `[1, 1, S, G']`, with columns of zeros behind those of the G words.
    columns: Tensor,
    /// G
    words: i64,
}

impl WatchedWords {
    /// Words of a text of S tokens: for each word the positions of its tokens, of all its occurrences. `like`
    /// has the device and the format of the text.
    ///
    /// # Panics
    /// When a word has no tokens, or one that is not in the text.
    pub fn new(words: &[Vec<i64>], tokens: i64, like: &Tensor) -> Self {
        let width = words.len().next_multiple_of(COLUMNS) as i64;
        let mut columns = vec![0f32; (tokens * width) as usize];
        for (word, places) in (0..).zip(words) {
            assert!(!places.is_empty(), "a word without tokens");
            for &place in places {
                assert!(place < tokens, "token {place} of {tokens}");
                columns[(place * width + word) as usize] = 1.0 / places.len() as f32;
            }
        }
        WatchedWords {
            columns: Tensor::from_slice(&columns)
                .view([1, 1, tokens, width])
                .to_kind(like.kind())
                .to_device(like.device()),
            words: words.len() as i64,
        }
    }
}

/// The attention to some words for some rows of one pass.
#[derive(Debug)]
pub struct AttentionProbe {
    first_row: i64,
    rows: i64,
    columns: Tensor,
    words: i64,
    layers: RefCell<Vec<LayerAttention>>,
}

/// The attention in one layer.
#[derive(Debug)]
struct LayerAttention {
    /// Height and width.
    size: (i64, i64),
    /// `[rows, heads, HW, G]`
    values: Tensor,
}

/// The attention of one resolution, the mean over its layers and their heads.
#[derive(Debug)]
pub struct AttentionMaps {
    /// For each position of the picture the fraction of its attention on a token of each word, averaged over the
    /// word's tokens, `[rows, G, h, w]` f32.
    pub maps: Tensor,
    /// The number of layers.
    pub layers: usize,
}

impl AttentionProbe {
    /// Records `rows` rows from `first_row` on.
    pub fn new(first_row: i64, rows: i64, watched: &WatchedWords) -> Self {
        AttentionProbe {
            first_row,
            rows,
            columns: watched.columns.shallow_clone(),
            words: watched.words,
            layers: RefCell::default(),
        }
    }

    /// Records `softmax(q kᵀ / √d + mask)` of a layer with feature maps of this height and width: queries and
    /// keys `[B, heads, HW or S, d]`, mask `[B, 1, HW, S]`, all in one format. It is computed as attention whose
    /// values are the words' columns, in one fused kernel where there is one.
    pub(super) fn record(
        &self,
        size: (i64, i64),
        query: &Tensor,
        key: &Tensor,
        mask: Option<&Tensor>,
    ) {
        let rows = |x: &Tensor| x.narrow(0, self.first_row, self.rows);
        let (query, key) = (rows(query), rows(key));
        let (heads, tokens) = (query.size()[1], key.size()[2]);
        let columns = self.columns.to_kind(query.kind());
        let value = columns.expand([self.rows, heads, tokens, columns.size()[3]], false);
        let mask = mask.map(rows);
        let _any = any_attention();
        let values = Tensor::scaled_dot_product_attention(
            &query, &key, &value, mask, 0.0, false, None, false,
        );
        self.layers.borrow_mut().push(LayerAttention {
            size,
            values: values.narrow(-1, 0, self.words),
        });
    }

    /// The maps of each resolution, in the order of the pass. Layers of one resolution with different numbers of
    /// heads have separate maps.
    pub fn into_maps(self) -> Vec<AttentionMaps> {
        let mut groups: Vec<((i64, i64), Vec<Tensor>)> = Vec::new();
        for LayerAttention { size, values } in self.layers.into_inner() {
            let heads = |values: &Tensor| values.size()[1];
            let group = groups
                .iter_mut()
                .find(|(known, of)| *known == size && heads(&of[0]) == heads(&values));
            match group {
                Some((_, of)) => of.push(values),
                None => groups.push((size, vec![values])),
            }
        }
        let mean = |((height, width), values): ((i64, i64), Vec<Tensor>)| AttentionMaps {
            layers: values.len(),
            maps: Tensor::cat(&values, 1) // [rows, layers · heads, HW, G]
                .mean_dim([1i64].as_slice(), false, Kind::Float)
                .transpose(1, 2)
                .reshape([self.rows, self.words, height, width]),
        };
        groups.into_iter().map(mean).collect()
    }
}
