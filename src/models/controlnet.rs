//! `ControlNetModel` of diffusers (arXiv 2302.05543): a copy of the U-Net's first half that also sees
//! a picture, and gives what is added to the U-Net's skips and middle block.

use anyhow::Result;
use serde::Deserialize;
use tch::Tensor;

use super::config::{PerBlock, expect, expect_fixed};
use super::embeddings::{TimestepEmbedding, Timesteps};
use super::layers::Conv2d;
use super::resnet::{ResnetBlock2D, ResnetConfig};
use super::unet_2d_blocks::{
    BlockAttention, BlockConfig, Condition, DownBlock, DownBlockType, MidBlock,
};
use super::unet_2d_condition::AddedConditions;
use crate::error::model;
use crate::io::weights::WeightPath;

/// Names in `mid_block_type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[allow(missing_docs, reason = "spelled like the class names of diffusers")]
pub enum MidBlockType {
    #[default]
    UNetMidBlock2DCrossAttn,
    /// Here always with one residual block and no attention: the small distilled ControlNets.
    UNetMidBlock2D,
}

/// `config.json` of a ControlNet. A field that would change the architecture in a way this port does
/// not know is refused by [`ControlNetConfig::check`]. Defaults are diffusers' own.
#[derive(Clone, Debug, Deserialize)]
pub struct ControlNetConfig {
    /// Channels of the latents that come in.
    pub in_channels: i64,
    /// Channels of each block, from the outermost.
    pub block_out_channels: Vec<i64>,
    /// Kind of each block.
    pub down_block_types: Vec<DownBlockType>,
    /// Kind of the middle block.
    #[serde(default)]
    pub mid_block_type: MidBlockType,
    /// Residual blocks in each block.
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
    /// Padding of the strided convolutions between the blocks.
    #[serde(default = "one_pixel")]
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
    /// Channels of the picture's embedding; each but the first halves the resolution.
    #[serde(default = "conditioning_channels")]
    pub conditioning_embedding_out_channels: Vec<i64>,
    /// All other fields, for [`ControlNetConfig::check`].
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
fn one_pixel() -> i64 {
    1
}
fn conditioning_channels() -> Vec<i64> {
    vec![16, 32, 96, 256]
}

/// The name of the file in messages.
const FILE: &str = "config.json";

/// Fields with the one value (besides null and absence) that this port computes.
const FIXED: [(&str, &str); 12] = [
    ("act_fn", "\"silu\""),
    ("class_embed_type", "null"),
    ("conditioning_channels", "3"),
    ("controlnet_conditioning_channel_order", "\"rgb\""),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("global_pool_conditions", "false"),
    ("mid_block_scale_factor", "1"),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_time_scale_shift", "\"default\""),
    ("time_cond_proj_dim", "null"),
];

