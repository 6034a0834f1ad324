//! Networks that read finished pictures: image encoders, distances and masks.

pub mod clip_image_encoder;
pub mod clip_model;
pub mod clip_vision_model;
pub mod encoder_folder;
pub mod image_processor;
pub(crate) mod lpips;
pub(crate) mod patch_embedding;
pub mod sam;
pub mod vit;
