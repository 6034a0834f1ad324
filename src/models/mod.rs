//! The frozen networks, built from their checkpoint's own `config.json` and compared with Python
//! diffusers and transformers.
//!
//! Letters in shapes: B batch, C channels, H W size, S tokens, D width of a token. Images and
//! latents are `[B, C, H, W]`, token sequences `[B, S, D]`.

pub(crate) mod attention;
pub mod autoencoder_kl;
pub(crate) mod clip_layer;
pub mod clip_text_model;
pub(crate) mod config;
pub(crate) mod layers;
pub(crate) mod resnet;
pub(crate) mod tiling;
pub mod unet;
pub mod vision;