impl ControlNetConfig {
    /// Reads a `config.json`. What is no ControlNet, or one of another architecture, is refused by
    /// its class name before its fields are looked at.
    ///
    /// # Errors
    /// When it is one of those, is no JSON, or describes what this port would compute wrongly.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |error: serde_json::Error| model(format!("{FILE}: {error}"));
        let value: serde_json::Value = serde_json::from_str(text).map_err(wrong)?;
        let class = value["_class_name"].as_str().unwrap_or("no _class_name");
        if value.get("num_control_type").is_some() || class.contains("Union") {
            return Err(model(format!(
                "{FILE}: found {class}, a union of several kinds of control, which has another architecture; expected ControlNetModel, one kind of control in one network"
            )));
        }
        if class != "ControlNetModel" {
            return Err(model(format!(
                "{FILE}: found {class}, expected ControlNetModel"
            )));
        }
        let config: Self = serde_json::from_value(value).map_err(wrong)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what this port would compute wrongly.
    ///
    /// # Errors
    /// When lists have different lengths, or a field has a value that changes the architecture.
    fn check(&self) -> Result<()> {
        expect_fixed(FILE, &self.rest, &FIXED)?;
        let blocks = self.block_out_channels.len();
        if blocks == 0 || self.conditioning_embedding_out_channels.is_empty() {
            return Err(model(format!(
                "{FILE}: block_out_channels or conditioning_embedding_out_channels is empty"
            )));
        }
        expect(
            &format!("{FILE}: length of down_block_types"),
            &self.down_block_types.len(),
            &blocks,
        )?;
        match (&self.addition_embed_type, self.addition_time_embed_dim) {
            (None, _) => {}
            (Some(kind), None) => {
                return Err(model(format!(
                    "{FILE}: {kind} without addition_time_embed_dim"
                )));
            }
            (Some(kind), Some(_)) => {
                let key = format!("{FILE}: addition_embed_type");
                expect(&key, &kind.as_str(), &"text_time")?;
            }
        }
        for (channels, heads) in self.block_out_channels.iter().zip(self.heads()?) {
            if heads < 1 || channels % heads != 0 || channels % self.norm_num_groups != 0 {
                return Err(model(format!(
                    "{FILE}: {channels} channels are not divisible by {heads} heads and {} groups",
                    self.norm_num_groups
                )));
            }
        }
        Ok(())
    }

    /// How many pixels of the picture become one latent.
    pub fn scale_factor(&self) -> i64 {
        1 << (self.conditioning_embedding_out_channels.len() - 1)
    }

    fn heads(&self) -> Result<Vec<i64>> {
        let heads = self
            .num_attention_heads
            .as_ref()
            .unwrap_or(&self.heads_by_old_name);
        heads.expand(
            self.block_out_channels.len(),
            &format!("{FILE}: attention_head_dim"),
        )
    }

    /// What each block is made of, from the outermost.
    fn blocks(&self) -> Result<Vec<BlockConfig>> {
        let channels = &self.block_out_channels;
        let each =
            |key: &str, value: &PerBlock| value.expand(channels.len(), &format!("{FILE}: {key}"));
        let layers = each("layers_per_block", &self.layers_per_block)?;
        let transformer_layers = each(
            "transformer_layers_per_block",
            &self.transformer_layers_per_block,
        )?;
        let heads = self.heads()?;
        let block = |i: usize| BlockConfig {
            in_channels: channels[i.saturating_sub(1)],
            out_channels: channels[i],
            layers: layers[i],
            temb_channels: 4 * channels[0],
            groups: self.norm_num_groups,
            eps: self.norm_eps,
            attention: Some(BlockAttention {
                transformer_layers: transformer_layers[i],
                heads: heads[i],
                cross_attention_dim: self.cross_attention_dim,
                use_linear_projection: self.use_linear_projection,
                upcast: self.upcast_attention == Some(true),
            }),
        };
        Ok((0..channels.len()).map(block).collect())
    }
}

/// `ControlNetConditioningEmbedding`: the picture at the latents' resolution.
struct ConditioningEmbedding {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ConditioningEmbedding {
    fn new(path: &WeightPath, channels: &[i64], c_out: i64) -> Self {
        let mut blocks = Vec::new();
        for pair in channels.windows(2) {
            let at = |i: usize| path / "blocks" / i;
            blocks.push(Conv2d::new(&at(blocks.len()), pair[0], pair[0], 3));
            blocks.push(Conv2d::strided(
                &at(blocks.len()),
                pair[0],
                pair[1],
                3,
                2,
                1,
            ));
        }
        ConditioningEmbedding {
            conv_in: Conv2d::new(&(path / "conv_in"), 3, channels[0], 3),
            blocks,
            conv_out: Conv2d::new(&(path / "conv_out"), channels[channels.len() - 1], c_out, 3),
        }
    }

