//! The origin of tuned files: base images, model and photo.

use std::collections::BTreeMap;

use super::base_set::BaseFacts;

/// A user's photo that is the target in place of a base image.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetImage {
    /// Name of the photo's file, without the folder.
    pub name: String,
    /// CRC-32 of the photo's file, eight hexadecimal digits.
    pub crc32: String,
}

/// Key of [`Origin::base_crc32`].
pub const BASE_CRC32: &str = "base_crc32";

/// Key of [`TargetImage::crc32`].
pub const TARGET_IMAGE_CRC32: &str = "target_image_crc32";

/// The origin that a tuned file records.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The base images, and the model of the tuning.
    pub facts: BaseFacts,
    /// The photo, if the target was a photo.
    pub target_image: Option<TargetImage>,
    /// CRC-32 of the file of the base set; files of earlier versions do not record it.
    pub base_crc32: Option<String>,
}

impl Origin {
    /// The origin as text for a file's metadata.
    pub fn metadata(&self, format: &str) -> BTreeMap<String, String> {
        let mut metadata = self.facts.to_metadata();
        metadata.insert("format".to_owned(), format.to_owned());
        if let Some(TargetImage { name, crc32 }) = self.target_image.clone() {
            let entries = [("target_image", name), (TARGET_IMAGE_CRC32, crc32)];
            metadata.extend(entries.map(|(key, value)| (key.to_owned(), value)));
        }
        if let Some(crc32) = &self.base_crc32 {
            metadata.insert(BASE_CRC32.to_owned(), crc32.clone());
        }
        metadata
    }
}
