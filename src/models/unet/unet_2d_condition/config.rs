//! `unet/config.json`.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;

use super::super::unet_2d_blocks::{DownBlockType, UpBlockType};
use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::config_file::{Class, ConfigFile};
use crate::models::config::{
    NETWORKS_BESIDE, PerBlock, UNET_AND_CONTROLNET, WIDTHS, expect, expect_added, expect_layers,
    expect_sizes,
};

/// `unet/config.json`: the fields that describe this architecture, with the defaults of diffusers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UNet2DConditionConfig {
    /// Channels of the input latents.
    pub in_channels: i64,
    /// Channels of the prediction.
    pub out_channels: i64,
    /// Side of the training latents.
    pub sample_size: Option<i64>,
    /// Channels of each block, from the outermost.
    pub block_out_channels: Vec<i64>,
    /// Kind of each block on the way down.
    pub down_block_types: Vec<DownBlockType>,
    /// Kind of each block on the way up.
    pub up_block_types: Vec<UpBlockType>,
    /// Residual blocks in each block; blocks on the way up have one more.
    pub layers_per_block: PerBlock,
    /// Transformer blocks in each attention.
    pub transformer_layers_per_block: PerBlock,
    /// Counts heads despite its name, which is a historical mistake in diffusers.
    #[serde(rename = "attention_head_dim")]
    pub num_attention_heads: PerBlock,
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
    /// Padding of the strided convolutions.
    pub downsample_padding: i64,
    /// `text_time` if pooled text and sizes are added to the time embedding.
    pub addition_embed_type: Option<String>,
    /// Width of one embedded size.
    pub addition_time_embed_dim: Option<i64>,
    /// Width of the pooled text and six embedded sizes together.
    pub projection_class_embeddings_input_dim: Option<i64>,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        UNet2DConditionConfig {
            in_channels: 4,
            out_channels: 4,
            sample_size: None,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: [vec![CrossAttnDownBlock2D; 3], vec![DownBlock2D]].concat(),
            up_block_types: [vec![UpBlock2D], vec![CrossAttnUpBlock2D; 3]].concat(),
            layers_per_block: PerBlock::Same(2),
            transformer_layers_per_block: PerBlock::Same(1),
            num_attention_heads: PerBlock::Same(8),
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
        }
    }
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "UNet2DConditionModel",
    fields: &[
        UNET_AND_CONTROLNET,
        &[
            ("sample_size", ReadOrNull),
            ("out_channels", Read),
            ("up_block_types", Read),
            ("addition_embed_type", ReadOrNull),
            ("center_input_sample", Only(&["false", "null"])),
            ("mid_block_type", Only(&["\"UNetMidBlock2DCrossAttn\""])),
            (
                "dropout",
                Harmless("only in training, and this network is frozen"),
            ),
            ("reverse_transformer_layers_per_block", Only(&["null"])),
            // diffusers refuses this field too: older files use it for `attention_head_dim`.
            ("num_attention_heads", Only(&["null"])),
            ("dual_cross_attention", Only(&["false", "null"])),
            ("resnet_skip_time_act", Only(&["false", "null"])),
            ("resnet_out_scale_factor", Only(&["1"])),
            ("time_embedding_type", Only(&["\"positional\""])),
            ("time_embedding_dim", Only(&["null"])),
            ("time_embedding_act_fn", Only(&["null"])),
            ("timestep_post_act", Only(&["null"])),
            ("time_cond_proj_dim", Only(&["null"])),
            ("conv_in_kernel", Only(&["3"])),
            ("conv_out_kernel", Only(&["3"])),
            ("attention_type", Only(&["\"default\""])),
            ("class_embeddings_concat", Only(&["false", "null"])),
            ("mid_block_only_cross_attention", Only(&["false", "null"])),
            ("cross_attention_norm", Only(&["null"])),
        ],
    ],
    besides: &[NETWORKS_BESIDE],
};

