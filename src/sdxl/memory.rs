//! How much memory drawing and tuning will take, worked out from the networks' sizes before anything is loaded.
//!
//! On a CPU the peak of the process is about
//!
//! `P + Σ_n F_n + Σ_n c_n · s + A`
//!
//! with P = 0.5 GB for the program and libtorch; F_n the bytes of network n in its files, which are mapped; c_n · s those
//! of its p_n parameters, in the precision that they are used in, that have another one in the files, or of all where LoRAs
//! are merged into them; and A the activations. Of the weights nothing leaves the process's memory while it runs, since
//! mapped pages stay. On a GPU it is `Σ_n p_n · s + A`, without the driver's context; with `--cpu-offload` the largest
//! network alone takes the place of the sum of what was copied. A is the largest of
//!
//! - `20 · R · C₀ · h · w · s` for a pass of R rows through the U-Net, with C₀ channels in its outermost block and latents of
//!   h × w: the tensors along the skips (about 5 C₀ h w) and those of the widest block on the way up, all of which are
//!   multiples of C₀ h w;
//! - `4 · C₁ · H · W · s` for decoding a picture, or a tile, of H × W pixels, one at a time, with C₁ channels in the VAE's second
//!   block: its input, normalised, activated, and the output of its first convolution;
//! - for a tuning step, which keeps what the way back needs, `R · s · (15 Σ_r C_r h_r w_r + 35 Σ_t C_t h_t w_t)` over the U-Net's
//!   residual blocks r and transformer layers t.
//!
//! The factors 20, 15 and 35 are rounded from measurements on a CPU in f32 (`scripts/bench/RESULTS.md`, "Memory"); 4 follows
//! from the code. None has been measured on a GPU.

use anyhow::Result;

use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::unet_2d_blocks::DownBlockType;
use crate::models::unet_2d_condition::UNet2DConditionConfig;

/// The program and libtorch on a CPU, in bytes.
const PROGRAM: u64 = 500_000_000;

/// The weights of one network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkSize {
    /// Bytes of its files, or of its part of one.
    pub file_bytes: u64,
    /// Bytes of its parameters as they are used.
    pub used_bytes: u64,
    /// Bytes of those among them that are not used as they lie in the file.
    pub converted_bytes: u64,
}

impl NetworkSize {
    /// The same with LoRAs merged into it.
    #[must_use]
    pub fn merged(self) -> Self {
        Self {
            converted_bytes: self.used_bytes,
            ..self
        }
    }
}

/// Activations of the largest piece of work, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activations(pub u64);

impl Activations {
    /// The larger one.
    pub fn or(self, other: Activations) -> Activations {
        Activations(self.0.max(other.0))
    }

    /// Of a pass of so many rows for pictures whose latents are `latents` = h · w large, with values of `size` bytes.
    pub fn of_pass(unet: &UNet2DConditionConfig, rows: usize, latents: i64, size: usize) -> Self {
        let outermost = unet.block_out_channels[0] as u64;
        Activations(20 * rows as u64 * outermost * latents as u64 * size as u64)
    }

    /// Of decoding one picture, or tile, of so many pixels.
    pub fn of_decoding(vae: &AutoencoderKlConfig, pixels: i64, size: usize) -> Self {
        let channels = &vae.block_out_channels;
        let second = channels.get(1).unwrap_or(&channels[0]);
        Activations(4 * *second as u64 * pixels as u64 * size as u64)
    }

    /// Of a tuning step's rows that go through the U-Net at once.
    ///
    /// # Errors
    /// When the config's lists do not fit each other.
    pub fn of_tuning(
        unet: &UNet2DConditionConfig,
        rows: usize,
        latents: i64,
        size: usize,
    ) -> Result<Self> {
        let blocks = unet.block_out_channels.len();
        let residual = unet.layers_per_block.expand(blocks, "layers_per_block")?;
        let layers = &unet.transformer_layers_per_block;
        let layers = layers.expand(blocks, "transformer_layers_per_block")?;
        let mut values = 0;
        for (i, channels) in unet.block_out_channels.iter().enumerate() {
            let place = channels * (latents >> (2 * i)).max(1);
            // As many on the way down, one more on the way up; two and one attention in the middle.
            let is_innermost = i + 1 == blocks;
            let on_both_ways = 2 * residual[i] + 1;
            let residual_blocks = on_both_ways + 2 * i64::from(is_innermost);
            let attends = unet.down_block_types[i] == DownBlockType::CrossAttnDownBlock2D;
            let attentions = i64::from(attends) * on_both_ways + i64::from(is_innermost);
            values += place * (15 * residual_blocks + 35 * attentions * layers[i]);
        }
        Ok(Activations(values as u64 * rows as u64 * size as u64))
    }
}

