//! `AutoencoderKL` of diffusers (arXiv 2112.10752): pictures to latents and back.

mod config;

use tch::Tensor;

use super::attention::scaled_dot_product;
use super::layers::{Conv2d, GroupNorm, Linear, plus, silu};
use super::resnet::{Downsample2D, ResnetBlock2D, ResnetConfig, Upsample2D};
use super::tiling::Tiling;
use crate::io::weights::WeightPath;

pub use config::{AutoencoderKlConfig, CLASS};

/// Added to the variance in every norm of the VAE.
const EPS: f64 = 1e-6;

impl AutoencoderKlConfig {
    fn resnet(&self, in_channels: i64, out_channels: i64) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels,
            groups: self.norm_num_groups,
            eps: EPS,
            temb_channels: None,
        }
    }
}

/// Self-attention with one head over the positions of a map.
struct VaeAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl VaeAttention {
    /// Checkpoints from before diffusers 0.15 use other names for the four layers.
    fn new(path: &WeightPath, groups: i64, channels: i64) -> Self {
        let [q, k, v, out] = if path.contains("query.weight") {
            ["query", "key", "value", "proj_attn"]
        } else {
            ["to_q", "to_k", "to_v", "to_out.0"]
        };
        let linear = |name: &str| Linear::new(&(path / name), channels, channels);
        VaeAttention {
            group_norm: GroupNorm::new(&(path / "group_norm"), groups, channels, EPS),
            to_q: linear(q),
            to_k: linear(k),
            to_v: linear(v),
            to_out: linear(out),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        let (b, c, h, w) = xs.size4().expect("feature maps have four axes");
        let normed = self.group_norm.forward(xs);
        let tokens = normed.flatten(2, 3).transpose(1, 2).contiguous(); // [B, HW, C]
        let [q, k, v] =
            [&self.to_q, &self.to_k, &self.to_v].map(|proj| proj.forward(&tokens).unsqueeze(1));
        let attended = scaled_dot_product(&q, &k, &v, false).squeeze_dim(1);
        let out = self.to_out.forward(&attended); // [B, HW, C]
        plus(out.transpose(1, 2).reshape([b, c, h, w]), xs)
    }
}

struct VaeMidBlock {
    resnets: [ResnetBlock2D; 2],
    attention: Option<VaeAttention>,
}

impl VaeMidBlock {
    fn new(path: &WeightPath, config: &AutoencoderKlConfig, channels: i64) -> Self {
        let resnet = config.resnet(channels, channels);
        VaeMidBlock {
            resnets: [0, 1].map(|i| ResnetBlock2D::new(&(path / "resnets" / i), &resnet)),
            attention: config.mid_block_add_attention.then(|| {
                VaeAttention::new(&(path / "attentions.0"), config.norm_num_groups, channels)
            }),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        let mut hidden = self.resnets[0].forward(xs, None);
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden);
        }
        self.resnets[1].forward(&hidden, None)
    }
}

/// Residual blocks from `c_in` to `c_out` channels.
fn resnets(
    path: &WeightPath,
    config: &AutoencoderKlConfig,
    c_in: i64,
    c_out: i64,
    count: i64,
) -> Vec<ResnetBlock2D> {
    let resnets = path / "resnets";
    (0..count)
        .map(|i| {
            ResnetBlock2D::new(
                &(&resnets / i),
                &config.resnet(if i == 0 { c_in } else { c_out }, c_out),
            )
        })
        .collect()
}

struct VaeEncoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock2D>, Option<Downsample2D>)>,
    mid_block: VaeMidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl VaeEncoder {
    fn new(path: &WeightPath, config: &AutoencoderKlConfig) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        VaeEncoder {
            conv_in: Conv2d::new(&(path / "conv_in"), config.in_channels, channels[0], 3),
            down_blocks: (0..=last)
                .map(|i| {
                    let block = path / "down_blocks" / i;
                    let before = channels[i.saturating_sub(1)];
                    let down = (i < last)
                        .then(|| Downsample2D::new(&(&block / "downsamplers.0"), channels[i], 0));
                    (
                        resnets(&block, config, before, channels[i], config.layers_per_block),
                        down,
                    )
                })
                .collect(),
            mid_block: VaeMidBlock::new(&(path / "mid_block"), config, channels[last]),
            conv_norm_out: GroupNorm::new(
                &(path / "conv_norm_out"),
                config.norm_num_groups,
                channels[last],
                EPS,
            ),
            conv_out: Conv2d::new(
                &(path / "conv_out"),
                channels[last],
                2 * config.latent_channels,
                3,
            ),
        }
    }

    fn forward(&self, images: &Tensor) -> Tensor {
        let mut hidden = self.conv_in.forward(images);
        for (resnets, down) in &self.down_blocks {
            for resnet in resnets {
                hidden = resnet.forward(&hidden, None);
            }
            if let Some(down) = down {
                hidden = down.forward(&hidden); // [B, C, H/2, W/2]
            }
        }
        let hidden = self.mid_block.forward(&hidden);
        self.conv_out
            .forward(&silu(self.conv_norm_out.forward(&hidden)))
    }
}

