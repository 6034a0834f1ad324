//! The U-Net, the parts that read prompts and pictures in it, and the ControlNets that steer it.

pub mod attention_probe;
pub mod controlnet;
pub mod cross_attention;
pub(crate) mod embeddings;
pub(crate) mod ip_adapter;
pub mod shared_attention;
pub(crate) mod shared_rows;
pub(crate) mod text_memory;
pub(crate) mod time_conditions;
pub mod token_mask;
pub(crate) mod transformer_2d;
pub(crate) mod unet_2d_blocks;
pub mod unet_2d_condition;