/// The most memory of the device, or on a CPU of the process, in bytes.
pub fn peak(
    networks: &[NetworkSize],
    activations: Activations,
    is_gpu: bool,
    cpu_offload: bool,
) -> u64 {
    let copied = networks.iter().map(|network| match is_gpu {
        true => network.used_bytes,
        false => network.converted_bytes,
    });
    let copied = match cpu_offload {
        true => copied.max().unwrap_or(0),
        false => copied.sum(),
    };
    let files = networks.iter().map(|network| network.file_bytes);
    match is_gpu {
        true => copied + activations.0,
        false => PROGRAM + files.sum::<u64>() + copied + activations.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// SDXL's U-Net, or with other channels that of `scripts/bench/random_sdxl.py --size mini`.
    fn unet(channels: [i64; 3]) -> UNet2DConditionConfig {
        let config = json!({
            "in_channels": 4, "out_channels": 4, "sample_size": 128, "block_out_channels": channels,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 2, "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
        });
        serde_json::from_value(config).expect("the fields of a U-Net")
    }

    fn vae(channels: [i64; 4]) -> AutoencoderKlConfig {
        let config = json!({
            "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
            "block_out_channels": channels,
        });
        serde_json::from_value(config).expect("the fields of a VAE")
    }

    #[track_caller]
    fn is_near(found: f64, measured: f64, part: f64) {
        let off = (found - measured).abs() / measured;
        assert!(
            off < part,
            "worked out {found:.2} GB, measured {measured:.2} GB"
        );
    }

    #[test]
    fn what_was_measured_on_a_cpu_is_met_within_a_fifth() -> Result<()> {
        // Figures of scripts/bench/RESULTS.md: the mini, 1.28 GB in f32, of which nothing is converted.
        let (mini, vae_of_mini) = (unet([64, 128, 256]), vae([32, 64, 128, 128]));
        let as_is = |bytes| NetworkSize {
            file_bytes: bytes,
            used_bytes: bytes,
            converted_bytes: 0,
        };
        let gigabytes = |networks: &[NetworkSize], activations, offload| {
            peak(networks, activations, false, offload) as f64 / 1e9
        };
        let whole = [as_is(1_280_000_000)];
        for (side, measured) in [(512, 2.05), (768, 2.46), (1024, 2.79), (1536, 4.10)] {
            let decoding = Activations::of_decoding(&vae_of_mini, side * side, 4);
            let passing = Activations::of_pass(&mini, 2, side * side / 64, 4);
            is_near(
                gigabytes(&whole, decoding.or(passing), false),
                measured,
                0.05,
            );
        }
        for (rows, measured) in [(4, 2.76), (1, 2.08)] {
            let tuning = Activations::of_tuning(&mini, rows, 32 * 32, 4)?;
            is_near(gigabytes(&whole, tuning, false), measured, 0.06);
        }
        // Files in fp16 used in f32; with --cpu-offload the U-Net, about half of them, is the largest.
        let half = |bytes| NetworkSize {
            file_bytes: bytes / 2,
            used_bytes: bytes,
            converted_bytes: bytes,
        };
        let halves = [half(640_000_000), half(640_000_000)];
        is_near(gigabytes(&halves, Activations(0), false), 2.35, 0.05);
        is_near(gigabytes(&halves, Activations(0), true), 1.72, 0.05);
        // Full-size SDXL in f32 at 512 px, 13.88 GB of weights.
        let whole = [as_is(13_880_000_000)];
        let decoding = Activations::of_decoding(&vae([128, 256, 512, 512]), 512 * 512, 4);
        is_near(gigabytes(&whole, decoding, false), 15.7, 0.05);
        Ok(())
    }

    #[test]
    fn a_gpu_holds_weights_and_activations_alone() {
        let network = |used| NetworkSize {
            file_bytes: 10,
            used_bytes: used,
            converted_bytes: 0,
        };
        let networks = [network(3), network(5)];
        assert_eq!(peak(&networks, Activations(7), true, false), 15);
        assert_eq!(peak(&networks, Activations(7), true, true), 12);
    }

    #[test]
    fn a_cpu_holds_files_and_what_is_no_longer_as_in_them() {
        let network = |converted_bytes| NetworkSize {
            file_bytes: 10,
            used_bytes: 5,
            converted_bytes,
        };
        let found = |networks: &[NetworkSize], offload| {
            peak(networks, Activations(7), false, offload) - PROGRAM
        };
        assert_eq!(found(&[network(3), network(2)], false), 20 + 5 + 7);
        assert_eq!(found(&[network(3), network(2)], true), 20 + 3 + 7);
        assert_eq!(found(&[network(0).merged()], false), 10 + 5 + 7);
    }
}
