//! The U-Net, what reads prompts and pictures in it, and the ControlNets that steer it.

pub mod controlnet;
pub mod cross_attention;
pub mod embeddings;
pub mod ip_adapter;
pub mod shared_attention;
pub mod shared_rows;
pub mod text_memory;
pub mod time_conditions;
pub mod token_mask;
pub mod transformer_2d;
pub mod unet_2d_blocks;
pub mod unet_2d_condition;
