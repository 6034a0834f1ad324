//! Flags of the baseline IP-Adapter.

use super::Method;
use super::setting::Acts;
use super::setting::Recorded::AsFound;
use super::setting::{any, number, settings};

/// What they act with.
const IP_ADAPTER: Acts = Acts::WithMethod(&[Method::IpAdapter]);

settings! {
    /// What IP-Adapter shows the model beside the prompt, and how much it counts.
    #[command(next_help_heading = "IP-Adapter (--method ip-adapter)")]
    pub struct ImagePromptFlags {
        /// The adapter: its .safetensors file, a repository laid out as h94/IP-Adapter, or a copy of one
        /// [default: h94/IP-Adapter; for the toy its own]
        #[arg(long, value_name = "FILE|ID|FOLDER")]
        pub ip_adapter: Option<String> = any().acts(IP_ADAPTER).recorded(AsFound).other(r#""toy""#)
            .takes("safetensors file, repository, folder")
            .by_default("`h94/IP-Adapter`; for the toy `toy`, its own")
            .says("a repository or a copy of one has `sdxl_models/ip-adapter_sdxl.safetensors` (for SD 1.5 \
                `models/ip-adapter_sd15.safetensors`); adapters with a resampler (\"plus\") or for faces are refused"),

        /// The CLIP that the adapter was trained with, with config.json and model.safetensors [default: that
        /// beside the adapter, else the one in h94/IP-Adapter]
        #[arg(long, value_name = "ID|FOLDER")]
        pub image_encoder: Option<String> = any().acts(IP_ADAPTER).recorded(AsFound).other(r#""toy""#)
            .takes("repository, folder")
            .by_default("`image_encoder` beside the adapter, else that in `h94/IP-Adapter`")
            .says("the CLIP that the adapter was trained with, a `CLIPVisionModelWithProjection` or a `CLIPModel`; \
                pictures are prepared as its `preprocessor_config.json` or `processor_config.json` says, without one as \
                diffusers does: CLIP's means, the shorter side resized to the encoder's, the middle kept"),

        /// Weight of the image prompt, λ of the paper; 0 leaves it out [default: 0.6, as the authors' and diffusers'
        /// examples have it where a prompt stands beside the picture]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        pub ip_adapter_scale: Option<f64> = number(0.0, 10.0, Some(0.6)).acts(IP_ADAPTER).recorded(AsFound).other("0.2")
            .says("λ of `Attention(Q, K, V) + λ Attention(Q, K', V')`; 0.6 is that of the authors' and diffusers' \
                examples with a prompt beside the picture, the paper has 1 for pictures without one"),
    }
}