impl UNet2DConditionConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// When lists have different lengths, a size is outside the range of any U-Net, or a field has
    /// an unsupported value.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        file.expect_class(CLASS.name)?;
        let config: Self = file.read(&CLASS)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        self.check_sizes()?;
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
                    "unet/config.json: block_out_channels: {channels} channels are not divisible by {heads} heads and {} groups",
                    self.norm_num_groups
                )));
            }
        }
        Ok(())
    }

    /// Refuses sizes outside the range of any U-Net. The limits are 8 blocks, 8 attentions in a block
    /// and 32 transformer blocks in an attention; SDXL has 3, 2 and at most 10.
    fn check_sizes(&self) -> Result<()> {
        let file = "unet/config.json";
        let blocks = self.block_out_channels.len();
        expect_sizes(
            file,
            &[
                ("in_channels", self.in_channels, WIDTHS),
                ("out_channels", self.out_channels, WIDTHS),
                ("sample_size", self.sample_size.unwrap_or(1), WIDTHS),
                ("cross_attention_dim", self.cross_attention_dim, WIDTHS),
                ("norm_num_groups", self.norm_num_groups, WIDTHS),
                ("downsample_padding", self.downsample_padding, 0..=1),
                ("length of block_out_channels", blocks as i64, 1..=8),
            ],
        )?;
        let layers = (&self.layers_per_block, &self.transformer_layers_per_block);
        expect_layers(file, blocks, layers)?;
        let added = (
            self.addition_time_embed_dim,
            self.projection_class_embeddings_input_dim,
        );
        expect_added(file, added)?;
        for channels in &self.block_out_channels {
            expect_sizes(file, &[("block_out_channels", *channels, WIDTHS)])?;
        }
        Ok(())
    }

    /// Width of the pooled prompt, for a network that takes it.
    pub fn pooled_width(&self) -> Option<i64> {
        Some(self.projection_class_embeddings_input_dim? - 6 * self.addition_time_embed_dim?)
    }

    /// Paths of all cross-attention layers, each with the layer's inner width, in the order of
    /// diffusers' `attn_processors`: down, up, middle.
    ///
    /// # Errors
    /// When a list in the config does not have one entry for each block.
    pub fn cross_attention_layers(&self) -> Result<Vec<(String, i64)>> {
        let channels = &self.block_out_channels;
        let (blocks, last) = (channels.len(), channels.len() - 1);
        let per_block = |values: &PerBlock, key: &str| {
            values.expand(blocks, &format!("unet/config.json: {key}"))
        };
        let attentions = per_block(&self.layers_per_block, "layers_per_block")?;
        let depths = per_block(
            &self.transformer_layers_per_block,
            "transformer_layers_per_block",
        )?;
        let mut layers = Vec::new();
        let mut add = |path: String, attentions: i64, level: usize| {
            for i in 0..attentions {
                layers.extend((0..depths[level]).map(|j| {
                    let name = format!("{path}.attentions.{i}.transformer_blocks.{j}.attn2");
                    (name, channels[level])
                }));
            }
        };
        for (i, kind) in self.down_block_types.iter().enumerate() {
            if *kind == DownBlockType::CrossAttnDownBlock2D {
                add(format!("down_blocks.{i}"), attentions[i], i);
            }
        }
        for (i, kind) in self.up_block_types.iter().enumerate() {
            if *kind == UpBlockType::CrossAttnUpBlock2D {
                let level = last - i;
                add(format!("up_blocks.{i}"), attentions[level] + 1, level);
            }
        }
        add("mid_block".to_owned(), 1, last);
        Ok(layers)
    }

    /// The distinct head widths of all blocks.
    ///
    /// # Errors
    /// When the number of head counts differs from the number of blocks.
    pub fn head_dims(&self) -> Result<BTreeSet<i64>> {
        let has_attention = |i: usize| {
            let is_last = i + 1 == self.block_out_channels.len();
            is_last || self.down_block_types[i] == DownBlockType::CrossAttnDownBlock2D
        };
        let heads = self.heads()?;
        let blocks = self.block_out_channels.iter().zip(heads).enumerate();
        let with_attention = blocks.filter(|(i, _)| has_attention(*i));
        Ok(with_attention
            .map(|(_, (channels, heads))| channels / heads)
            .collect())
    }

    /// Number of heads of each block, from the outermost.
    ///
    /// # Errors
    /// When the number of head counts differs from the number of blocks.
    pub(crate) fn heads(&self) -> Result<Vec<i64>> {
        self.num_attention_heads.expand(
            self.block_out_channels.len(),
            "unet/config.json: attention_head_dim",
        )
    }
}
