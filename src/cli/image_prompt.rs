//! Flags of the baseline IP-Adapter.

use super::Method;
use super::setting::Acts;
use super::setting::Recorded::AsFound;
use super::setting::{any, number, settings};

/// These flags have an effect only with IP-Adapter.
const IP_ADAPTER: Acts = Acts::WithMethod(&[Method::IpAdapter]);

settings! {
    /// The adapter of an image prompt, its image encoder and its weight.
    #[command(next_help_heading = "IP-Adapter (--method ip-adapter)")]
    pub struct ImagePromptFlags {
        /// The adapter: a .safetensors file, a repository with the layout of h94/IP-Adapter, or a local copy of
        /// one [default: h94/IP-Adapter; for the toy model its built-in adapter]
        #[arg(long, value_name = "FILE|ID|FOLDER")]
        pub ip_adapter: Option<String> = any().acts(IP_ADAPTER).recorded(AsFound).other(r#""toy""#)
            .takes("safetensors file, repository, folder")
            .by_default("`h94/IP-Adapter`; for the toy model `toy`, the built-in adapter")
            .says("a repository or a local copy of one must contain `sdxl_models/ip-adapter_sdxl.safetensors` \
                (for SD 1.5 `models/ip-adapter_sd15.safetensors`); adapters with a resampler (\"plus\") and \
                adapters for faces are refused"),

        /// The CLIP model that the adapter was trained with: config.json and model.safetensors [default: the
        /// one beside the adapter, or else the one in h94/IP-Adapter]
        #[arg(long, value_name = "ID|FOLDER")]
        pub image_encoder: Option<String> = any().acts(IP_ADAPTER).recorded(AsFound).other(r#""toy""#)
            .takes("repository, folder")
            .by_default("`image_encoder` beside the adapter, or else the one in `h94/IP-Adapter`")
            .says("the CLIP model that the adapter was trained with, a `CLIPVisionModelWithProjection` or a \
                `CLIPModel`. Pictures are prepared by its `preprocessor_config.json` or \
                `processor_config.json`; without these files as in diffusers: CLIP's means, the shorter side \
                resized to the encoder's size, the middle kept"),

        /// Weight of the image prompt, λ of its paper; 0 leaves the image out [default: 0.6, as in the authors'
        /// and diffusers' examples with both a prompt and a picture]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        pub ip_adapter_scale: Option<f64> = number(0.0, 10.0, Some(0.6)).acts(IP_ADAPTER).recorded(AsFound).other("0.2")
            .says("λ of `Attention(Q, K, V) + λ Attention(Q, K', V')`; 0.6 is the value in the authors' and \
                diffusers' examples with both a prompt and a picture; the paper uses 1 for pictures without a \
                prompt"),
    }
}
