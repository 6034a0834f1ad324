//! Flags of the model: which model, on which device, and in which precision.

use clap::ValueEnum;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use super::one_or_many;
use super::setting::Acts::With;
use super::setting::Recorded::{Always, AsFound};
use super::setting::{any, settings, switch, whole, words};
use crate::device::Dtype;

/// Kernel of scaled dot-product attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKernel {
    /// The kernel that libtorch chooses.
    Auto,
    /// FlashAttention.
    Flash,
    /// The memory-efficient kernel.
    Efficient,
    /// The kernel of cuDNN.
    Cudnn,
    /// Plain matrix products and softmax, one after the other.
    Math,
}

settings! {
    /// The model, and where it runs.
    #[command(next_help_heading = "Model and device")]
    pub struct ModelFlags {
        /// Hugging Face repository, folder in diffusers layout, single-file checkpoint of SDXL or SD 1.5, or
        /// "toy" (built in) [default: stabilityai/stable-diffusion-xl-base-1.0; with base images or an actor,
        /// the model that they were made with]
        #[arg(short, long, value_name = "ID|FOLDER|FILE.safetensors|toy")]
        pub model: Option<String> = any().recorded(AsFound).other(r#""toy""#)
            .takes("repository, folder, `FILE.safetensors` or `toy`")
            .by_default("`stabilityai/stable-diffusion-xl-base-1.0`; with base images or an actor the model \
                that they were made with")
            .says("the paper's model (Sec. 4); SDXL, SD 1.5, SD 2.1 and their fine-tunes in diffusers layout; \
                SDXL and SD 1.5 also as a single file"),

        /// Weight files to prefer, for instance fp16 for name.fp16.safetensors [default: the plain files]
        #[arg(long, value_name = "NAME")]
        pub variant: Option<String> = any().recorded(Always).other(r#""fp16""#)
            .takes("text")
            .by_default("the plain files")
            .says("weight files to prefer, for instance `fp16` for `*.fp16.safetensors`; a component without \
                such files uses the plain ones"),

        /// Branch, tag or commit of the repository [default: main]
        #[arg(long, value_name = "REVISION")]
        pub revision: Option<String> = any().recorded(AsFound).other(r#""main""#)
            .takes("text")
            .by_default("`main`")
            .says("branch, tag or commit of the repository; a branch or tag stays at the commit of the first \
                download until `oneactor fetch MODEL --refresh`"),

        /// Another VAE, for instance madebyollin/sdxl-vae-fp16-fix [default: the model's own]
        #[arg(long, value_name = "ID|FOLDER")]
        pub vae: Option<String> = any().recorded(Always).other(r#""toy""#)
            .takes("repository, folder, or `FILE.safetensors` of a whole model")
            .by_default("the model's own")
            .says("another VAE; one that is made for fp16 saves memory"),

        /// LoRA to merge into the U-Net and the text encoders, with an optional scale; may be given several
        /// times [default: none; scale 1]
        #[arg(long, value_name = "FILE.safetensors[:SCALE]")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub lora: Option<Vec<String>> = any().recorded(AsFound).other(r#""lora.safetensors""#)
            .takes("`FILE.safetensors` or `FILE.safetensors:SCALE`, or a list of them")
            .by_default("none; scale 1")
            .says("merged into the U-Net and the text encoders: W + scale · alpha / rank · up · down; scales \
                from -10 to 10"),

        /// auto, cpu, cuda or cuda:N [default: auto, the first GPU or else the CPU]
        #[arg(long, value_name = "DEVICE")]
        pub device: Option<String> = words("auto").other(r#""cpu""#)
            .takes("`auto`, `cpu`, `cuda`, `cuda:N`")
            .says("`auto` is the first GPU, or else the CPU"),

        /// Number format of the networks [default: auto, fp32 on the CPU and fp16 on a GPU]
        #[arg(long, value_name = "DTYPE", value_enum)]
        pub dtype: Option<Dtype> = words("auto").recorded(AsFound).other(r#""bf16""#)
            .says("`auto` is fp32 on the CPU and fp16 on a GPU; projector, losses, scheduler and noise are \
                always fp32"),

        /// Use TF32 for fp32 on a GPU, which is faster and has an error of about 1e-3: true for matrix products
        /// and convolutions, false for neither [default: convolutions only]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub tf32: Option<bool> = switch().recorded(Always).other("true")
            .by_default("convolutions only, libtorch's default")
            .says("TF32 for fp32 on a GPU: a mantissa of 10 bits instead of 23. True: in matrix products and \
                convolutions; false: in neither. With `dtype` fp16 it affects only a VAE that stays in fp32. \
                Recorded with every picture and actor; refused on a CPU"),

        /// Attention kernel, for comparisons: auto, flash, efficient, cudnn or math; on a CPU auto, flash or
        /// math [default: auto, libtorch chooses]
        #[arg(long, value_name = "KERNEL", value_enum, hide_possible_values = true)]
        pub attention: Option<AttentionKernel> = words("auto").other(r#""math""#)
            .says("the only kernel that attention may use, for comparisons; results differ by rounding. A \
                kernel that cannot compute the job on the device is refused before the model is loaded, and \
                the message lists the kernels that can. On a GPU, flash and cudnn have no fp32, and flash has \
                no masks, so it cannot draw several actors or `consistory`. On a CPU there are `flash` and \
                `math`. The VAE is not restricted"),

        /// Let the VAE encode and decode pictures larger than a tile in overlapping tiles: less memory, more
        /// time, and different pixels, most of all where tiles meet [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub vae_tiling: Option<bool> = switch().recorded(AsFound).other("true")
            .says("pictures larger than a tile are encoded and decoded in tiles that overlap by a quarter and \
                are blended linearly, as in diffusers' `enable_vae_tiling`: less memory, more time, different \
                pixels, most of all where tiles meet. Recorded with every picture and actor. A warning says \
                when a picture is not larger than a tile, so that tiling has no effect"),

        /// Side of a tile in pixels, with --vae-tiling [default: the VAE's `sample_size`, 1024 for SDXL, 512
        /// for SD 1.5]
        #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
        pub vae_tile_size: Option<i64> = whole(32, 8192, None).acts(With("vae_tiling")).recorded(AsFound).other("32")
            .takes("pixels, 32 to 8192, a multiple of 4 latents (32 for SDXL)")
            .by_default("the VAE's `sample_size`: 1024 for SDXL, 512 for SD 1.5")
            .says("side of a tile, with `vae_tiling`; for pictures of 1024 px use less than 1024"),

        /// Keep only the running network in the device's memory: the text encoders, the U-Net or the VAE
        /// (ControlNets stay there). Same pictures, less memory, more time [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub cpu_offload: Option<bool> = switch().other("true")
            .says("only the running network is in the device's memory: the text encoders, the U-Net or the \
                VAE, each loaded again from its mapped files before it runs (ControlNets stay in memory). Same \
                pictures, more time. On a CPU it frees weights that were converted from another precision"),

        /// Do not use the network, only models on this machine [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub offline: Option<bool> = switch().other("true")
            .says("do not use the network, only models on this machine"),
    }
}
