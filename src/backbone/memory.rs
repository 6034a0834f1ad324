//! Estimates the memory of drawing and tuning from the networks' sizes, before anything is loaded.
//!
//! On a CPU the peak of the process is
//!
//! `P + K + Σ_n (M_n + k T_n) + max over stages (Σ_n C_n + 5/4 A)`
//!
//! - P: memory of this process before it loads anything. The dry run is the same program with the same
//!   libtorch, so it measures itself (`libtorch::resident_bytes`); a libtorch for CUDA takes 200 MB more than
//!   one for the CPU only.
//! - K: libtorch's kernels, see `KERNELS`; k for each of the T_n tensors of network n, see `OF_A_TENSOR`.
//! - M_n: bytes of network n that are used directly from its mapped files; mapped pages stay in memory.
//! - C_n: bytes of its parameters that are copies, because they have another precision than in the files or
//!   because LoRAs are merged. A stage counts only networks that are still loaded.
//! - A: bytes of the stage's activations, which `ledger` counts through the layers.
//! - Gaps take a quarter of A: see `GAPS`.
//!
//! On a GPU it is `Σ_n (parameters of n) + max A`, without the driver's context. With `--cpu-offload` only the
//! largest network is counted instead of the sum of the copies.
//!
//! `scripts/bench/memory.py` compares the estimate with measurements on a CPU. On a GPU the estimate was never
//! measured.

mod ledger;
mod unet;
mod vae;

use anyhow::Result;

use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::unet::unet_2d_condition::UNet2DConditionConfig;
pub use unet::{PassSize, low_rank_widths};

/// Memory of the program before it loads anything, in bytes, if the system does not report it.
pub const PROGRAM: u64 = 380_000_000;

/// Memory that any computation adds to the program, in bytes. Measured on a CPU with AVX-512, by
/// `/proc/self/smaps` and by counting what is allocated: 45 MB are pages of libtorch's kernels that nothing had
/// read before, 10 MB MKL's buffers.
const KERNELS: u64 = 64_000_000;

/// Memory that each tensor of a network adds, in bytes: oneDNN's data about each layer's shape, and small
/// blocks that glibc keeps. Measured: 25 MB on the toy with 600 tensors, 55 MB on a U-Net with SDXL's 1,680.
const OF_A_TENSOR: u64 = 40_000;

/// Freed memory that glibc keeps is the activations divided by this number: gaps between blocks of less than 4
/// MB, into which the next blocks do not fit (`libtorch::keep_no_freed_memory`). Measured: 40 MB of 145 where
/// all blocks are that small.
const GAPS: u64 = 4;

/// A part of the model, or an additional network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPart {
    /// A text encoder.
    Text,
    /// The U-Net.
    Unet,
    /// The VAE.
    Vae,
    /// A ControlNet, an adapter or its image encoder.
    Beside,
}

/// The weights of one network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkSize {
    /// Number of tensors, if the headers of the files are on this machine.
    pub tensors: u64,
    /// Bytes of its files that stay in memory. Files inside the program stay as a whole. Of a mapped file, only
    /// weights that are used directly stay; the others are released after conversion.
    pub file_bytes: u64,
    /// Bytes of its parameters as they are used.
    pub used_bytes: u64,
    /// Bytes of the parameters that are not used directly from the file.
    pub converted_bytes: u64,
    /// Bytes of the largest weight in a mapped file that is converted: it is in memory while it is read.
    pub largest_read: u64,
    /// Whether its files are inside the program.
    pub is_embedded: bool,
}

impl NetworkSize {
    /// The same with LoRAs merged into weights that take this many bytes in use.
    #[must_use]
    pub fn merged(self, bytes: u64) -> Self {
        let converted_bytes = self.used_bytes.min(self.converted_bytes + bytes);
        let released = if self.is_embedded {
            0
        } else {
            converted_bytes - self.converted_bytes
        };
        Self {
            converted_bytes,
            file_bytes: self.file_bytes.saturating_sub(released),
            ..self
        }
    }
}

