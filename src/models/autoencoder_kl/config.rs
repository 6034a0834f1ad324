//! `vae/config.json`.

use anyhow::Result;
use serde::Deserialize;
use tch::{Device, Tensor};

use super::super::config::{NETWORKS_BESIDE, WIDTHS, expect, expect_sizes};
use crate::error::model;
use crate::io::config_file::Field::{Only, Read, ReadOrNull};
use crate::io::config_file::{Class, ConfigFile};

/// `vae/config.json`, with the defaults of diffusers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderKlConfig {
    /// Channels of an input picture.
    pub in_channels: i64,
    /// Channels of an output picture.
    pub out_channels: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    down_block_types: Vec<EncoderBlockType>,
    up_block_types: Vec<DecoderBlockType>,
    /// Channels of each block, from the outermost.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks in each block; the decoder's blocks have one more.
    pub layers_per_block: i64,
    /// Groups of every norm.
    pub norm_num_groups: i64,
    /// Side in pixels of the training pictures, which is also the side of a tile.
    pub sample_size: i64,
    /// The standard deviation of the VAE's latents is about 1 / `scaling_factor`.
    scaling_factor: f64,
    /// Mean of the VAE's latents for each channel.
    latents_mean: Option<Vec<f32>>,
    /// Standard deviation of the latents times `scaling_factor`, for each channel.
    latents_std: Option<Vec<f32>>,
    /// Whether the VAE overflows in fp16 and must run in f32.
    pub force_upcast: bool,
    /// Whether there is a 1×1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// Whether there is a 1×1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks have attention.
    pub mid_block_add_attention: bool,
}

/// The only supported kind of encoder block.
#[derive(Clone, Copy, Debug, Deserialize)]
enum EncoderBlockType {
    DownEncoderBlock2D,
}

/// The only supported kind of decoder block.
#[derive(Clone, Copy, Debug, Deserialize)]
enum DecoderBlockType {
    UpDecoderBlock2D,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        AutoencoderKlConfig {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            down_block_types: vec![EncoderBlockType::DownEncoderBlock2D],
            up_block_types: vec![DecoderBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "AutoencoderKL",
    fields: &[&[
        ("in_channels", Read),
        ("out_channels", Read),
        ("latent_channels", Read),
        ("down_block_types", Read),
        ("up_block_types", Read),
        ("block_out_channels", Read),
        ("layers_per_block", Read),
        ("norm_num_groups", Read),
        ("sample_size", Read),
        ("scaling_factor", Read),
        ("latents_mean", ReadOrNull),
        ("latents_std", ReadOrNull),
        ("force_upcast", Read),
        ("use_quant_conv", Read),
        ("use_post_quant_conv", Read),
        ("mid_block_add_attention", Read),
        ("act_fn", Only(&["\"silu\"", "\"swish\""])),
        ("shift_factor", Only(&["null"])),
    ]],
    besides: &[NETWORKS_BESIDE],
};

impl AutoencoderKlConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// When a field has an unsupported value, or a size is outside the range of any VAE.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        file.expect_class(CLASS.name)?;
        let config: Self = file.read(&CLASS)?;
        config.check_sizes()?;
        config.check_latents(file)?;
        Ok(config)
    }

    /// Width in pixels of one latent.
    pub fn scale_factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Whether the config has a mean and a standard deviation for each channel of the latents.
    pub fn has_latent_statistics(&self) -> bool {
        self.latents_mean.is_some()
    }

    /// Converts latents of the U-Net to latents of the VAE, `[B, C, H, W]`.
    pub fn to_vae(&self, latents: &Tensor) -> Tensor {
        match self.statistics(latents.device()) {
            Some((mean, std)) => latents * std / self.scaling_factor + mean,
            None => latents / self.scaling_factor,
        }
    }

    /// Converts latents of the VAE to latents of the U-Net, `[B, C, H, W]`.
    pub fn from_vae(&self, z: &Tensor) -> Tensor {
        match self.statistics(z.device()) {
            Some((mean, std)) => (z - mean) * self.scaling_factor / std,
            None => z * self.scaling_factor,
        }
    }

    /// Mean and standard deviation of the latents, `[1, C, 1, 1]`.
    fn statistics(&self, device: Device) -> Option<(Tensor, Tensor)> {
        let channels = |values: &Vec<f32>| {
            let values = Tensor::from_slice(values).view([1, -1, 1, 1]);
            values.to_device(device)
        };
        Some((
            channels(self.latents_mean.as_ref()?),
            channels(self.latents_std.as_ref()?),
        ))
    }

    fn check_sizes(&self) -> Result<()> {
        let file = "vae/config.json";
        let blocks = self.block_out_channels.len();
        expect_sizes(
            file,
            &[
                ("in_channels", self.in_channels, 3..=3),
                ("out_channels", self.out_channels, 3..=3),
                ("latent_channels", self.latent_channels, 1..=64),
                ("layers_per_block", self.layers_per_block, 1..=16),
                ("norm_num_groups", self.norm_num_groups, WIDTHS),
                ("sample_size", self.sample_size, WIDTHS),
                ("length of block_out_channels", blocks as i64, 1..=8),
            ],
        )?;
        for channels in &self.block_out_channels {
            expect_sizes(file, &[("block_out_channels", *channels, WIDTHS)])?;
            if channels % self.norm_num_groups != 0 {
                return Err(model(format!(
                    "{file}: {channels} channels are not divisible by {} groups",
                    self.norm_num_groups
                )));
            }
        }
        for (key, found) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            expect(&format!("{file}: length of {key}"), &found, &blocks)?;
        }
        Ok(())
    }

    fn check_latents(&self, file: &ConfigFile) -> Result<()> {
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return Err(file.wrong("scaling_factor", "a number above 0"));
        }
        for (key, values) in [
            ("latents_mean", &self.latents_mean),
            ("latents_std", &self.latents_std),
        ] {
            let Some(values) = values else { continue };
            let is_fine =
                |value: &f32| value.is_finite() && (key == "latents_mean" || *value > 0.0);
            if values.len() as i64 != self.latent_channels || !values.iter().all(is_fine) {
                let expected = format!("{} numbers, one a channel", self.latent_channels);
                return Err(file.wrong(key, &expected));
            }
        }
        if self.latents_mean.is_some() != self.latents_std.is_some() {
            return Err(file.wrong(
                "latents_std",
                "it and latents_mean together, or none of them",
            ));
        }
        Ok(())
    }
}
