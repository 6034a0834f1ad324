//! Flags of the model: which one, where it runs, and in which precision.

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
    /// What libtorch finds best.
    Auto,
    /// FlashAttention.
    Flash,
    /// The memory-efficient one.
    Efficient,
    /// cuDNN's.
    Cudnn,
    /// Products and softmax one after the other.
    Math,
}

settings! {
    /// Which model, and where it runs.
    #[command(next_help_heading = "Model and device")]
    pub struct ModelFlags {
        /// Hugging Face repository, folder in diffusers layout, SDXL or SD 1.5 in one file, or "toy"
        /// (built in)
        /// [default: stabilityai/stable-diffusion-xl-base-1.0; with base images or an actor, the model
        /// they were made with]
        #[arg(short, long, value_name = "ID|FOLDER|FILE.safetensors|toy")]
        pub model: Option<String> = any().recorded(AsFound).other(r#""toy""#)
            .takes("repository, folder, `FILE.safetensors` or `toy`")
            .by_default("`stabilityai/stable-diffusion-xl-base-1.0`; elsewhere the model that the base images were drawn \
                with")
            .says("the paper's model (Sec. 4); SDXL, SD 1.5, SD 2.1 and their fine-tunes in diffusers layout, SDXL and SD \
                1.5 in a single file"),

        /// Weight files to prefer, for instance fp16: name.fp16.safetensors [default: the plain files]
        #[arg(long, value_name = "NAME")]
        pub variant: Option<String> = any().recorded(Always).other(r#""fp16""#)
            .takes("text")
            .by_default("the plain files")
            .says("weight files to prefer, `fp16` for `*.fp16.safetensors`; a component without them falls back to the \
                plain ones"),

        /// Branch, tag or commit of the repository [default: main]
        #[arg(long, value_name = "REVISION")]
        pub revision: Option<String> = any().recorded(AsFound).other(r#""main""#)
            .takes("text")
            .by_default("`main`")
            .says("branch, tag or commit of the repository; a branch or tag keeps the commit that it had when it was \
                fetched first, until `oneactor fetch MODEL --refresh` renews it"),

        /// Another VAE, for instance madebyollin/sdxl-vae-fp16-fix [default: the model's own]
        #[arg(long, value_name = "ID|FOLDER")]
        pub vae: Option<String> = any().recorded(Always).other(r#""toy""#)
            .takes("repository, folder, or `FILE.safetensors` of a whole model")
            .by_default("the model's own")
            .says("another VAE; one that is safe in fp16 saves memory"),

        /// LoRA to merge into U-Net and text encoders, with how much of it; may be given several times
        /// [default: none; a scale is 1]
        #[arg(long, value_name = "FILE.safetensors[:SCALE]")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub lora: Option<Vec<String>> = any().recorded(AsFound).other(r#""lora.safetensors""#)
            .takes("`FILE.safetensors` or `FILE.safetensors:SCALE`, or a list of such")
            .by_default("none; a scale is 1")
            .says("merged into U-Net and text encoders: W + scale · alpha / rank · up · down; scales from -10 to 10"),

        /// auto, cpu, cuda or cuda:N [default: auto, the first GPU or else the CPU]
        #[arg(long, value_name = "DEVICE")]
        pub device: Option<String> = words("auto").other(r#""cpu""#)
            .takes("`auto`, `cpu`, `cuda`, `cuda:N`")
            .says("the first GPU, else the CPU"),

        /// Number format of the networks [default: auto, fp32 on the CPU and fp16 on a GPU]
        #[arg(long, value_name = "DTYPE", value_enum)]
        pub dtype: Option<Dtype> = words("auto").recorded(AsFound).other(r#""bf16""#)
            .says("fp32 on the CPU, fp16 on a GPU; projector, losses, scheduler and noise are always fp32"),

        /// TF32 for f32 on a GPU, faster and with an error of about 1e-3: true everywhere, false nowhere
        /// [default: in convolutions only]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub tf32: Option<bool> = switch().recorded(Always).other("true")
            .by_default("in convolutions only, libtorch's choice")
            .says("TF32 for f32 on a GPU: 10 bits of mantissa in place of 23, in matrix products and convolutions; true: \
                in both, false: in neither; with `dtype` fp16 it concerns the VAE where that stays in f32; recorded with \
                every picture and actor; refused on a CPU"),

        /// The kernel of attention, for comparing: auto, flash, efficient, cudnn or math; on a CPU auto, flash
        /// or math [default: auto, libtorch's choice]
        #[arg(long, value_name = "KERNEL", value_enum, hide_possible_values = true)]
        pub attention: Option<AttentionKernel> = words("auto").other(r#""math""#)
            .says("the only kernel that attention may use, for comparing; results differ by rounding; libtorch is asked \
                before the model is loaded, and what the kernel cannot compute on the device is refused with the kernels \
                that can: on a GPU flash and cudnn have no fp32, and flash no masks, so no several actors and no \
                `consistory`; the VAE chooses freely; on a CPU there are `flash` and `math`"),

        /// Let the VAE encode and decode pictures larger than a tile in overlapping tiles: less memory,
        /// more time, and pixels that differ most where tiles meet [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub vae_tiling: Option<bool> = switch().recorded(AsFound).other("true")
            .says("pictures larger than a tile are encoded and decoded in tiles that overlap by a quarter and are blended \
                linearly, as `enable_vae_tiling` of diffusers: less memory, more time, other pixels, most of all where \
                tiles meet; recorded with every picture and actor; a warning tells where a picture is no larger than a \
                tile"),

        /// Side of a tile in pixels, with --vae-tiling [default: the VAE's own size, 1024 for SDXL, 512 for
        /// SD 1.5]
        #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
        pub vae_tile_size: Option<i64> = whole(32, 8192, None).acts(With("vae_tiling")).recorded(AsFound).other("32")
            .takes("pixels, 32 to 8192, a multiple of 4 latents (32 for SDXL)")
            .by_default("the VAE's `sample_size`: 1024 for SDXL, 512 for SD 1.5")
            .says("side of a tile, with `vae_tiling`; pictures of 1024 px need less than 1024"),

        /// Keep only the network that runs in the device's memory (ControlNets stay): the text encoders, the
        /// U-Net or the VAE, each uploaded when its turn comes; same pictures, less memory, more time [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub cpu_offload: Option<bool> = switch().other("true")
            .says("only the network that runs is in the device's memory: the text encoders, the U-Net or the VAE, each \
                made again from its mapped files when its turn comes (ControlNets stay); same pictures, more time; on a \
                CPU it frees weights that were converted from another precision"),

        /// Use no network: only models that are on this machine [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub offline: Option<bool> = switch().other("true")
            .says("use only what is on this machine"),
    }
}
