//! The folder that `sample`, `sweep`, `ablate` and `story` list their pictures in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::BaseFolder;
use crate::config::shard::Shard;

/// Name of the sheet of the pictures in a folder in which the base images have a sheet with the usual name.
const SCENES: &str = "scenes.png";

/// A folder of pictures with their manifest and sheets.
#[derive(Clone, Copy, Debug)]
pub struct SceneFolder<'a>(pub &'a Path);

impl SceneFolder<'_> {
    /// Name of the list of all pictures.
    pub const MANIFEST: &'static str = "manifest.jsonl";

    /// Start of the names of the plain pictures that `--compare` draws.
    pub const PLAIN: &'static str = "plain/";

    /// Name of picture `index` of a job. `prefix` distinguishes the pictures of several jobs in one folder.
    pub fn picture_name(prefix: &str, index: usize, seed: i64) -> String {
        format!("{prefix}{index:04}-{seed}.png")
    }

    /// The name of a picture without its ending, in one line of a preview.
    pub fn label(name: &str) -> String {
        name.trim_end_matches(".png").replace('/', " ")
    }

    /// Whether the picture `name` is a plain picture of `--compare`.
    pub fn is_plain(name: &str) -> bool {
        name.starts_with(Self::PLAIN)
    }

    /// The folder of the plain pictures.
    pub fn plain(&self) -> PathBuf {
        self.0.join(Self::PLAIN.trim_end_matches('/'))
    }

    /// The list of all pictures, or of the pictures of one part of the work.
    pub fn manifest(&self, shard: Shard) -> PathBuf {
        if shard.is_whole() {
            self.0.join(Self::MANIFEST)
        } else {
            self.0.join(format!("manifest-{}.jsonl", shard.label()))
        }
    }

    /// The part of the work that the manifest `name` lists: its index from 1, and the number of parts.
    pub fn part_of_manifest(name: &str) -> Option<(usize, usize)> {
        let inner = name.strip_prefix("manifest-")?.strip_suffix(".jsonl")?;
        let (index, count) = inner.split_once("-of-")?;
        Some((index.parse().ok()?, count.parse().ok()?))
    }

    /// Whether `name` is that of a manifest, whole or of a part.
    pub fn is_manifest(name: &str) -> bool {
        name == Self::MANIFEST || Self::part_of_manifest(name).is_some()
    }

    /// Names of the existing manifests, in the order of the folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn manifests(&self) -> Result<Vec<String>> {
        let reading = || format!("reading {}", self.0.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(self.0).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            let name = name.to_string_lossy().into_owned();
            found.extend(Self::is_manifest(&name).then_some(name));
        }
        Ok(found)
    }

    /// Whether there are manifests of `--shard` that are not merged.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn has_parts(&self) -> Result<bool> {
        let manifests = self.manifests()?;
        let mut manifests = manifests.iter();
        Ok(manifests.any(|name| Self::part_of_manifest(name).is_some()))
    }

    /// The record of a merge: the manifests of parts that are merged and will be removed.
    pub fn merged(&self) -> PathBuf {
        self.0.join(".merged.json")
    }

    /// The sheet of `--preview-every`, one for each part of the work.
    pub fn preview(&self, shard: Shard) -> PathBuf {
        if shard.is_whole() {
            self.0.join("preview.png")
        } else {
            self.0.join(format!("preview-{}.png", shard.label()))
        }
    }

    /// The sheet of all pictures. The sheet of base images keeps the name `grid.png`, because `tune` chooses by its
    /// numbers.
    pub fn grid(&self) -> PathBuf {
        let has_base_images = BaseFolder(self.0).is_begun();
        self.0.join(if has_base_images {
            SCENES
        } else {
            BaseFolder::GRID
        })
    }

    /// The sheet of the pictures with one seed, where a sweep has a sheet for each seed.
    pub fn grid_of_seed(&self, seed: i64) -> PathBuf {
        self.0.join(format!("grid-{seed}.png"))
    }

    /// The sheet of `--compare`.
    pub fn comparison(&self) -> PathBuf {
        self.0.join("comparison.png")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_tells_its_part() -> Result<()> {
        let folder = SceneFolder(Path::new("out"));
        let part = Shard::resolve(Some("2/4"), |_| None)?;
        assert_eq!(
            folder.manifest(Shard::WHOLE),
            Path::new("out/manifest.jsonl")
        );
        assert_eq!(
            folder.manifest(part),
            Path::new("out/manifest-2-of-4.jsonl")
        );
        assert_eq!(
            SceneFolder::part_of_manifest("manifest-2-of-4.jsonl"),
            Some((2, 4))
        );
        assert_eq!(SceneFolder::part_of_manifest("manifest.jsonl"), None);
        assert!(SceneFolder::is_manifest("manifest.jsonl"));
        assert!(!SceneFolder::is_manifest("manifest-x.jsonl"));
        assert_eq!(folder.preview(part), Path::new("out/preview-2-of-4.png"));
        Ok(())
    }

    #[test]
    fn the_sheet_leaves_that_of_base_images_alone() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-scenes-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let alone = SceneFolder(&path).grid();
        fs::write(BaseFolder(&path).set(), "")?;
        let beside = SceneFolder(&path).grid();
        fs::remove_dir_all(&path)?;
        assert_eq!(
            (alone, beside),
            (path.join("grid.png"), path.join("scenes.png"))
        );
        Ok(())
    }
}