    /// `[B, 3, F H, F W]` to `[B, C, H, W]`.
    fn forward(&self, picture: &Tensor) -> Tensor {
        let mut embedding = self.conv_in.forward(picture).silu();
        for block in &self.blocks {
            embedding = block.forward(&embedding).silu();
        }
        self.conv_out.forward(&embedding)
    }
}

/// The two kinds of middle block.
enum Middle {
    CrossAttn(Box<MidBlock>),
    Resnet(ResnetBlock2D),
}

impl Middle {
    fn new(path: &WeightPath, kind: MidBlockType, last: &BlockConfig) -> Self {
        match kind {
            MidBlockType::UNetMidBlock2DCrossAttn => {
                Middle::CrossAttn(Box::new(MidBlock::new(path, last)))
            }
            MidBlockType::UNetMidBlock2D => Middle::Resnet(ResnetBlock2D::new(
                &(path / "resnets" / 0),
                &ResnetConfig {
                    in_channels: last.out_channels,
                    out_channels: last.out_channels,
                    groups: last.groups,
                    eps: last.eps,
                    temb_channels: Some(last.temb_channels),
                },
            )),
        }
    }

    /// `[B, C, H, W]` to the same shape.
    fn forward(&self, xs: &Tensor, condition: &Condition) -> Tensor {
        match self {
            Middle::CrossAttn(block) => block.forward(xs, condition),
            Middle::Resnet(block) => block.forward(xs, Some(condition.silu_temb)),
        }
    }
}

/// What a pass of a ControlNet adds to the U-Net's.
#[derive(Debug)]
pub struct Residuals {
    /// One for each of the U-Net's skips, from the outermost `[B, C, H, W]`.
    pub skips: Vec<Tensor>,
    /// For the output of the U-Net's middle block `[B, C, H/2ⁿ, W/2ⁿ]`.
    pub middle: Tensor,
}

impl Residuals {
    /// All of them times `scale`. In guess mode the outer ones count less: from a tenth at the input
    /// to the whole at the middle, in equal ratios (diffusers' `logspace(-1, 0)`).
    pub fn scaled(&self, scale: f64, guess_mode: bool) -> Residuals {
        let last = self.skips.len() as f64;
        let factor = |i: usize| match guess_mode {
            true => scale * 10f64.powf(i as f64 / last - 1.0),
            false => scale,
        };
        let skips = self.skips.iter().enumerate();
        Residuals {
            skips: skips.map(|(i, skip)| skip * factor(i)).collect(),
            middle: &self.middle * factor(self.skips.len()),
        }
    }