/// Activations of the largest piece of work, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activations(pub u64);

impl Activations {
    /// The larger of two.
    pub fn or(self, other: Activations) -> Activations {
        Activations(self.0.max(other.0))
    }

    /// Activations of a pass through the U-Net while drawing, with values of `size` bytes.
    ///
    /// # Errors
    /// When the config's lists do not fit each other.
    pub fn of_pass(unet: &UNet2DConditionConfig, pass: &PassSize, size: usize) -> Result<Self> {
        Ok(Activations(unet::drawing(unet, pass)? as u64 * size as u64))
    }

    /// Activations of decoding pictures one at a time; each picture or tile has this height and width. All
    /// `pictures` together take three f32 per pixel, and twice that when they are joined.
    pub fn of_decoding(
        vae: &AutoencoderKlConfig,
        tile: (i64, i64),
        (pictures, pixels): (usize, i64),
        size: usize,
    ) -> Self {
        let joined = 2 * 3 * 4 * pictures as u64 * pixels as u64;
        Activations(vae::decoding(vae, tile) as u64 * size as u64 + joined)
    }

    /// Activations of the rows of a tuning step that pass through the U-Net together.
    ///
    /// # Errors
    /// When the config's lists do not fit each other.
    pub fn of_tuning(unet: &UNet2DConditionConfig, pass: &PassSize, size: usize) -> Result<Self> {
        Ok(Activations(unet::tuning(unet, pass)? as u64 * size as u64))
    }
}

/// A stage of a job: the networks that are still loaded, and the activations.
#[derive(Clone, Copy, Debug)]
pub struct MemoryStage {
    /// Parts that were unloaded before this stage.
    pub without: &'static [ModelPart],
    /// The parts that compute. With `cpu_offload` only these are on a GPU, beside ControlNets and adapters.
    pub runs: &'static [ModelPart],
    /// The activations of its computation.
    pub activations: Activations,
}

/// The peak memory of the process on a CPU, in bytes, including `program`, the memory before anything is loaded.
pub fn peak_of_process(
    program: u64,
    networks: &[(ModelPart, NetworkSize)],
    stages: &[MemoryStage],
    cpu_offload: bool,
) -> u64 {
    let sizes = || networks.iter().map(|(_, size)| size);
    let files: u64 = sizes()
        .map(|size| size.file_bytes + OF_A_TENSOR * size.tensors)
        .sum();
    let of_stage = |stage: &MemoryStage| {
        let there = networks
            .iter()
            .filter(|(part, _)| !stage.without.contains(part));
        let copied = there.map(|(_, size)| size.converted_bytes);
        let copied = if cpu_offload {
            copied.max().unwrap_or(0)
        } else {
            copied.sum()
        };
        copied + stage.activations.0 + stage.activations.0 / GAPS
    };
    let most = stages.iter().map(of_stage).max().unwrap_or(0);
    let read = sizes().map(|size| size.largest_read).max().unwrap_or(0);
    program + KERNELS + files + read + most
}

