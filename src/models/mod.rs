//! The frozen networks, from their checkpoint's own `config.json`, compared with Python diffusers
//! and transformers.
//!
//! Letters in shapes: B batch, C channels, H W size, S tokens, D width of a token. Images and
//! latents are `[B, C, H, W]`, token sequences `[B, S, D]`.

pub mod attention;
pub mod autoencoder_kl;
pub mod clip_image_encoder;
pub mod clip_layer;
pub mod clip_model;
pub mod clip_text_model;
pub mod clip_vision_model;
pub mod config;
pub mod controlnet;
pub mod cross_attention;
pub mod embeddings;
pub mod encoder_folder;
pub mod image_processor;
pub mod ip_adapter;
pub mod layers;
pub mod lpips;
pub mod patch_embedding;
pub mod resnet;
pub mod sam;
pub mod shared_attention;
pub mod shared_rows;
pub mod text_memory;
pub mod tiling;
pub mod time_conditions;
pub mod transformer_2d;
pub mod unet_2d_blocks;
pub mod unet_2d_condition;
pub mod vit;
