//! The files of a folder of base images.

use std::path::{Path, PathBuf};

/// The sheet of all pictures of a folder …
pub(crate) const GRID: &str = "grid.png";

/// The files of a base folder.
pub struct BaseFolder<'a>(pub &'a Path);

impl BaseFolder<'_> {
    pub fn images(&self) -> PathBuf {
        self.0.join("base")
    }
    pub fn image(&self, index: usize) -> PathBuf {
        self.images().join(format!("{index:02}.png"))
    }
    pub fn grid(&self) -> PathBuf {
        self.0.join(GRID)
    }
    pub fn tensors(&self) -> PathBuf {
        self.0.join("base.safetensors")
    }
    pub fn config(&self) -> PathBuf {
        self.0.join("base.json")
    }
    /// Latents and features of images that are drawn, while the others are not.
    pub fn parts(&self) -> PathBuf {
        self.0.join(".base-parts")
    }
    pub fn preview(&self) -> PathBuf {
        self.0.join("preview.png")
    }
    pub fn part(&self, index: usize) -> PathBuf {
        self.parts().join(format!("{index:02}.safetensors"))
    }
    pub fn parts_config(&self) -> PathBuf {
        self.parts().join("settings.json")
    }
    /// Those of so many images that are not drawn yet.
    pub fn missing(&self, num_images: usize) -> Vec<usize> {
        let is_there = |&index: &usize| self.part(index).is_file() && self.image(index).is_file();
        (0..num_images).filter(|index| !is_there(index)).collect()
    }
}

/// Whether `generate-base` has drawn in a folder, or has begun to.
pub fn is_base_folder(folder: &Path) -> bool {
    let layout = BaseFolder(folder);
    layout.config().is_file() || layout.tensors().is_file() || layout.parts().is_dir()
}

/// Whether base images are being drawn into a folder, or a process that did so was stopped: those that are there may be
/// of two sets.
pub fn is_unfinished(folder: &Path) -> bool {
    let layout = BaseFolder(folder);
    layout.parts().is_dir() && !layout.config().is_file()
}
