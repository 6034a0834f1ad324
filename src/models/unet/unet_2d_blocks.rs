//! The blocks of the U-Net: `DownBlock2D`, `CrossAttnDownBlock2D`, their mirror images, and the
//! middle. A block without cross-attention is the same block with an empty list of attentions.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::cross_attention::Text;
use super::transformer_2d::{Transformer2DConfig, Transformer2DModel};
use crate::io::weights::WeightPath;
use crate::models::attention::AttentionConfig;
use crate::models::resnet::{Downsample2D, ResnetBlock2D, ResnetConfig, Upsample2D};

/// Names in `down_block_types`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
#[allow(missing_docs, reason = "spelled like the class names of diffusers")]
pub enum DownBlockType {
    DownBlock2D,
    CrossAttnDownBlock2D,
}

/// Names in `up_block_types`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
#[allow(missing_docs, reason = "spelled like the class names of diffusers")]
pub enum UpBlockType {
    UpBlock2D,
    CrossAttnUpBlock2D,
}

/// The sizes of one block.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Channels of the input, from the block before.
    pub in_channels: i64,
    /// Channels inside the block and of its output.
    pub out_channels: i64,
    /// Number of residual blocks.
    pub layers: i64,
    /// Width of the time embedding.
    pub temb_channels: i64,
    /// Groups of every norm.
    pub groups: i64,
    /// Added to the variance in the residual blocks' norms.
    pub eps: f64,
    /// The transformers beside the residual blocks, if the block has any.
    pub attention: Option<BlockAttention>,
}

/// The transformers of one block.
#[derive(Clone, Copy, Debug)]
pub struct BlockAttention {
    /// Transformer blocks in each transformer.
    pub transformer_layers: i64,
    /// Number of heads.
    pub heads: i64,
    /// Width of the text's tokens.
    pub cross_attention_dim: i64,
    /// Whether linear layers, not 1×1 convolutions, surround the tokens.
    pub use_linear_projection: bool,
    /// Whether attention products run in f32.
    pub upcast: bool,
}

impl BlockConfig {
    fn resnet(&self, in_channels: i64) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels: self.out_channels,
            groups: self.groups,
            eps: self.eps,
            temb_channels: Some(self.temb_channels),
        }
    }

    /// `count` transformers, or none if the block has no attention.
    fn attentions(&self, path: &WeightPath, count: i64) -> Vec<Transformer2DModel> {
        let Some(attention) = self.attention else {
            return Vec::new();
        };
        let config = Transformer2DConfig {
            attention: AttentionConfig {
                query_dim: self.out_channels,
                cross_attention_dim: attention.cross_attention_dim,
                heads: attention.heads,
                dim_head: self.out_channels / attention.heads,
                upcast: attention.upcast,
            },
            layers: attention.transformer_layers,
            norm_num_groups: self.groups,
            use_linear_projection: attention.use_linear_projection,
        };
        let attentions = path / "attentions";
        (0..count)
            .map(|i| Transformer2DModel::new(&(&attentions / i), &config))
            .collect()
    }
}

/// The inputs of every block besides the feature map.
pub struct Condition<'a> {
    /// The time embedding after SiLU `[B, D_t]`, of all rows or of the rows computed before text is
    /// read.
    pub silu_temb: &'a Tensor,
    /// The text, `[B, S, D]`.
    pub text: Text<'a>,
}