/// The peak memory of a GPU, in bytes.
pub fn peak_of_gpu(
    networks: &[(ModelPart, NetworkSize)],
    stages: &[MemoryStage],
    cpu_offload: bool,
) -> u64 {
    let of_stage = |stage: &MemoryStage| {
        let is_there = |part: &ModelPart| {
            let is_loaded = !stage.without.contains(part);
            let runs = *part == ModelPart::Beside || stage.runs.contains(part);
            is_loaded && (runs || !cpu_offload)
        };
        let there = networks.iter().filter(|(part, _)| is_there(part));
        there.map(|(_, size)| size.used_bytes).sum::<u64>() + stage.activations.0
    };
    stages.iter().map(of_stage).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unet(channels: &[i64], layers: i64) -> UNet2DConditionConfig {
        let kinds = |outer: &str, inner: &str| {
            let mut kinds = vec![inner.to_owned(); channels.len()];
            kinds[0] = outer.to_owned();
            kinds
        };
        let mut up = kinds("UpBlock2D", "CrossAttnUpBlock2D");
        up.reverse();
        let config = json!({
            "in_channels": 4, "out_channels": 4, "sample_size": 128, "block_out_channels": channels,
            "down_block_types": kinds("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": up,
            "layers_per_block": layers, "transformer_layers_per_block": 1, "attention_head_dim": 1,
            "cross_attention_dim": 2048, "use_linear_projection": true,
        });
        serde_json::from_value(config).expect("the fields of a U-Net")
    }

    fn pass(rows: usize, side: i64) -> PassSize {
        PassSize {
            latents: (side, side),
            rows,
            rows_without_text: rows,
            tokens: 77,
            ..PassSize::default()
        }
    }

    /// By hand, channels times positions: at the outermost resolution the first residual block of the way up holds two skips
    /// of C, the joined map of 3 C, its norm, that in blocks, and its output of C in blocks with the weights.
    #[test]
    fn the_largest_maps_are_those_that_the_way_up_joins() -> Result<()> {
        let (c, side) = (64, 64);
        let config = unet(&[c, 2 * c], 1);
        let one = side * side * c;
        let expected = 2 * one + 3 * 3 * one + one + 9 * 3 * c * c;
        let found = Activations::of_pass(&config, &pass(1, side), 4)?;
        // Of the two skips one was joined.
        assert_eq!(found.0 as i64, 4 * (expected - one));
        Ok(())
    }

    #[test]
    fn a_row_of_tuning_sdxl_takes_what_was_calculated_by_hand() -> Result<()> {
        let config: UNet2DConditionConfig = serde_json::from_value(json!({
            "in_channels": 4, "out_channels": 4, "sample_size": 128, "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 2, "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048, "use_linear_projection": true,
        }))
        .expect("the fields of a U-Net");
        // By hand: 5.1 GB a row in fp16, see scripts/bench/RESULTS.md.
        for rows in [1, 5] {
            let found = Activations::of_tuning(&config, &pass(rows, 128), 2)?.0 as f64;
            let by_hand = 5.1e9 * rows as f64;
            assert!((found / by_hand - 1.0).abs() < 0.05, "{rows}: {found}");
        }
        Ok(())
    }

    #[test]
    fn a_picture_is_decoded_in_the_largest_map_its_norm_and_both_in_blocks() {
        let vae: AutoencoderKlConfig = serde_json::from_value(json!({
            "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
            "block_out_channels": [128, 256, 512, 512],
        }))
        .expect("the fields of a VAE");
        // The last block but one of SDXL's decoder gives 256 channels: map, norm, norm in blocks, 128 in blocks, weights.
        let values = (256 + 256 + 256 + 128) * 512 * 512 + 9 * 256 * 128;
        let pictures = 2 * 3 * 4 * 512 * 512;
        let found = Activations::of_decoding(&vae, (512, 512), (1, 512 * 512), 4);
        assert_eq!(found.0, 4 * values + pictures);
    }

    #[test]
    fn rows_and_pixels_take_their_part() -> Result<()> {
        let config = unet(&[64, 128, 256], 2);
        let drawing = |pass: &PassSize| Activations::of_pass(&config, pass, 4).map(|a| a.0);
        let tuning = |pass: &PassSize| Activations::of_tuning(&config, pass, 4).map(|a| a.0);
        // Weights in blocks and keys and values of the text do not grow with pixels.
        for of in [&drawing as &dyn Fn(&PassSize) -> Result<u64>, &tuning] {
            let (one, four) = (of(&pass(1, 64))?, of(&pass(4, 64))?);
            assert!((3 * one..=4 * one).contains(&four), "{one}, {four}");
            let large = of(&pass(1, 128))?;
            assert!((3 * one..=4 * one).contains(&large), "{one}, {large}");
        }
        assert!(tuning(&pass(1, 64))? > 3 * drawing(&pass(1, 64))?);
        let watched = PassSize {
            watched: 1,
            known_tokens: 154,
            ..pass(3, 64)
        };
        assert!(drawing(&watched)? > drawing(&pass(3, 64))?);
        let steered = PassSize {
            controlnets: 1,
            ..pass(1, 64)
        };
        assert!(drawing(&steered)? > drawing(&pass(1, 64))?);
        let shared = PassSize {
            rows_without_text: 2,
            ..pass(3, 64)
        };
        assert!(drawing(&shared)? <= drawing(&pass(3, 64))?);
        Ok(())
    }

    const AS_IS: NetworkSize = NetworkSize {
        tensors: 0,
        file_bytes: 10,
        used_bytes: 5,
        converted_bytes: 0,
        largest_read: 0,
        is_embedded: false,
    };

    fn converted(bytes: u64) -> NetworkSize {
        NetworkSize {
            converted_bytes: bytes,
            ..AS_IS
        }
    }

    #[test]
    fn a_gpu_holds_weights_and_activations_alone() {
        let network = |used_bytes| NetworkSize {
            used_bytes,
            ..AS_IS
        };
        let networks = [(ModelPart::Unet, network(3)), (ModelPart::Vae, network(5))];
        let stage = |without, runs, bytes| MemoryStage {
            without,
            runs,
            activations: Activations(bytes),
        };
        let pass = stage(&[], &[ModelPart::Unet], 6);
        assert_eq!(peak_of_gpu(&networks, &[pass], false), 3 + 5 + 6);
        assert_eq!(peak_of_gpu(&networks, &[pass], true), 3 + 6);
        let decoding = stage(&[ModelPart::Unet], &[ModelPart::Vae], 2);
        assert_eq!(peak_of_gpu(&networks, &[decoding], false), 5 + 2);
        assert_eq!(peak_of_gpu(&networks, &[pass, decoding], true), 3 + 6);
    }

    #[test]
    fn a_cpu_holds_files_and_what_is_no_longer_as_in_them_while_a_stage_needs_it() {
        let networks = [
            (ModelPart::Text, converted(300)),
            (ModelPart::Unet, converted(200)),
            (ModelPart::Vae, AS_IS),
        ];
        let peak = |stages: &[MemoryStage], offload| {
            peak_of_process(1000, &networks, stages, offload) - KERNELS
        };
        let all = MemoryStage {
            without: &[],
            runs: &[],
            activations: Activations(40),
        };
        let late = MemoryStage {
            without: &[ModelPart::Text],
            runs: &[],
            activations: Activations(400),
        };
        assert_eq!(peak(&[all], false), 1000 + 30 + 500 + 50);
        assert_eq!(peak(&[late], false), 1000 + 30 + 200 + 500);
        assert_eq!(peak(&[all, late], false), 1000 + 30 + 200 + 500);
        assert_eq!(peak(&[all], true), 1000 + 30 + 300 + 50);
        let many = NetworkSize {
            tensors: 7,
            ..AS_IS
        };
        let of_many = peak_of_process(0, &[(ModelPart::Unet, many)], &[], false);
        assert_eq!(of_many, KERNELS + 10 + 7 * OF_A_TENSOR);
        let read = NetworkSize {
            largest_read: 60,
            ..AS_IS
        };
        let of_read = peak_of_process(0, &[(ModelPart::Unet, read)], &[all], false);
        assert_eq!(of_read, KERNELS + 10 + 60 + 50);
    }

    #[test]
    fn weights_that_loras_change_are_released_from_a_mapped_file_alone() {
        let merged = |bytes, is_embedded| {
            let size = NetworkSize {
                is_embedded,
                ..AS_IS
            };
            let NetworkSize {
                file_bytes,
                converted_bytes,
                ..
            } = size.merged(bytes);
            (file_bytes, converted_bytes)
        };
        assert_eq!(merged(3, false), (7, 3));
        assert_eq!(merged(9, false), (5, 5));
        assert_eq!(merged(3, true), (10, 3));
    }
}
