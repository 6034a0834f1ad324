//! `UNet2DConditionModel` of diffusers (arXiv 2112.10752 for SD, arXiv 2307.01952 for SDXL), split
//! into encode and decode: what encode returns as `h` is the map that the paper calls h.

use anyhow::Result;
use serde::Deserialize;
use tch::Tensor;

use super::config::{PerBlock, expect, expect_fixed};
use super::controlnet::Residuals;
use super::cross_attention::Text;
use super::layers::{Conv2d, GroupNorm, silu};
use super::time_conditions::{TimeConditions, TimeConfig};
use super::unet_2d_blocks::{
    BlockAttention, BlockConfig, Condition, DownBlock, DownBlockType, MidBlock, UpBlock,
    UpBlockType,
};
use crate::error::model;
use crate::io::weights::WeightPath;

pub use super::time_conditions::AddedConditions;

/// `unet/config.json`, the fields that describe this architecture. A field that would change it in
/// a way this port does not know is refused by [`UNet2DConditionConfig::check`].
#[derive(Clone, Debug, Deserialize)]
pub struct UNet2DConditionConfig {
    /// Channels of the latents that come in.
    pub in_channels: i64,
    /// Channels of the prediction.
    pub out_channels: i64,
    /// Side of the latents that the checkpoint was trained on.
    pub sample_size: i64,
    /// Channels of each block, from the outermost.
    pub block_out_channels: Vec<i64>,
    /// Kind of each block on the way down.
    pub down_block_types: Vec<DownBlockType>,
    /// Kind of each block on the way up.
    pub up_block_types: Vec<UpBlockType>,
    /// Residual blocks in each block; one more on the way up.
    pub layers_per_block: PerBlock,
    /// Transformer blocks in each attention.
    #[serde(default = "one")]
    pub transformer_layers_per_block: PerBlock,
    /// Counts heads, in spite of its name: a historic misnaming in diffusers.
    #[serde(rename = "attention_head_dim")]
    pub heads_by_old_name: PerBlock,
    /// Number of heads, where the config gives it under its own name.
    #[serde(default)]
    pub num_attention_heads: Option<PerBlock>,
    /// Width of the text's tokens.
    pub cross_attention_dim: i64,
    /// Linear layers rather than 1×1 convolutions around the transformers.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Attention products in f32.
    #[serde(default)]
    pub upcast_attention: Option<bool>,
    /// Cosines first in the time embedding.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    #[serde(default)]
    pub freq_shift: f64,
    /// Groups of every norm.
    #[serde(default = "groups")]
    pub norm_num_groups: i64,
    /// Added to the variance in every norm.
    #[serde(default = "eps")]
    pub norm_eps: f64,
    /// Padding of the strided convolutions.
    #[serde(default = "padding")]
    pub downsample_padding: i64,
    /// `text_time` where pooled text and sizes are added to the time embedding.
    #[serde(default)]
    pub addition_embed_type: Option<String>,
    /// Width of one embedded size.
    #[serde(default)]
    pub addition_time_embed_dim: Option<i64>,
    /// Width of pooled text and six embedded sizes together.
    #[serde(default)]
    pub projection_class_embeddings_input_dim: Option<i64>,
    /// All other fields, for [`UNet2DConditionConfig::check`].
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn one() -> PerBlock {
    PerBlock::Same(1)
}
fn yes() -> bool {
    true
}
fn groups() -> i64 {
    32
}
fn eps() -> f64 {
    1e-5
}
fn padding() -> i64 {
    1
}

/// Fields with the one value (besides null and absence) that this port computes.
const FIXED: [(&str, &str); 19] = [
    ("act_fn", "\"silu\""),
    ("attention_type", "\"default\""),
    ("center_input_sample", "false"),
    ("class_embed_type", "null"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("cross_attention_norm", "null"),
    ("dual_cross_attention", "false"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_scale_factor", "1"),
    ("mid_block_type", "\"UNetMidBlock2DCrossAttn\""),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_out_scale_factor", "1.0"),
    ("resnet_time_scale_shift", "\"default\""),
    ("reverse_transformer_layers_per_block", "null"),
    ("time_cond_proj_dim", "null"),
    ("time_embedding_type", "\"positional\""),
];

impl UNet2DConditionConfig {
    /// Refuses what this port would compute wrongly.
    ///
    /// # Errors
    /// When lists have different lengths, or a field has a value that changes the architecture.
    pub fn check(&self) -> Result<()> {
        expect_fixed("unet/config.json", &self.rest, &FIXED)?;
        let blocks = self.block_out_channels.len();
        for (key, found) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            expect(
                &format!("unet/config.json: length of {key}"),
                &found,
                &blocks,
            )?;
        }
        if let Some(kind) = &self.addition_embed_type {
            expect(
                "unet/config.json: addition_embed_type",
                &kind.as_str(),
                &"text_time",
            )?;
        }
        for (channels, heads) in self.block_out_channels.iter().zip(self.heads()?) {
            if heads < 1 || channels % heads != 0 || channels % self.norm_num_groups != 0 {
                return Err(model(format!(
                    "unet/config.json: {channels} channels are not divisible by {heads} heads and {} groups",
                    self.norm_num_groups
                )));
            }
        }
        Ok(())
    }

    /// Width of the pooled prompt, for a network that is told of it.
    pub fn pooled_width(&self) -> Option<i64> {
        Some(self.projection_class_embeddings_input_dim? - 6 * self.addition_time_embed_dim?)
    }

    fn heads(&self) -> Result<Vec<i64>> {
        let heads = self
            .num_attention_heads
            .as_ref()
            .unwrap_or(&self.heads_by_old_name);
        heads.expand(
            self.block_out_channels.len(),
            "unet/config.json: attention_head_dim",
        )
    }
}

/// The first half of a pass: what [`UNet2DConditionModel::decode`] goes on from.
pub struct Encoded {
    /// The encoder's output, Eq. (7) `[B, C, H/2ⁿ, W/2ⁿ]`.
    pub h: Tensor,
    skips: Vec<Tensor>,
    /// What is added to the middle block's output, if anything.
    middle: Option<Tensor>,
    silu_temb: Tensor,
}

impl Encoded {
    /// Adds a ControlNet's residuals (arXiv 2302.05543) to the maps that the up path takes back and
    /// to what the middle block will give. `h`, which goes into the middle block, stays what it is.
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
    /// When the config describes an architecture that this port does not know.
    pub fn new(path: &WeightPath, config: &UNet2DConditionConfig) -> Result<Self> {
        config.check()?;
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
    /// `sample [B, C, H, W]` at `timesteps [B]` under a text of `[B, S, D]`: its
    /// `encoder_hidden_states`, or a [`Text`] that asks more of cross-attention.
    pub fn encode<'a>(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: impl Into<Text<'a>>,
        added: Option<&AddedConditions>,
    ) -> Encoded {
        let text = text.into();
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

    /// Steps 1 and 2, `[B', C_0, H, W]` and `silu(temb) [B', D_t]`: of rows that share everything but
    /// their text, only one.
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
        self.decode_keeping(encoded, text, None)
    }

    /// The same; what the last up block is given is left in `deep`, for [`shallow`](Self::shallow)
    /// passes to go on from, where there is a place for it.
    pub fn decode_keeping<'a>(
        &self,
        encoded: Encoded,
        text: impl Into<Text<'a>>,
        mut deep: Option<&mut Tensor>,
    ) -> Tensor {
        let Encoded {
            h,
            mut skips,
            middle,
            silu_temb,
        } = encoded;
        let condition = Condition {
            silu_temb: &silu_temb,
            text: text.into(),
        };
        // 4. middle
        let mut hidden = self.mid_block.forward(&h, &condition);
        if let Some(residual) = middle {
            hidden += residual;
        }
        // 5. up
        for (i, block) in self.up_blocks.iter().enumerate() {
            if let (true, Some(deep)) = (i + 1 == self.up_blocks.len(), deep.as_deref_mut()) {
                *deep = hidden.shallow_clone();
            }
            hidden = block.forward(hidden, &condition, &mut skips);
        }
        self.leave(&hidden)
    }

    /// 6. output
    fn leave(&self, hidden: &Tensor) -> Tensor {
        self.conv_out
            .forward(&silu(self.conv_norm_out.forward(hidden)))
    }

    /// A pass through the outermost block on either side alone, which goes on from what a whole pass
    /// at another timestep gave to the last up block (DeepCache, arXiv 2312.00858). An approximation.
    pub fn shallow<'a>(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: impl Into<Text<'a>>,
        added: Option<&AddedConditions>,
        deep: &Tensor,
    ) -> Tensor {
        let text = text.into();
        let (hidden, silu_temb) = self.enter(sample, timesteps, &text, added);
        let mut skips = vec![hidden.shallow_clone()];
        let condition = Condition {
            silu_temb: &silu_temb,
            text,
        };
        // Its last map is the last of the skips.
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
