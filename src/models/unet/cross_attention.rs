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

/// When a token answers a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// At every position.
    Everywhere,
    /// At positions of one region.
    Inside(usize),
    /// At positions that are in none of these regions (bit g for region g).
    OutsideOf(u32),
    /// At none.
    Nowhere,
}

/// Which tokens answer which position of the picture, the same for all layers. Cross-attention has
/// no order of tokens, so that a token may be given twice, with one state for the inside of a region
/// and another for its outside.
#[derive(Debug)]
pub struct TokenMask {
    /// 1 inside a region and 0 outside `[B, G, H, W]` f32, at any resolution.
    regions: Tensor,
    /// What forbids token s of row b: `always [B, 1, S]` and, for each region that the position is
    /// in, `within [B, G, S]`; a token answers where the sum is below one half.
    always: Tensor,
    within: Tensor,
    /// Masks that were asked for, by height and width.
    at_sizes: RefCell<Vec<((i64, i64), Tensor)>>,
}

impl TokenMask {
    /// For rows with these regions `[B, G, H, W]` (ones and zeros) and one list of S rules each.
    ///
    /// # Panics
    /// When a row's rules are missing or rows have different numbers of them.
    pub fn new(regions: &Tensor, rules: &[Vec<Answers>]) -> TokenMask {
        let (b, g, _, _) = regions.size4().expect("regions have four axes");
        let s = rules[0].len();
        assert!(
            rules.len() as i64 == b && rules.iter().all(|row| row.len() == s),
            "one list of rules for each row"
        );
        let mut always = Vec::new();
        let mut within = Vec::new();
        for row in rules {
            always.extend(row.iter().map(|rule| match rule {
                Answers::Nowhere | Answers::Inside(_) => 1f32,
                Answers::Everywhere | Answers::OutsideOf(_) => 0.0,
            }));
            for region in 0..g as usize {
                within.extend(row.iter().map(|rule| match rule {
                    Answers::Inside(own) if *own == region => -1f32,
                    Answers::OutsideOf(regions) if regions >> region & 1 == 1 => 1.0,
                    _ => 0.0,
                }));
            }
        }
        let device = regions.device();
        TokenMask {
            regions: regions.to_kind(Kind::Float),
            always: Tensor::from_slice(&always)
                .view([b, 1, s as i64])
                .to_device(device),
            within: Tensor::from_slice(&within)
                .view([b, g, s as i64])
                .to_device(device),
            at_sizes: RefCell::default(),
        }
    }

    /// The same for `count` rows from `first` on.
    pub fn narrow(&self, first: i64, count: i64) -> TokenMask {
        let rows = |t: &Tensor| t.narrow(0, first, count);
        TokenMask {
            regions: rows(&self.regions),
            always: rows(&self.always),
            within: rows(&self.within),
            at_sizes: RefCell::default(),
        }
    }

    /// Whether token s answers the position `[B, 1, HW, S]` of a layer of this height and width. A
    /// position of a coarser layer is in a region when at least half of its area is.
    fn at(&self, height: i64, width: i64) -> Tensor {
        let size = (height, width);
        if let Some((_, mask)) = self
            .at_sizes
            .borrow()
            .iter()
            .find(|(known, _)| *known == size)
        {
            return mask.shallow_clone();
        }
        let inside = self
            .regions
            .adaptive_avg_pool2d([height, width])
            .ge(0.5)
            .to_kind(Kind::Float)
            .flatten(2, 3)
            .transpose(1, 2); // [B, HW, G]
        let forbidden = inside.matmul(&self.within) + &self.always; // [B, HW, S]
        let mask = forbidden.lt(0.5).unsqueeze(1);
        self.at_sizes
            .borrow_mut()
            .push((size, mask.shallow_clone()));
        mask
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn answers(mask: &TokenMask, height: i64, width: i64) -> Vec<Vec<bool>> {
        let mask = mask.at(height, width).squeeze_dim(1).get(0); // [HW, S]
        (0..mask.size()[0])
            .map(|i| Vec::<bool>::try_from(mask.get(i)).expect("one row of truth"))
            .collect()
    }

    #[test]
    fn tokens_answer_where_their_rule_says() {
        // Two regions on two positions: the first position is in region 0, the second in both.
        let regions = Tensor::from_slice(&[1f32, 1.0, 0.0, 1.0]).view([1, 2, 1, 2]);
        let rules = vec![vec![
            Answers::Everywhere,
            Answers::Nowhere,
            Answers::Inside(0),
            Answers::Inside(1),
            Answers::OutsideOf(0b10),
            Answers::OutsideOf(0b11),
        ]];
        let mask = TokenMask::new(&regions, &rules);
        let expected = [
            [true, false, true, false, true, false],
            [true, false, true, true, false, false],
        ];
        assert_eq!(answers(&mask, 1, 2), expected);
    }

    #[test]
    fn half_of_a_coarse_position_is_enough() {
        let regions =
            Tensor::from_slice(&[1f32, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]).view([1, 1, 2, 4]);
        let rules = vec![vec![Answers::Inside(0), Answers::OutsideOf(1)]];
        let mask = TokenMask::new(&regions, &rules);
        // Left half: three of four; right half: one of four.
        let columns = answers(&mask, 1, 2);
        assert_eq!(columns, [[true, false], [false, true]]);
        let regions = Tensor::ones([1, 1, 5, 7], (Kind::Float, Device::Cpu));
        let mask = TokenMask::new(&regions, &rules);
        assert!(answers(&mask, 3, 2).iter().all(|row| row[0] && !row[1]));
    }
}