struct Decoder {
    conv_in: Conv2d,
    mid_block: VaeMidBlock,
    up_blocks: Vec<(Vec<ResnetBlock2D>, Option<Upsample2D>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(path: &WeightPath, config: &AutoencoderKlConfig) -> Self {
        let channels: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let last = channels.len() - 1;
        Decoder {
            conv_in: Conv2d::new(&(path / "conv_in"), config.latent_channels, channels[0], 3),
            mid_block: VaeMidBlock::new(&(path / "mid_block"), config, channels[0]),
            up_blocks: (0..=last)
                .map(|i| {
                    let block = path / "up_blocks" / i;
                    let before = channels[i.saturating_sub(1)];
                    let up = (i < last)
                        .then(|| Upsample2D::new(&(&block / "upsamplers.0"), channels[i]));
                    (
                        resnets(
                            &block,
                            config,
                            before,
                            channels[i],
                            config.layers_per_block + 1,
                        ),
                        up,
                    )
                })
                .collect(),
            conv_norm_out: GroupNorm::new(
                &(path / "conv_norm_out"),
                config.norm_num_groups,
                channels[last],
                EPS,
            ),
            conv_out: Conv2d::new(&(path / "conv_out"), channels[last], config.out_channels, 3),
        }
    }

    fn forward(&self, z: &Tensor) -> Tensor {
        let mut hidden = self.mid_block.forward(&self.conv_in.forward(z));
        for (resnets, up) in &self.up_blocks {
            for resnet in resnets {
                hidden = resnet.forward(&hidden, None);
            }
            if let Some(up) = up {
                let (_, _, h, w) = hidden.size4().expect("feature maps have four axes");
                hidden = up.forward(&hidden, [2 * h, 2 * w]); // [B, C, 2H, 2W]
            }
        }
        self.conv_out
            .forward(&silu(self.conv_norm_out.forward(&hidden)))
    }
}

/// The distribution of the latents that the encoder predicts, unscaled `[B, C, H, W]`.
pub struct DiagonalGaussian {
    /// Mean.
    pub mean: Tensor,
    /// Standard deviation.
    pub std: Tensor,
}

/// The VAE.
pub struct AutoencoderKl {
    encoder: VaeEncoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    tiles: Option<Tiles>,
}

/// How pictures and latents are cut into tiles.
struct Tiles {
    pictures: Tiling,
    latents: Tiling,
}

impl AutoencoderKl {
    /// Reads the network.
    pub fn new(path: &WeightPath, config: &AutoencoderKlConfig) -> Self {
        let (moments, latents) = (2 * config.latent_channels, config.latent_channels);
        AutoencoderKl {
            encoder: VaeEncoder::new(&(path / "encoder"), config),
            quant_conv: config
                .use_quant_conv
                .then(|| Conv2d::new(&(path / "quant_conv"), moments, moments, 1)),
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| Conv2d::new(&(path / "post_quant_conv"), latents, latents, 1)),
            decoder: Decoder::new(&(path / "decoder"), config),
            tiles: None,
        }
    }

    /// Encodes and decodes in tiles of `size` pixels, or `size / scale_factor` latents, if the
    /// input is larger than one tile. Norms and attention then see one tile at a time, so the
    /// result differs from an untiled one, most visibly where tiles meet.
    #[must_use]
    pub fn with_tiles(mut self, size: i64, scale_factor: i64) -> Self {
        let latents = size / scale_factor;
        self.tiles = Some(Tiles {
            pictures: Tiling::new(size, latents),
            latents: Tiling::new(latents, size),
        });
        self
    }

    /// Pictures `[B, 3, H, W]` in [-1, 1] to the distribution of their latents. The log-variance is
    /// clamped to [-30, 20] as in the reference.
    pub fn encode(&self, images: &Tensor) -> DiagonalGaussian {
        let moments = match &self.tiles {
            Some(tiles) if tiles.pictures.is_needed(images) => {
                tiles.pictures.apply(images, |tile| self.moments(tile))
            }
            _ => self.moments(images),
        };
        let parts = moments.chunk(2, 1);
        let std = (parts[1].clamp(-30.0, 20.0) * 0.5).exp();
        DiagonalGaussian {
            mean: parts[0].shallow_clone(),
            std,
        }
    }

    /// Latents `[B, C, H, W]`, divided by the scaling factor, to pictures `[B, 3, H', W']` in about
    /// [-1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        match &self.tiles {
            Some(tiles) if tiles.latents.is_needed(z) => {
                tiles.latents.apply(z, |tile| self.decode_whole(tile))
            }
            _ => self.decode_whole(z),
        }
    }

    /// Mean and log-variance, concatenated along the channels.
    fn moments(&self, images: &Tensor) -> Tensor {
        let moments = self.encoder.forward(images);
        match &self.quant_conv {
            Some(conv) => conv.forward(&moments),
            None => moments,
        }
    }

    fn decode_whole(&self, z: &Tensor) -> Tensor {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(z)),
            None => self.decoder.forward(z),
        }
    }
}
