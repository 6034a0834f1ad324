//! `ControlNetModel` of diffusers (arXiv 2302.05543): a copy of the U-Net's first half that also
//! reads a picture. Its outputs are added to the U-Net's skips and middle block.

mod config;

use anyhow::Result;
use tch::Tensor;

use super::cross_attention::Text;
use super::time_conditions::{AddedConditions, TimeConditions, TimeConfig};
use super::unet_2d_blocks::{BlockConfig, Condition, DownBlock, DownBlockType, MidBlock};
use crate::io::weights::WeightPath;
use crate::models::layers::{Conv2d, plus, silu};
use crate::models::resnet::{ResnetBlock2D, ResnetConfig};
pub use config::{CLASS, ControlNetConfig, MidBlockType};

/// `ControlNetConditioningEmbedding`: reduces the picture to the latents' resolution.
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
        let mut embedding = silu(self.conv_in.forward(picture));
        for block in &self.blocks {
            embedding = silu(block.forward(&embedding));
        }
        self.conv_out.forward(&embedding)
    }
}

/// The two kinds of middle block.
enum Middle {
    CrossAttn(Box<MidBlock>),
    Resnet(Box<ResnetBlock2D>),
}

impl Middle {
    fn new(path: &WeightPath, kind: MidBlockType, last: &BlockConfig) -> Self {
        match kind {
            MidBlockType::UNetMidBlock2DCrossAttn => {
                Middle::CrossAttn(Box::new(MidBlock::new(path, last)))
            }
            MidBlockType::UNetMidBlock2D => Middle::Resnet(Box::new(ResnetBlock2D::new(
                &(path / "resnets" / 0),
                &ResnetConfig {
                    in_channels: last.out_channels,
                    out_channels: last.out_channels,
                    groups: last.groups,
                    eps: last.eps,
                    temb_channels: Some(last.temb_channels),
                },
            ))),
        }
    }

    /// `[B, C, H, W]` to the same shape.
    fn forward(&self, xs: &Tensor, condition: &Condition) -> Tensor {
        match self {
            Middle::CrossAttn(block) => block.forward(xs, condition),
            Middle::Resnet(block) => block.forward(xs, Some(&condition.silu_temb(xs))),
        }
    }
}

/// The tensors that a pass of a ControlNet adds to the U-Net's pass.
#[derive(Debug)]
pub struct Residuals {
    /// One for each skip of the U-Net, from the outermost `[B, C, H, W]`.
    pub skips: Vec<Tensor>,
    /// For the output of the U-Net's middle block `[B, C, H/2ⁿ, W/2ⁿ]`.
    pub middle: Tensor,
}

impl Residuals {
    /// All residuals times `scale`. In guess mode they also get factors from 0.1 at the input to 1
    /// at the middle block, in equal ratios (diffusers' `logspace(-1, 0)`).
    pub fn scaled(&self, scale: f64, guess_mode: bool) -> Residuals {
        let last = self.skips.len() as f64;
        let factor = |i: usize| {
            if guess_mode {
                scale * 10f64.powf(i as f64 / last - 1.0)
            } else {
                scale
            }
        };
        let skips = self.skips.iter().enumerate();
        Residuals {
            skips: skips.map(|(i, skip)| skip * factor(i)).collect(),
            middle: &self.middle * factor(self.skips.len()),
        }
    }

    /// The same residuals below `rows` rows of zeros, for a pass whose first rows are not
    /// controlled.
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
    time: TimeConditions,
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
    /// When the lists in the config have different lengths.
    pub fn new(path: &WeightPath, config: &ControlNetConfig) -> Result<Self> {
        let blocks = config.blocks()?;
        let channels = config.block_out_channels[0];
        let time = TimeConfig {
            channels,
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
            addition_time_embed_dim: config
                .addition_time_embed_dim
                .filter(|_| config.addition_embed_type.is_some()),
            projection_class_embeddings_input_dim: config.projection_class_embeddings_input_dim,
        };

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
            time: TimeConditions::new(path, &time),
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

    /// The picture's embedding, which is the same at every step: `controlnet_cond [B, 3, F H, F W]`
    /// in [0, 1] to `[B, C, H, W]`.
    pub fn embed(&self, controlnet_cond: &Tensor) -> Tensor {
        self.controlnet_cond_embedding.forward(controlnet_cond)
    }

    /// `sample [B, C, H, W]` at `timesteps [B]` with the text `[B, S, D]` and the picture's
    /// embedding `cond [B or 1, C, H, W]`; 1 if rows are shared until the text is read. Stages are
    /// numbered as in diffusers. The residuals are not scaled yet.
    ///
    /// The image prompt, probe and sharing of `text` are ignored, because they are for the U-Net's
    /// own layers.
    pub fn forward<'a>(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        text: impl Into<Text<'a>>,
        added: Option<&AddedConditions>,
        cond: &Tensor,
    ) -> Residuals {
        let text = Text {
            image: None,
            probe: None,
            sharing: None,
            ..text.into()
        };
        let rows = |t: &Tensor| text.rows_without_text(t); // [B', ..]
        let added = added.map(|added| added.map(rows));
        // 1. time
        let silu_temb = self
            .time
            .forward(&rows(timesteps), added.as_ref(), sample.kind()); // [B', D_t]
        let condition = Condition {
            silu_temb: &silu_temb,
            text,
        };
        // 2. input
        let mut hidden = plus(self.conv_in.forward(&rows(sample)), cond); // [B', C_0, H, W]
        // 3. down
        let mut skips = vec![hidden.shallow_clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &condition, &mut skips);
        }
        // 4. middle
        let hidden = self.mid_block.forward(&hidden, &condition);
        // 5. the convolutions whose weights are zero before training
        let skips = skips.iter().zip(&self.controlnet_down_blocks);
        Residuals {
            skips: skips
                .map(|(skip, conv)| text.all_rows(&conv.forward(skip)))
                .collect(),
            middle: text.all_rows(&self.controlnet_mid_block.forward(&hidden)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