    /// The same below `rows` rows of zeros: for a pass whose first rows are not to be controlled.
    pub fn below_zeros(&self, rows: i64) -> Residuals {
        let below = |residual: &Tensor| {
            let mut size = residual.size();
            size[0] = rows;
            Tensor::cat(
                &[
                    &residual.new_zeros(&size, (residual.kind(), residual.device())),
                    residual,
                ],
                0,
            )
        };
        Residuals {
            skips: self.skips.iter().map(below).collect(),
            middle: below(&self.middle),
        }
    }
}

/// The ControlNet.
pub struct ControlNetModel {
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    added: Option<(Timesteps, TimestepEmbedding)>,
    conv_in: Conv2d,
    controlnet_cond_embedding: ConditioningEmbedding,
    down_blocks: Vec<DownBlock>,
    controlnet_down_blocks: Vec<Conv2d>,
    mid_block: Middle,
    controlnet_mid_block: Conv2d,
}

impl ControlNetModel {
    /// Reads the network.
    ///
    /// # Errors
    /// When the config's lists do not fit each other.
    pub fn new(path: &WeightPath, config: &ControlNetConfig) -> Result<Self> {
        let blocks = config.blocks()?;
        let channels = config.block_out_channels[0];
        let temb_channels = 4 * channels;
        let sinusoids = |dim| Timesteps::new(dim, config.flip_sin_to_cos, config.freq_shift);
        let added = config
            .addition_time_embed_dim
            .filter(|_| config.addition_embed_type.is_some());

        let mut down_blocks = Vec::new();
        let mut skip_channels = vec![channels];
        for (i, (kind, block)) in config.down_block_types.iter().zip(&blocks).enumerate() {
            let padding = (i + 1 < blocks.len()).then_some(config.downsample_padding);
            let block = BlockConfig {
                attention: block
                    .attention
                    .filter(|_| *kind == DownBlockType::CrossAttnDownBlock2D),
                ..*block
            };
            down_blocks.push(DownBlock::new(&(path / "down_blocks" / i), &block, padding));
            let maps = block.layers + i64::from(padding.is_some());
            skip_channels.extend((0..maps).map(|_| block.out_channels));
        }
        let zero_conv = |path: &WeightPath, channels: i64| Conv2d::new(path, channels, channels, 1);
        let last = &blocks[blocks.len() - 1];

        Ok(ControlNetModel {
            time_proj: sinusoids(channels),
            time_embedding: TimestepEmbedding::new(
                &(path / "time_embedding"),
                channels,
                temb_channels,
            ),
            added: added.map(|dim| {
                let width = config
                    .projection_class_embeddings_input_dim
                    .unwrap_or(6 * dim);
                let path = path / "add_embedding";
                (
                    sinusoids(dim),
                    TimestepEmbedding::new(&path, width, temb_channels),
                )
            }),
            conv_in: Conv2d::new(&(path / "conv_in"), config.in_channels, channels, 3),
            controlnet_cond_embedding: ConditioningEmbedding::new(
                &(path / "controlnet_cond_embedding"),
                &config.conditioning_embedding_out_channels,
                channels,
            ),
            down_blocks,
            controlnet_down_blocks: skip_channels
                .iter()
                .enumerate()
                .map(|(i, c)| zero_conv(&(path / "controlnet_down_blocks" / i), *c))
                .collect(),
            mid_block: Middle::new(&(path / "mid_block"), config.mid_block_type, last),
            controlnet_mid_block: zero_conv(&(path / "controlnet_mid_block"), last.out_channels),
        })
    }

    /// The picture's embedding, the same at every step: `controlnet_cond [B, 3, F H, F W]` in [0, 1]
    /// to `[B, C, H, W]`.
    pub fn embed(&self, controlnet_cond: &Tensor) -> Tensor {
        self.controlnet_cond_embedding.forward(controlnet_cond)
    }

