//! The memory of a pass through the U-Net, layer by layer as in `models/unet_2d_condition.rs`.

use anyhow::Result;

use super::ledger::{Ledger, Map};
use crate::models::unet::unet_2d_blocks::{DownBlockType, UpBlockType};
use crate::models::unet::unet_2d_condition::UNet2DConditionConfig;

/// A pass of the U-Net.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassSize {
    /// Height and width of the latents.
    pub latents: (i64, i64),
    /// Number of rows.
    pub rows: usize,
    /// Number of rows until a layer reads the text: rows that differ only in the text pass as one.
    pub rows_without_text: usize,
    /// Number of tokens in the text of a row.
    pub tokens: usize,
    /// Number of different tokens in all texts whose keys and values are kept for the next pass; 0 if none are kept.
    pub known_tokens: usize,
    /// Number of rows whose attention maps are recorded, and whether attention is masked.
    pub watched: usize,
    /// Number of ControlNets.
    pub controlnets: usize,
    /// Values of the size of an activation that a probability of self-attention takes, if it is computed by separate
    /// operations in f32; 0 with a fused kernel.
    pub probability: usize,
}

/// The sizes of a U-Net's blocks.
struct Shape {
    channels: Vec<i64>,
    layers: Vec<i64>,
    transformer_layers: Vec<i64>,
    heads: Vec<i64>,
    /// Positions of the maps at each resolution.
    positions: Vec<i64>,
    attends_down: Vec<bool>,
    attends_up: Vec<bool>,
    has_convolutions: bool,
    tokens: i64,
    remembers_text: bool,
    watched: i64,
    probability: i64,
}

impl Shape {
    fn new(unet: &UNet2DConditionConfig, pass: &PassSize) -> Result<Shape> {
        let channels = unet.block_out_channels.clone();
        let blocks = channels.len();
        let (mut height, mut width) = pass.latents;
        let mut positions = Vec::new();
        for _ in 0..blocks {
            positions.push(height * width);
            (height, width) = ((height + 1) / 2, (width + 1) / 2);
        }
        let layers = &unet.transformer_layers_per_block;
        Ok(Shape {
            layers: unet.layers_per_block.expand(blocks, "layers_per_block")?,
            transformer_layers: layers.expand(blocks, "transformer_layers_per_block")?,
            heads: unet.heads()?,
            positions,
            attends_down: (unet.down_block_types.iter())
                .map(|kind| *kind == DownBlockType::CrossAttnDownBlock2D)
                .collect(),
            attends_up: (unet.up_block_types.iter())
                .map(|kind| *kind == UpBlockType::CrossAttnUpBlock2D)
                .collect(),
            has_convolutions: !unet.use_linear_projection,
            tokens: pass.tokens as i64,
            remembers_text: pass.known_tokens > 0,
            watched: pass.watched as i64,
            probability: pass.probability as i64,
            channels,
        })
    }

    fn last(&self) -> usize {
        self.channels.len() - 1
    }

    /// `Transformer2DModel` at a resolution, of a map that its caller keeps. Leaves the output in memory.
    fn transformer(&self, ledger: &mut Ledger, level: usize, map: Map) {
        let c = map.of(self.channels[level]);
        let text = if self.remembers_text {
            0
        } else {
            map.rows * self.tokens * self.channels[level]
        };
        ledger.take(2 * c); // norm, tokens
        ledger.take(c); // proj_in
        if self.has_convolutions {
            ledger.free_unless_kept(c)
        } else {
            ledger.free(c)
        }
        ledger.free(c);
        for _ in 0..self.transformer_layers[level] {
            // Self-attention: norm1, query, key, value, what they give, to_out.
            ledger.take(6 * c);
            // Probabilities, beside the logits in f32 from which they are computed, and a mark of one byte for each
            // logit that is -∞.
            let probabilities =
                self.probability * map.rows * self.heads[level] * map.positions * map.positions;
            ledger.take(2 * probabilities + probabilities / 4);
            ledger.free(probabilities + probabilities / 4);
            ledger.free_unless_kept(probabilities);
            ledger.free_unless_kept(4 * c);
            ledger.free(c);
            // Cross-attention: norm2, query, key and value of the text, what they give, to_out.
            ledger.take(2 * c + 2 * text);
            if self.watched > 0 {
                // The mask of each row; for recorded rows the logits, twice while they are scaled and turned
                // into probabilities.
                ledger.take(map.rows * map.positions * self.tokens);
                let maps = self.heads[level] * map.positions * self.tokens;
                ledger.pass(2 * self.watched * maps);
                ledger.free(map.rows * map.positions * self.tokens);
            }
            ledger.take(2 * c);
            ledger.free_unless_kept(3 * c + 2 * text);
            ledger.free(c);
            // Feed-forward: norm3, both halves, the gate.
            ledger.take(c + 8 * c + 4 * c);
            ledger.activation(4 * c);
            ledger.free_unless_kept(8 * c);
            ledger.take(c);
            ledger.free(4 * c + c);
            // The block before has freed its output.
            ledger.free_unless_kept(2 * c);
        }
        ledger.take(2 * c); // proj_out, as a map
        ledger.free(c);
        if self.has_convolutions {
            ledger.free_unless_kept(c)
        } else {
            ledger.free(c)
        }
    }

