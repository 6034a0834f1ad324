//! Flags of the model: which one, where it runs, and in which precision.

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::one_or_many;

/// Number format of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// fp32 on the CPU, fp16 on a GPU.
    Auto,
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats.
    Fp16,
    /// bfloat16.
    Bf16,
}

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

/// Which model, and where it runs.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Model and device")]
pub struct ModelFlags {
    /// Hugging Face repository, folder in diffusers layout, SDXL or SD 1.5 in one file, or "toy"
    /// (built in)
    /// [default: stabilityai/stable-diffusion-xl-base-1.0; with base images or an actor, the model
    /// they were made with]
    #[arg(short, long, value_name = "ID|FOLDER|FILE.safetensors|toy")]
    pub model: Option<String>,

    /// Weight files to prefer, for instance fp16: name.fp16.safetensors [default: the plain files]
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,

    /// Branch, tag or commit of the repository [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,

    /// Another VAE, for instance madebyollin/sdxl-vae-fp16-fix [default: the model's own]
    #[arg(long, value_name = "ID|FOLDER")]
    pub vae: Option<String>,

    /// LoRA to merge into U-Net and text encoders, with how much of it; may be given several times
    /// [default: none; a scale is 1]
    #[arg(long, value_name = "FILE.safetensors[:SCALE]")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub lora: Option<Vec<String>>,

    /// auto, cpu, cuda or cuda:N [default: auto, the first GPU or else the CPU]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Number format of the networks [default: auto, fp32 on the CPU and fp16 on a GPU]
    #[arg(long, value_name = "DTYPE", value_enum)]
    pub dtype: Option<Dtype>,

    /// TF32 for f32 on a GPU, faster and with an error of about 1e-3: true everywhere, false nowhere
    /// [default: in convolutions only]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub tf32: Option<bool>,

    /// The kernel of attention, for comparing: auto, flash, efficient, cudnn or math; on a CPU auto, flash
    /// or math [default: auto, libtorch's choice]
    #[arg(long, value_name = "KERNEL", value_enum, hide_possible_values = true)]
    pub attention: Option<AttentionKernel>,

    /// Let the VAE encode and decode pictures larger than a tile in overlapping tiles: less memory,
    /// more time, and pixels that differ most where tiles meet [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub vae_tiling: Option<bool>,

    /// Side of a tile in pixels, with --vae-tiling [default: the VAE's own size, 1024 for SDXL, 512 for
    /// SD 1.5]
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub vae_tile_size: Option<i64>,

    /// Keep only the network that runs in the device's memory (ControlNets stay): the text encoders, the
    /// U-Net or the VAE, each uploaded when its turn comes; same pictures, less memory, more time [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub cpu_offload: Option<bool>,

    /// Use no network: only models that are on this machine [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub offline: Option<bool>,
}