    /// `sample [B, C, H, W]` at `timesteps [B]` under the text `encoder_hidden_states [B, S, D]`, with
    /// the picture's embedding `cond [B or 1, C, H, W]`; stages are numbered as in diffusers. The
    /// residuals are not scaled yet.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        encoder_hidden_states: &Tensor,
        added: Option<&AddedConditions>,
        cond: &Tensor,
    ) -> Residuals {
        // 1. time
        let kind = sample.kind();
        let mut temb = self
            .time_embedding
            .forward(&self.time_proj.forward(timesteps).to_kind(kind)); // [B, D_t]
        if let Some((add_time_proj, add_embedding)) = &self.added {
            let given = added.expect("the caller knows the config and gives text and sizes");
            let b = given.time_ids.size()[0];
            let sizes = add_time_proj
                .forward(&given.time_ids.flatten(0, -1))
                .view([b, -1]); // [B, 6 D_a]
            let both = Tensor::cat(&[&given.text_embeds, &sizes.to_kind(kind)], -1);
            temb += add_embedding.forward(&both);
        }
        let silu_temb = temb.silu();
        let condition = Condition {
            silu_temb: &silu_temb,
            encoder_hidden_states,
        };
        // 2. input
        let mut hidden = self.conv_in.forward(sample) + cond; // [B, C_0, H, W]
        // 3. down
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &condition, &mut skips);
        }
        // 4. middle
        let hidden = self.mid_block.forward(&hidden, &condition);
        // 5. the convolutions that training starts at zero
        let skips = skips.iter().zip(&self.controlnet_down_blocks);
        Residuals {
            skips: skips.map(|(skip, conv)| conv.forward(skip)).collect(),
            middle: self.controlnet_mid_block.forward(&hidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An SD 1.5 ControlNet's config with one field changed.
    fn parse(key: &str, value: &str) -> Result<ControlNetConfig> {
        let mut config = serde_json::json!({
            "_class_name": "ControlNetModel",
            "in_channels": 4,
            "block_out_channels": [320, 640, 1280, 1280],
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                 "CrossAttnDownBlock2D", "DownBlock2D"],
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
            "only_cross_attention": false,
            "mid_block_scale_factor": 1.0,
            "controlnet_conditioning_channel_order": "rgb",
        });
        config[key] = serde_json::from_str(value)?;
        ControlNetConfig::parse(&config.to_string())
    }

    #[test]
    fn diffusers_defaults_fill_what_an_old_config_lacks() -> Result<()> {
        let config = parse("act_fn", "\"silu\"")?;
        assert_eq!(
            config.conditioning_embedding_out_channels,
            [16, 32, 96, 256]
        );
        assert_eq!(config.scale_factor(), 8);
        assert_eq!(config.mid_block_type, MidBlockType::UNetMidBlock2DCrossAttn);
        assert_eq!(config.addition_embed_type, None);
        Ok(())
    }

    #[test]
    fn what_would_be_computed_wrongly_is_refused_by_name() {
        let cases = [
            (
                "_class_name",
                "\"UNet2DConditionModel\"",
                "expected ControlNetModel",
            ),
            (
                "num_control_type",
                "8",
                "a union of several kinds of control",
            ),
            (
                "global_pool_conditions",
                "true",
                "global_pool_conditions: found true",
            ),
            (
                "controlnet_conditioning_channel_order",
                "\"bgr\"",
                "controlnet_conditioning_channel_order: found \"bgr\"",
            ),
            (
                "conditioning_channels",
                "1",
                "conditioning_channels: found 1, this port knows 3 only",
            ),
            (
                "addition_embed_type",
                "\"text\"",
                "text without addition_time_embed_dim",
            ),
            (
                "down_block_types",
                "[\"DownBlock2D\"]",
                "length of down_block_types",
            ),
            (
                "layers_per_block",
                "[1, 2]",
                "layers_per_block: found 2 values",
            ),
            (
                "attention_head_dim",
                "7",
                "320 channels are not divisible by 7 heads",
            ),
            ("mid_block_type", "\"None\"", "unknown variant"),
            ("conditioning_embedding_out_channels", "[]", "is empty"),
        ];
        for (key, value, message) in cases {
            let error = match parse(key, value).and_then(|config| config.blocks()) {
                Ok(_) => panic!("{key} {value} is accepted"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.contains(message), "{key}: {error}");
        }
    }

    #[test]
    fn guess_mode_weighs_from_a_tenth_to_the_whole() {
        let ones = || Tensor::ones([1, 1, 1, 1], (tch::Kind::Float, tch::Device::Cpu));
        let residuals = Residuals {
            skips: vec![ones(), ones()],
            middle: ones(),
        };
        let value = |t: &Tensor| t.double_value(&[0, 0, 0, 0]);
        let guessed = residuals.scaled(2.0, true);
        assert!((value(&guessed.skips[0]) - 0.2).abs() < 1e-7);
        assert!((value(&guessed.skips[1]) - 2.0 * 0.1f64.sqrt()).abs() < 1e-7);
        assert_eq!(value(&guessed.middle), 2.0);
        let padded = residuals.scaled(0.5, false).below_zeros(2);
        assert_eq!(padded.middle.size(), [3, 1, 1, 1]);
        assert_eq!(padded.skips[0].sum(tch::Kind::Float).double_value(&[]), 0.5);
    }
}