    /// The down blocks of an encoder that starts with `rows_without_text` rows. Returns the rows and values of
    /// each skip.
    fn down(&self, ledger: &mut Ledger, pass: &PassSize, is_tuned: bool) -> Vec<Skip> {
        let mut rows = pass.rows_without_text as i64;
        let map = |rows: i64, level: usize| Map {
            rows,
            positions: self.positions[level],
        };
        ledger.take(map(rows, 0).of(self.channels[0]));
        let mut skips = vec![Skip::new(map(rows, 0), self.channels[0], ledger.keeps)];
        for level in 0..=self.last() {
            let channels = self.channels[level];
            for layer in 0..self.layers[level] {
                let before = match layer {
                    0 => self.channels[level.saturating_sub(1)],
                    _ => channels,
                };
                ledger.resnet(map(rows, level), before, channels);
                if self.attends_down[level] {
                    rows = pass.rows as i64;
                    ledger.keeps = is_tuned;
                    self.transformer(ledger, level, map(rows, level));
                    ledger.free_unless_kept(map(rows, level).of(channels));
                }
                skips.push(Skip::new(map(rows, level), channels, ledger.keeps));
            }
            if level < self.last() {
                let (from, to) = (
                    map(rows, level).of(channels),
                    map(rows, level + 1).of(channels),
                );
                ledger.convolution(from, to, 9 * channels * channels);
                skips.push(Skip::new(map(rows, level + 1), channels, ledger.keeps));
            }
        }
        skips
    }

    /// The middle block. Leaves its output in memory.
    fn middle(&self, ledger: &mut Ledger, map: Map) {
        let channels = self.channels[self.last()];
        let c = map.of(channels);
        ledger.resnet(map, channels, channels);
        self.transformer(ledger, self.last(), map);
        ledger.resnet(map, channels, channels);
        ledger.free_unless_kept(2 * c);
    }

    /// The up blocks, which free the skips, and the output convolution.
    fn up(&self, ledger: &mut Ledger, rows: i64, mut skips: Vec<Skip>) {
        let mut hidden = self.channels[self.last()];
        for (block, &attends) in self.attends_up.iter().enumerate() {
            let level = self.last() - block;
            let channels = self.channels[level];
            let map = Map {
                rows,
                positions: self.positions[level],
            };
            for _ in 0..=self.layers[level] {
                let skip = skips.pop().expect("as many as the way down has made");
                let joined = hidden + skip.channels;
                ledger.take(map.of(joined));
                ledger.free(map.of(hidden));
                if !skip.is_kept {
                    ledger.free(skip.values);
                }
                ledger.resnet(map, joined, channels);
                ledger.free_unless_kept(map.of(joined));
                if attends {
                    self.transformer(ledger, level, map);
                    ledger.free_unless_kept(map.of(channels));
                }
                hidden = channels;
            }
            if level > 0 {
                let above = Map {
                    positions: self.positions[level - 1],
                    ..map
                };
                ledger.take(above.of(channels));
                ledger.convolution(
                    above.of(channels),
                    above.of(channels),
                    9 * channels * channels,
                );
                ledger.free_unless_kept(above.of(channels));
                ledger.free(map.of(channels));
            }
        }
        // conv_norm_out and conv_out, whose output is small.
        let outermost = Map {
            rows,
            positions: self.positions[0],
        }
        .of(self.channels[0]);
        ledger.take(outermost);
        ledger.activation(outermost);
        ledger.pass(outermost);
    }

    /// Number of values that the layers keep of the text's keys and values: for every token, and in the order
    /// of each row.
    fn text_memory(&self, pass: &PassSize) -> i64 {
        2 * self.transformer_widths() * (pass.known_tokens + pass.rows * pass.tokens) as i64
    }

