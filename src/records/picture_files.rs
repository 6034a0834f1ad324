//! A picture and the files beside it: latents and masks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::PictureRecord;
use super::differences::{changed_sources, differences};
use crate::config::batch::Settings;
use crate::error::usage;
use crate::io::real_path::folder_of;

/// The files of the picture at a path.
#[derive(Clone, Copy, Debug)]
pub struct PictureFiles<'a>(pub &'a Path);

impl PictureFiles<'_> {
    /// The latents that `--save-latents` writes.
    pub fn latents(&self) -> PathBuf {
        self.0.with_extension("safetensors")
    }

    /// The masks that `--save-masks` writes, one for each base word, such as `0000-7-mask-cat.png` beside
    /// `0000-7.png`. A hyphen replaces each character that a file name should not contain. Words that are then
    /// equal are numbered.
    pub fn masks<'a>(&self, words: impl Iterator<Item = &'a String>) -> Vec<PathBuf> {
        let start = self.start_of_masks();
        let mut paths: Vec<PathBuf> = Vec::new();
        for word in words {
            let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
            let word: String = word.chars().map(plain).collect();
            let numbered = |i: usize| match i {
                1 => self.0.with_file_name(format!("{start}{word}.png")),
                i => self.0.with_file_name(format!("{start}{word}-{i}.png")),
            };
            paths.extend((1..).map(numbered).find(|path| !paths.contains(path)));
        }
        paths
    }

    /// The existing masks of any words, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn masks_there(&self) -> Result<Vec<PathBuf>> {
        let folder = folder_of(self.0);
        let start = self.start_of_masks();
        let mut found = Vec::new();
        for entry in
            fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&start) && name.ends_with(".png") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn start_of_masks(&self) -> String {
        let stem = self.0.file_stem().unwrap_or_default().to_string_lossy();
        format!("{stem}-mask-")
    }

    /// Whether the picture exists and was drawn with these settings and sources.
    ///
    /// # Errors
    /// When the picture was drawn with others, or the file is not a picture of this program.
    pub fn is_drawn(&self, settings: &Settings, sources: &Settings) -> Result<bool> {
        if !self.0.exists() {
            return Ok(false);
        }
        let way_out = "choose another --output-dir, or draw it again with --overwrite";
        let there = PictureRecord::read(self.0)
            .with_context(|| format!("a file with this name already exists ({way_out})"))?;
        let mut found = differences(&there.parameters, settings);
        found.extend(changed_sources(sources, |key| there.facts.get(key)));
        if found.is_empty() {
            return Ok(true);
        }
        Err(usage(format!(
            "{} was drawn with other settings ({}): {way_out}",
            self.0.display(),
            found.join("; ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_words_that_read_alike_are_numbered() {
        let words = ["red cat", "red-cat", "Hut"].map(str::to_owned);
        let masks = PictureFiles(Path::new("out/0000-7.png")).masks(words.iter());
        let expected = ["red-cat", "red-cat-2", "Hut"];
        let expected = expected.map(|word| PathBuf::from(format!("out/0000-7-mask-{word}.png")));
        assert_eq!(masks, expected);
    }

    #[test]
    fn masks_are_found_beside_their_picture() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("oneactor-masks-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        for name in [
            "0-mask-b.png",
            "0-mask-a.png",
            "0-mask-a.txt",
            "00-mask-a.png",
            "0.png",
        ] {
            fs::write(folder.join(name), "")?;
        }
        let found = PictureFiles(&folder.join("0.png")).masks_there();
        fs::remove_dir_all(&folder)?;
        assert_eq!(
            found?,
            ["0-mask-a.png", "0-mask-b.png"].map(|name| folder.join(name))
        );
        Ok(())
    }
}
