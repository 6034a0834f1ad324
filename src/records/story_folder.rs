//! The folder that `story` writes into.

use std::path::{Path, PathBuf};

use super::SceneFolder;

/// A story: its page, its pictures, and the characters that are made for it.
#[derive(Clone, Copy, Debug)]
pub struct StoryFolder<'a>(pub &'a Path);

impl<'a> StoryFolder<'a> {
    /// Start of the names of the pictures in the manifest.
    pub const PICTURES: &'static str = "pictures/";

    /// The folder of the pictures' manifest and sheet.
    pub fn scenes(&self) -> SceneFolder<'a> {
        SceneFolder(self.0)
    }

    /// The folder of the pictures.
    pub fn pictures(&self) -> PathBuf {
        self.0.join(Self::PICTURES.trim_end_matches('/'))
    }

    /// The picture of scene `index`, counted from 0.
    pub fn picture(&self, index: usize, seed: i64) -> PathBuf {
        let name = SceneFolder::picture_name(Self::PICTURES, index, seed);
        self.0.join(name)
    }

    /// The folder of the character `name`: base images, and the actor that was tuned on them.
    pub fn character(&self, name: &str) -> PathBuf {
        self.0.join("characters").join(name)
    }

    /// The page.
    pub fn page(&self) -> PathBuf {
        self.0.join("index.html")
    }

    /// Whether the story is finished, provided that no other file is missing: the page is written last.
    pub fn is_finished(&self) -> bool {
        self.page().is_file()
    }
}
