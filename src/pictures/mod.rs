//! Pictures: reading, writing, resizing, edges, and sheets of many.

pub mod bitmap_font;
pub mod canny;
pub mod contact_sheet;
mod jpeg;
pub mod photo;
pub mod pixels;
pub mod png;
pub mod resize;
