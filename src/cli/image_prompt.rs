//! Flags of the baseline IP-Adapter.

use clap::Args;
use serde::{Deserialize, Serialize};

/// What IP-Adapter shows the model beside the prompt, and how much it counts.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "IP-Adapter (--method ip-adapter)")]
pub struct ImagePromptFlags {
    /// The adapter: its .safetensors file, a repository laid out as h94/IP-Adapter, or a copy of one
    /// [default: h94/IP-Adapter; for the toy its own]
    #[arg(long, value_name = "FILE|ID|FOLDER")]
    pub ip_adapter: Option<String>,

    /// The CLIP that the adapter was trained with, with config.json and model.safetensors [default: that
    /// beside the adapter, else the one in h94/IP-Adapter]
    #[arg(long, value_name = "ID|FOLDER")]
    pub image_encoder: Option<String>,

    /// Weight of the image prompt, λ of the paper; 0 leaves it out [default: 0.6, as the authors' and diffusers'
    /// examples have it where a prompt stands beside the picture]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub ip_adapter_scale: Option<f64>,
}
