//! Weights, model files and pictures on disk.

pub mod a1111;
pub mod atomic;
pub mod bitmap_font;
pub mod blob;
pub mod canny;
pub mod contact_sheet;
pub mod finite_scan;
pub mod header;
pub mod html;
pub mod hub;
pub mod ip_adapter;
mod ldm_names;
pub mod lora;
pub mod low_rank;
mod mapped;
pub mod model_files;
mod model_layout;
pub mod photo;
pub mod png;
pub mod resize;
pub mod single_file;
pub mod tensors;
pub mod toy;
mod upload;
pub mod values;
pub mod weights;
pub mod writable;
