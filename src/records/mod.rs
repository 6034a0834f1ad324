//! What the program leaves on disk: the records of how results were made, and the folders that they lie in.
//!
//! A file's name stands in one place, the type of its folder, and the keys of a JSON file in one place, the type of its
//! record.

pub mod differences;
mod json;
pub mod picture_record;

pub use picture_record::PictureRecord;
