//! `config.json` of a ControlNet.

use anyhow::Result;
use serde::Deserialize;

use crate::error::model;
use crate::io::config_file::Field::{Only, Read, ReadOrNull};
use crate::io::config_file::{Class, ConfigFile};
use crate::models::config::{
    NETWORKS_BESIDE, PerBlock, UNET_AND_CONTROLNET, WIDTHS, expect, expect_added, expect_layers,
    expect_sizes,
};
use crate::models::unet::unet_2d_blocks::{BlockAttention, BlockConfig, DownBlockType};

/// Names in `mid_block_type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[allow(missing_docs, reason = "spelled like the class names of diffusers")]
pub enum MidBlockType {
    #[default]
    UNetMidBlock2DCrossAttn,
    /// Used here with one residual block and no attention, as in the small distilled ControlNets.
    UNetMidBlock2D,
}

/// `config.json` of a ControlNet, with the defaults of diffusers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlNetConfig {
    /// Channels of the input latents.
    pub in_channels: i64,
    /// Channels of each block, from the outermost.
    pub block_out_channels: Vec<i64>,
    /// Kind of each block.
    pub down_block_types: Vec<DownBlockType>,
    /// Kind of the middle block.
    pub mid_block_type: MidBlockType,
    /// Residual blocks in each block.
    pub layers_per_block: PerBlock,
    /// Transformer blocks in each attention.
    pub transformer_layers_per_block: PerBlock,
    /// Counts heads despite its name, which is a historical mistake in diffusers.
    #[serde(rename = "attention_head_dim")]
    pub heads_by_old_name: PerBlock,
    /// Number of heads, if the config gives it under its own name.
    pub num_attention_heads: Option<PerBlock>,
    /// Width of the text's tokens.
    pub cross_attention_dim: i64,
    /// Whether linear layers, not 1×1 convolutions, surround the transformers.
    pub use_linear_projection: bool,
    /// Whether attention products run in f32.
    pub upcast_attention: Option<bool>,
    /// Whether cosines come first in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    pub freq_shift: f64,
    /// Groups of every norm.
    pub norm_num_groups: i64,
    /// Added to the variance in every norm.
    pub norm_eps: f64,
    /// Padding of the strided convolutions between the blocks.
    pub downsample_padding: i64,
    /// `text_time` if pooled text and sizes are added to the time embedding.
    pub addition_embed_type: Option<String>,
    /// Width of one embedded size.
    pub addition_time_embed_dim: Option<i64>,
    /// Width of the pooled text and six embedded sizes together.
    pub projection_class_embeddings_input_dim: Option<i64>,
    /// Channels of the picture's embedding; each layer but the first halves the resolution.
    pub conditioning_embedding_out_channels: Vec<i64>,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        ControlNetConfig {
            in_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: [vec![CrossAttnDownBlock2D; 3], vec![DownBlock2D]].concat(),
            mid_block_type: MidBlockType::default(),
            layers_per_block: PerBlock::Same(2),
            transformer_layers_per_block: PerBlock::Same(1),
            heads_by_old_name: PerBlock::Same(8),
            num_attention_heads: None,
            cross_attention_dim: 1280,
            use_linear_projection: false,
            upcast_attention: Some(false),
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            downsample_padding: 1,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
        }
    }
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "ControlNetModel",
    fields: &[
        UNET_AND_CONTROLNET,
        &[
            ("mid_block_type", Read),
            ("num_attention_heads", ReadOrNull),
            ("addition_embed_type", ReadOrNull),
            ("conditioning_embedding_out_channels", Read),
            ("conditioning_channels", Only(&["3"])),
            ("controlnet_conditioning_channel_order", Only(&["\"rgb\""])),
            ("global_pool_conditions", Only(&["false"])),
        ],
    ],
    besides: &[NETWORKS_BESIDE],
};

/// The name of the file in messages.
const FILE: &str = "config.json";

impl ControlNetConfig {
    /// Reads and checks the file. A file of another class or architecture is refused before its
    /// fields are read.
    ///
    /// # Errors
    /// When the file is of another class or architecture, or asks for something that is not
    /// supported.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let class = file.text("_class_name").unwrap_or("no _class_name");
        if file.get("num_control_type").is_some() || class.contains("Union") {
            return Err(model(format!(
                "{FILE}: found {class}, a union of several kinds of control; expected ControlNetModel, which has one kind of control"
            )));
        }
        if class != CLASS.name {
            return Err(file.wrong("_class_name", CLASS.name));
        }
        let config: Self = file.read(&CLASS)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses configs that this port would compute wrongly.
    ///
    /// # Errors
    /// When lists have different lengths, or a field has a value that changes the architecture.
    fn check(&self) -> Result<()> {
        let blocks = self.block_out_channels.len();
        self.check_sizes()?;
        expect(
            &format!("{FILE}: length of down_block_types"),
            &self.down_block_types.len(),
            &blocks,
        )?;
        match (&self.addition_embed_type, self.addition_time_embed_dim) {
            (None, _) => {}
            (Some(kind), None) => {
                return Err(model(format!(
                    "{FILE}: found addition_embed_type {kind} without addition_time_embed_dim, expected both or neither"
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
                    "{FILE}: block_out_channels: {channels} channels are not divisible by {heads} heads and {} groups",
                    self.norm_num_groups
                )));
            }
        }
        Ok(())
    }

    /// Refuses sizes outside the range of any ControlNet; the ranges are those of the U-Net.
    fn check_sizes(&self) -> Result<()> {
        let blocks = self.block_out_channels.len();
        let halvings = self.conditioning_embedding_out_channels.len() as i64;
        expect_sizes(
            FILE,
            &[
                ("in_channels", self.in_channels, WIDTHS),
                ("cross_attention_dim", self.cross_attention_dim, WIDTHS),
                ("norm_num_groups", self.norm_num_groups, WIDTHS),
                ("downsample_padding", self.downsample_padding, 0..=1),
                ("length of block_out_channels", blocks as i64, 1..=8),
                (
                    "length of conditioning_embedding_out_channels",
                    halvings,
                    1..=8,
                ),
            ],
        )?;
        let layers = (&self.layers_per_block, &self.transformer_layers_per_block);
        expect_layers(FILE, blocks, layers)?;
        let added = (
            self.addition_time_embed_dim,
            self.projection_class_embeddings_input_dim,
        );
        expect_added(FILE, added)?;
        let channels = self.block_out_channels.iter();
        for channels in channels.chain(&self.conditioning_embedding_out_channels) {
            expect_sizes(FILE, &[("channels of a block", *channels, WIDTHS)])?;
        }
        Ok(())
    }

    /// Width in pixels of the part of the picture that becomes one latent.
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

    /// The config of each block, from the outermost.
    pub(super) fn blocks(&self) -> Result<Vec<BlockConfig>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::config_file::Notes;

    /// The config of an SD 1.5 ControlNet with one field changed.
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
        ControlNetConfig::read(&ConfigFile::parse(
            FILE,
            &config.to_string(),
            Notes::default(),
        )?)
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
                "conditioning_channels: found 1, expected 3",
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
            (
                "mid_block_type",
                "\"None\"",
                "mid_block_type: found \"None\", expected",
            ),
            (
                "conditioning_embedding_out_channels",
                "[]",
                "found 0, expected 1 to 8",
            ),
        ];
        for (key, value, message) in cases {
            let error = match parse(key, value).and_then(|config| config.blocks()) {
                Ok(_) => panic!("{key} {value} is accepted"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.contains(message), "{key}: {error}");
        }
    }
}