    /// Sum of the channels of all transformer blocks.
    fn transformer_widths(&self) -> i64 {
        let counts = self.transformer_counts();
        counts
            .iter()
            .zip(&self.channels)
            .map(|(n, channels)| n * channels)
            .sum()
    }

    /// Number of transformer blocks at each resolution.
    fn transformer_counts(&self) -> Vec<i64> {
        let count = |level: usize| {
            let transformers = self.layers[level] * i64::from(self.attends_down[level])
                + (self.layers[level] + 1) * i64::from(self.attends_up[self.last() - level])
                + i64::from(level == self.last());
            transformers * self.transformer_layers[level]
        };
        (0..=self.last()).map(count).collect()
    }
}

/// Sum of the inputs and outputs of all attention layers with a low-rank update: eight in each transformer
/// block, of which key and value of the text have the text's width as input.
///
/// # Errors
/// When the config's lists do not fit each other.
pub fn low_rank_widths(unet: &UNet2DConditionConfig) -> Result<i64> {
    let shape = Shape::new(unet, &PassSize::default())?;
    let blocks: i64 = shape.transformer_counts().iter().sum();
    Ok(14 * shape.transformer_widths() + 2 * blocks * unet.cross_attention_dim)
}

/// A map of the down blocks that an up block uses.
struct Skip {
    channels: i64,
    values: i64,
    rows: i64,
    /// Whether the backward pass needs the map too.
    is_kept: bool,
}

impl Skip {
    fn new(map: Map, channels: i64, is_kept: bool) -> Skip {
        Skip {
            channels,
            values: map.of(channels),
            rows: map.rows,
            is_kept,
        }
    }
}

/// Peak number of values in a pass while drawing.
pub(super) fn drawing(unet: &UNet2DConditionConfig, pass: &PassSize) -> Result<i64> {
    let shape = Shape::new(unet, pass)?;
    let mut ledger = Ledger::default();
    if pass.known_tokens > 0 {
        ledger.take(shape.text_memory(pass));
    }
    let mut skips = shape.down(&mut ledger, pass, false);
    for skip in &mut skips {
        // Rows that passed as one are copied out while the single row is still in memory.
        if skip.rows < pass.rows as i64 {
            let all = skip.values / skip.rows * pass.rows as i64;
            ledger.take(all);
            ledger.free(skip.values);
            (skip.values, skip.rows) = (all, pass.rows as i64);
        }
    }
    let innermost = Map {
        rows: pass.rows as i64,
        positions: shape.positions[shape.last()],
    };
    if pass.controlnets > 0 {
        steer(&shape, &mut ledger, pass, innermost);
    }
    shape.middle(&mut ledger, innermost);
    shape.up(&mut ledger, pass.rows as i64, skips);
    Ok(ledger.most())
}

/// ControlNets run one after the other. Each runs the down blocks. For every skip there are its residual, the
/// scaled residual and finally the sum, which replaces the skip.
fn steer(shape: &Shape, ledger: &mut Ledger, pass: &PassSize, innermost: Map) {
    let cond = shape.positions[0] * shape.channels[0];
    ledger.take(cond * pass.controlnets as i64);
    let own = shape.down(ledger, pass, false);
    shape.middle(ledger, innermost);
    let residuals: i64 = own.iter().map(|skip| skip.values).sum();
    let middle = innermost.of(shape.channels[shape.last()]);
    ledger.take(residuals);
    ledger.free(residuals + middle); // The ControlNet's own skips.
    ledger.take(residuals);
    ledger.free(2 * residuals);
}

/// Peak number of values for the rows of a tuning step: all values that the backward pass needs, and the memory
/// of its first layers.
pub(super) fn tuning(unet: &UNet2DConditionConfig, pass: &PassSize) -> Result<i64> {
    let shape = Shape::new(unet, pass)?;
    let mut ledger = Ledger::default();
    let skips = shape.down(&mut ledger, pass, true);
    ledger.keeps = true;
    let innermost = Map {
        rows: pass.rows as i64,
        positions: shape.positions[shape.last()],
    };
    shape.middle(&mut ledger, innermost);
    shape.up(&mut ledger, pass.rows as i64, skips);
    // Backward through the last residual block: the gradient, that of the shortcut, and both sides of a
    // convolution in blocks.
    let outermost = Map {
        rows: pass.rows as i64,
        positions: shape.positions[0],
    };
    ledger.take(outermost.of(5 * shape.channels[0]));
    Ok(ledger.most())
}
