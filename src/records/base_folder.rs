//! The folder that `generate-base` draws in.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::BaseRecord;
use super::differences::{changed_sources, differences};
use crate::config::batch::Settings;
use crate::error::usage;
use crate::io::checksum::crc32_of;
use crate::io::text;

/// Name of the folder of the images.
const IMAGES: &str = "base";

/// The folder of a set of base images.
#[derive(Clone, Copy, Debug)]
pub struct BaseFolder<'a>(pub &'a Path);

impl<'a> BaseFolder<'a> {
    /// Name of the record, see [`BaseRecord`].
    pub const RECORD: &'static str = "base.json";

    /// Name of the base set: latents and encoder features of all images.
    pub const SET: &'static str = "base.safetensors";

    /// Name of the numbered sheet of all images.
    pub const GRID: &'static str = "grid.png";

    /// The folder of `file`, which is a base set, or an actor that was tuned on it.
    pub fn beside(file: &'a Path) -> Self {
        Self(file.parent().unwrap_or(Path::new("")))
    }

    /// Name of image `index` below the folder, such as `base/03.png`.
    pub fn image_name(index: usize) -> String {
        format!("{IMAGES}/{index:02}.png")
    }

    /// The folder of the images.
    pub fn images(&self) -> PathBuf {
        self.0.join(IMAGES)
    }

    /// Image `index`, counted from 0.
    pub fn image(&self, index: usize) -> PathBuf {
        self.0.join(Self::image_name(index))
    }

    /// The numbered sheet of all images.
    pub fn grid(&self) -> PathBuf {
        self.0.join(Self::GRID)
    }

    /// The base set.
    pub fn set(&self) -> PathBuf {
        self.0.join(Self::SET)
    }

    /// The record, see [`BaseRecord`].
    pub fn record(&self) -> PathBuf {
        self.0.join(Self::RECORD)
    }

    /// The sheet of `--preview-every`, which exists while images are drawn.
    pub fn preview(&self) -> PathBuf {
        self.0.join("preview.png")
    }

    /// The folder of the latents and features of finished images, which exists until all images are drawn.
    pub fn parts(&self) -> PathBuf {
        self.0.join(".base-parts")
    }

    /// Latents and features of image `index`.
    pub fn part(&self, index: usize) -> PathBuf {
        self.parts().join(format!("{index:02}.safetensors"))
    }

    /// The settings that the parts were made with.
    pub fn parts_settings(&self) -> PathBuf {
        self.parts().join("settings.json")
    }

    /// Whether there is a base set.
    pub fn has_set(&self) -> bool {
        self.set().is_file()
    }

    /// Whether the base set is the one with this CRC-32.
    ///
    /// # Errors
    /// When the base set cannot be read.
    pub fn has_set_with(&self, crc32: &str) -> Result<bool> {
        Ok(crc32_of(&self.set())? == crc32)
    }

    /// Whether `generate-base` has started or finished drawing here.
    pub fn is_begun(&self) -> bool {
        self.record().is_file() || self.has_set() || self.parts().is_dir()
    }

    /// Whether base images are being drawn here, or a process that drew them was stopped. The existing images
    /// may then belong to two sets.
    pub fn is_unfinished(&self) -> bool {
        self.parts().is_dir() && !self.record().is_file()
    }

    /// Numbers of the images, of `num_images`, that an unfinished run has not drawn yet.
    pub fn missing(&self, num_images: usize) -> Vec<usize> {
        let is_there = |&index: &usize| self.part(index).is_file() && self.image(index).is_file();
        (0..num_images).filter(|index| !is_there(index)).collect()
    }

    /// Whether all of `num_images` images are there, drawn with these settings and sources.
    ///
    /// # Errors
    /// When the folder contains images of other or unknown settings.
    pub fn is_finished(
        &self,
        num_images: usize,
        settings: &Settings,
        sources: &Settings,
    ) -> Result<bool> {
        let folder = self.0.display();
        let Ok(text) = text::read(&self.record()) else {
            if self.has_set() && !self.is_unfinished() {
                return Err(usage(format!(
                    "{folder} has a base set, but no {} that records its settings: choose another \
                    --output-dir, or draw it again with --overwrite",
                    Self::RECORD
                )));
            }
            return Ok(false);
        };
        // All settings of a record that cannot be read count as others.
        let there = BaseRecord::parse(&text, Self::RECORD).unwrap_or_default();
        let mut found = differences(&there.parameters, settings);
        found.extend(changed_sources(sources, |key| {
            there.details.sources.get(key)
        }));
        if !found.is_empty() {
            return Err(usage(format!(
                "{folder} has base images drawn with other settings ({}): choose another --output-dir, or draw \
                them again with --overwrite",
                found.join("; ")
            )));
        }
        let has_images = (0..num_images).all(|index| self.image(index).is_file());
        Ok(self.has_set() && has_images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::base_record::BaseDetails;
    use crate::records::job_record::RunFacts;
    use std::fs;

    #[test]
    fn a_set_is_finished_when_record_set_and_images_are_there() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-base-{}", std::process::id()));
        let folder = BaseFolder(&path);
        let settings: Settings = serde_json::from_str(r#"{"steps": 4}"#)?;
        let others: Settings = serde_json::from_str(r#"{"steps": 5}"#)?;
        let none = Settings::new();
        fs::create_dir_all(folder.images())?;
        assert!(!folder.is_begun() && !folder.is_finished(1, &settings, &none)?);
        fs::write(folder.set(), "")?;
        let unknown = folder
            .is_finished(1, &settings, &none)
            .map_err(|e| e.to_string());
        BaseRecord::new(
            settings.clone(),
            RunFacts::default(),
            BaseDetails::default(),
        )
        .write(&folder.record())?;
        let without_image = folder.is_finished(1, &settings, &none)?;
        fs::write(folder.image(0), "")?;
        let with_image = folder.is_finished(1, &settings, &none)?;
        let other = folder
            .is_finished(1, &others, &none)
            .map_err(|e| e.to_string());
        let sources: Settings = serde_json::from_str(r#"{"control_image_crc32": "0"}"#)?;
        let changed = folder
            .is_finished(1, &settings, &sources)
            .map_err(|e| e.to_string());
        let (is_empty, missing) = (folder.has_set_with("00000000")?, folder.missing(2));
        fs::remove_dir_all(&path)?;
        assert!(
            unknown.is_err_and(|error| error.contains("no base.json that records its settings"))
        );
        assert!(other.is_err_and(|error| error.contains("(steps: was 4, is now 5)")));
        assert!(changed.is_err_and(|error| error.contains("(control_image has changed since)")));
        assert!(!without_image && with_image && is_empty);
        assert_eq!(missing, [0, 1]);
        Ok(())
    }
}
