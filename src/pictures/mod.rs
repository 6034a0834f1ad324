//! Pictures: reading, writing, resizing, edges, and sheets of many.

pub(crate) mod bitmap_font;
pub mod canny;
pub(crate) mod contact_sheet;
mod jpeg;
pub mod photo;
pub(crate) mod pixels;
pub mod png;
pub mod resize;
