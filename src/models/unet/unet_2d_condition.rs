//! `UNet2DConditionModel` of diffusers (arXiv 2112.10752 for SD, arXiv 2307.01952 for SDXL), split
//! into encode and decode. The output `h` of encode is the map that the paper calls h.

mod config;

use anyhow::Result;
use tch::Tensor;

use super::controlnet::Residuals;
use super::cross_attention::Text;
use super::time_conditions::{TimeConditions, TimeConfig};
use super::unet_2d_blocks::{
    BlockAttention, BlockConfig, Condition, DownBlock, DownBlockType, MidBlock, UpBlock,
    UpBlockType,
};
use crate::error::model;
use crate::io::weights::WeightPath;
use crate::models::layers::{Conv2d, GroupNorm, silu};

pub use super::time_conditions::AddedConditions;
pub use config::{CLASS, UNet2DConditionConfig};

/// The first half of a pass, from which [`UNet2DConditionModel::decode`] continues.
pub struct Encoded {
    /// The encoder's output, Eq. (7) `[B, C, H/2ⁿ, W/2ⁿ]`.
    pub h: Tensor,
    skips: Vec<Tensor>,
    /// Added to the middle block's output, if present.
    middle: Option<Tensor>,
    silu_temb: Tensor,
}

impl Encoded {
    /// Adds a ControlNet's residuals (arXiv 2302.05543) to the skips and to the future output of
    /// the middle block. `h`, the input of the middle block, does not change.
    ///
    /// `residuals` have the rows of this pass.
    pub fn add(&mut self, residuals: &Residuals) {
        debug_assert_eq!(self.skips.len(), residuals.skips.len(), "checked at load");
        for (skip, residual) in self.skips.iter_mut().zip(&residuals.skips) {
            *skip = &*skip + residual;
        }
        self.middle = Some(match self.middle.take() {
            Some(others) => others + &residuals.middle,
            None => residuals.middle.shallow_clone(),
        });
    }
}

/// The text for layers before the up path, in which images do not attend to each other.
fn without_sharing(text: Text) -> Text {
    Text {
        sharing: None,
        ..text
    }
}

/// The U-Net.
pub struct UNet2DConditionModel {
    time: TimeConditions,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DConditionModel {
    /// Reads the network.
    ///
    /// # Errors
    /// When the config describes an unsupported architecture.
    pub fn new(path: &WeightPath, config: &UNet2DConditionConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let blocks = channels.len();
        let temb_channels = 4 * channels[0];
        let layers = config
            .layers_per_block
            .expand(blocks, "unet/config.json: layers_per_block")?;
        let transformer_layers = config
            .transformer_layers_per_block
            .expand(blocks, "unet/config.json: transformer_layers_per_block")?;
        let heads = config.heads()?;
        let block = |i: usize, in_channels: i64, has_attention: bool| BlockConfig {
            in_channels,
            out_channels: channels[i],
            layers: layers[i],
            temb_channels,
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            attention: has_attention.then(|| BlockAttention {
                transformer_layers: transformer_layers[i],
                heads: heads[i],
                cross_attention_dim: config.cross_attention_dim,
                use_linear_projection: config.use_linear_projection,
                upcast: config.upcast_attention == Some(true),
            }),
        };

        let addition_time_embed_dim = match (
            config.addition_embed_type.as_deref(),
            config.addition_time_embed_dim,
        ) {
            (None, _) => None,
            (Some(kind), None) => {
                return Err(model(format!(
                    "unet/config.json: {kind} without addition_time_embed_dim"
                )));
            }
            (_, dim) => dim,
        };
        let time = TimeConfig {
            channels: channels[0],
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
            addition_time_embed_dim,
            projection_class_embeddings_input_dim: config.projection_class_embeddings_input_dim,
        };

        let mut down_blocks = Vec::new();
        let mut skip_channels = vec![channels[0]];
        for (i, kind) in config.down_block_types.iter().enumerate() {
            let config_i = block(
                i,
                channels[i.saturating_sub(1)],
                *kind == DownBlockType::CrossAttnDownBlock2D,
            );
            let padding = (i + 1 < blocks).then_some(config.downsample_padding);
            down_blocks.push(DownBlock::new(
                &(path / "down_blocks" / i),
                &config_i,
                padding,
            ));
            skip_channels.extend(vec![
                channels[i];
                (layers[i] + i64::from(padding.is_some())) as usize
            ]);
        }

        let last = blocks - 1;
        let mid_block = MidBlock::new(&(path / "mid_block"), &block(last, channels[last], true));

        let mut up_blocks = Vec::new();
        for (i, kind) in config.up_block_types.iter().enumerate() {
            let mirror = last - i;
            let before = channels[(mirror + 1).min(last)];
            let config_i = block(mirror, before, *kind == UpBlockType::CrossAttnUpBlock2D);
            let skips =
                skip_channels.split_off(skip_channels.len() - (layers[mirror] + 1) as usize);
            let skips: Vec<i64> = skips.into_iter().rev().collect();
            up_blocks.push(UpBlock::new(
                &(path / "up_blocks" / i),
                &config_i,
                &skips,
                i < last,
            ));
        }

        Ok(UNet2DConditionModel {
            time: TimeConditions::new(path, &time),
            conv_in: Conv2d::new(&(path / "conv_in"), config.in_channels, channels[0], 3),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                &(path / "conv_norm_out"),
                config.norm_num_groups,
                channels[0],
                config.norm_eps,
            ),
            conv_out: Conv2d::new(&(path / "conv_out"), channels[0], config.out_channels, 3),
        })
    }