impl Condition<'_> {
    /// The time embedding for the rows of a feature map: the shared rows before the first layer
    /// that reads the text, all rows after it.
    pub fn silu_temb(&self, map: &Tensor) -> Tensor {
        if map.size()[0] == self.silu_temb.size()[0] {
            self.silu_temb.shallow_clone()
        } else {
            self.text.all_rows(self.silu_temb)
        }
    }
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
pub struct DownBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    /// Every block but the last halves the resolution at its end.
    pub fn new(path: &WeightPath, config: &BlockConfig, padding: Option<i64>) -> Self {
        let resnets = path / "resnets";
        DownBlock {
            resnets: (0..config.layers)
                .map(|i| {
                    let in_channels = if i == 0 {
                        config.in_channels
                    } else {
                        config.out_channels
                    };
                    ResnetBlock2D::new(&(&resnets / i), &config.resnet(in_channels))
                })
                .collect(),
            attentions: config.attentions(path, config.layers),
            downsampler: padding
                .map(|p| Downsample2D::new(&(path / "downsamplers.0"), config.out_channels, p)),
        }
    }

    /// Returns the last feature map and pushes every map on the way to `skips`.
    pub fn forward(&self, xs: Tensor, condition: &Condition, skips: &mut Vec<Tensor>) -> Tensor {
        let mut hidden = self.same_size(xs, condition, skips);
        if let Some(downsampler) = &self.downsampler {
            hidden = downsampler.forward(&hidden); // [B, C, H/2, W/2]
            skips.push(hidden.shallow_clone());
        }
        hidden
    }

    /// The same, without the final change of resolution.
    pub fn same_size(&self, xs: Tensor, condition: &Condition, skips: &mut Vec<Tensor>) -> Tensor {
        let mut hidden = xs;
        for (i, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(&hidden, Some(&condition.silu_temb(&hidden)));
            if let Some(attention) = self.attentions.get(i) {
                hidden = attention.forward(&hidden, &condition.text);
            }
            skips.push(hidden.shallow_clone());
        }
        hidden
    }
}

/// `UNetMidBlock2DCrossAttn`: residual block, transformer, residual block.
pub struct MidBlock {
    resnets: [ResnetBlock2D; 2],
    attention: Transformer2DModel,
}

impl MidBlock {
    /// Reads the module at `path`; `config` must have attention.
    pub fn new(path: &WeightPath, config: &BlockConfig) -> Self {
        let resnet = config.resnet(config.out_channels);
        MidBlock {
            resnets: [0, 1].map(|i| ResnetBlock2D::new(&(path / "resnets" / i), &resnet)),
            attention: config
                .attentions(path, 1)
                .pop()
                .expect("the middle block has attention"),
        }
    }

    /// `[B, C, H, W]` to the same shape.
    pub fn forward(&self, xs: &Tensor, condition: &Condition) -> Tensor {
        let hidden = self.resnets[0].forward(xs, Some(&condition.silu_temb(xs)));
        let hidden = self.attention.forward(&hidden, &condition.text);
        self.resnets[1].forward(&hidden, Some(&condition.silu_temb(&hidden)))
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`.
pub struct UpBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// `skip_channels` are the channels of the skips that this block takes, in the order in which
    /// it takes them.
    pub fn new(
        path: &WeightPath,
        config: &BlockConfig,
        skip_channels: &[i64],
        upsample: bool,
    ) -> Self {
        let resnets = path / "resnets";
        UpBlock {
            resnets: skip_channels
                .iter()
                .enumerate()
                .map(|(i, skip)| {
                    let before = if i == 0 {
                        config.in_channels
                    } else {
                        config.out_channels
                    };
                    ResnetBlock2D::new(&(&resnets / i), &config.resnet(before + skip))
                })
                .collect(),
            attentions: config.attentions(path, skip_channels.len() as i64),
            upsampler: upsample
                .then(|| Upsample2D::new(&(path / "upsamplers.0"), config.out_channels)),
        }
    }

    /// Takes its skips from the end of `skips`, and enlarges the map to the size of the next skip.
    pub fn forward(&self, xs: Tensor, condition: &Condition, skips: &mut Vec<Tensor>) -> Tensor {
        let mut hidden = xs;
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("as many skips as residual blocks");
            hidden = Tensor::cat(&[hidden, skip], 1); // both parts are freed, because maps are largest here
            hidden = resnet.forward(&hidden, Some(&condition.silu_temb(&hidden)));
            if let Some(attention) = self.attentions.get(i) {
                hidden = attention.forward(&hidden, &condition.text);
            }
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => {
                let (_, _, h, w) = next.size4().expect("feature maps have four axes");
                upsampler.forward(&hidden, [h, w]) // [B, C, 2H, 2W]
            }
            _ => hidden,
        }
    }
}
