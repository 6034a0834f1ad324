//! The frozen networks, from their checkpoint's own `config.json`, compared with Python diffusers
//! and transformers.
//!
//! Letters in shapes: B batch, C channels, H W size, S tokens, D width of a token. Images and
//! latents are `[B, C, H, W]`, token sequences `[B, S, D]`.

pub mod attention;
pub mod autoencoder_kl;
pub mod clip_layer;
pub mod clip_text_model;
pub mod config;
pub mod layers;
pub mod resnet;
pub mod tiling;
pub mod unet;
pub mod vision;