    /// Steps 1 to 3 of a pass: time, input convolution, down path.
    ///
    /// `sample [B, C, H, W]` at `timesteps [B]` with a text: `encoder_hidden_states [B, S, D]`, or
    /// a [`Text`] with further inputs of attention. Sharing is ignored, because it is for the
    /// decoder.
    pub fn encode<'a>(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: impl Into<Text<'a>>,
        added: Option<&AddedConditions>,
    ) -> Encoded {
        let text = without_sharing(text.into());
        let (mut hidden, silu_temb) = self.enter(sample, timesteps, &text, added);
        let condition = Condition {
            silu_temb: &silu_temb,
            text,
        };
        // 3. down
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &condition, &mut skips);
        }
        Encoded {
            h: text.all_rows(&hidden),
            skips: skips.iter().map(|skip| text.all_rows(skip)).collect(),
            middle: None,
            silu_temb: text.all_rows(&silu_temb),
        }
    }

    /// Steps 1 and 2, `[B', C_0, H, W]` and `silu(temb) [B', D_t]`. Rows that differ only in their
    /// text are computed once.
    fn enter(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: &Text,
        added: Option<&AddedConditions>,
    ) -> (Tensor, Tensor) {
        let rows = |t: &Tensor| text.rows_without_text(t);
        let added = added.map(|added| added.map(rows));
        // 1. time
        let silu_temb = self
            .time
            .forward(&rows(timesteps), added.as_ref(), sample.kind());
        // 2. input
        (self.conv_in.forward(&rows(sample)), silu_temb)
    }

    /// Steps 4 to 6 of a pass: middle, up path, output convolution. Returns the prediction
    /// `[B, C, H, W]`.
    pub fn decode<'a>(&self, encoded: Encoded, text: impl Into<Text<'a>>) -> Tensor {
        self.decode_keeping(encoded, text, false).0
    }

    /// As [`decode`](Self::decode). With `keep` it also returns the input of the last up block,
    /// from which [`shallow`](Self::shallow) passes continue.
    pub fn decode_keeping<'a>(
        &self,
        encoded: Encoded,
        text: impl Into<Text<'a>>,
        keep: bool,
    ) -> (Tensor, Option<Tensor>) {
        let Encoded {
            h,
            mut skips,
            middle,
            silu_temb,
        } = encoded;
        let text = text.into();
        let mut condition = Condition {
            silu_temb: &silu_temb,
            text: without_sharing(text),
        };
        // 4. middle
        let mut hidden = self.mid_block.forward(&h, &condition);
        if let Some(residual) = middle {
            hidden += residual;
        }
        // 5. up
        condition.text = text;
        let mut deep = None;
        for (i, block) in self.up_blocks.iter().enumerate() {
            if keep && i + 1 == self.up_blocks.len() {
                deep = Some(hidden.shallow_clone());
            }
            hidden = block.forward(hidden, &condition, &mut skips);
        }
        (self.leave(&hidden), deep)
    }

    /// 6. output
    fn leave(&self, hidden: &Tensor) -> Tensor {
        self.conv_out
            .forward(&silu(self.conv_norm_out.forward(hidden)))
    }

    /// A pass through the outermost block on either side alone. It continues from the input of the
    /// last up block in a whole pass at another timestep (DeepCache, arXiv 2312.00858). This is an
    /// approximation; sharing is ignored.
    pub fn shallow<'a>(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: impl Into<Text<'a>>,
        added: Option<&AddedConditions>,
        deep: &Tensor,
    ) -> Tensor {
        let text = without_sharing(text.into());
        let (hidden, silu_temb) = self.enter(sample, timesteps, &text, added);
        let mut skips = vec![hidden.shallow_clone()];
        let condition = Condition {
            silu_temb: &silu_temb,
            text,
        };
        // The block's last map is also the last skip.
        let _ = self.down_blocks[0].same_size(hidden, &condition, &mut skips);
        let mut skips = skips.iter().map(|skip| text.all_rows(skip)).collect();
        let condition = Condition {
            silu_temb: &text.all_rows(&silu_temb),
            text,
        };
        let last = self.up_blocks.last().expect("as many blocks up as down");
        self.leave(&last.forward(deep.shallow_clone(), &condition, &mut skips))
    }

    /// A whole pass: [`encode`](Self::encode), then [`decode`](Self::decode).
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        encoder_hidden_states: &Tensor,
        added: Option<&AddedConditions>,
    ) -> Tensor {
        let encoded = self.encode(sample, timesteps, encoder_hidden_states, added);
        self.decode(encoded, encoder_hidden_states)
    }
}
