//! `manifest.jsonl`: one row for each picture of a folder.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::config::batch::Settings;
use crate::config::shard::Shard;
use crate::io::atomic::write_bytes_atomically;
use crate::io::text;
use crate::records::{ManifestRow, SceneFolder};

/// The rows of a folder by file name. The whole file is rewritten after each picture, so that it is complete at any
/// time.
pub struct Manifest {
    path: PathBuf,
    rows: BTreeMap<Natural, ManifestRow>,
    /// In the list of a part (`--shard`): see [`ManifestRow::num_images`].
    num_images: Option<usize>,
}

/// A name split into numbers and text, so that `10000-0.png` is sorted after `9999-0.png`. The name itself
/// distinguishes names with equal parts, such as `1.png` and `01.png`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Natural {
    parts: Vec<NamePart>,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NamePart {
    Number(u128),
    Text(String),
}

/// Digits that always fit into a `u128`. The remaining digits of a longer number count as another number.
const MOST_DIGITS: usize = 38;

/// The key by which names are sorted.
pub fn natural(name: &str) -> Natural {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count()
            .min(MOST_DIGITS);
        let (number, behind) = rest.split_at(digits);
        rest = match number.parse() {
            Ok(number) => {
                parts.push(NamePart::Number(number));
                behind
            }
            Err(_) => {
                let end = rest
                    .find(|c: char| c.is_ascii_digit())
                    .unwrap_or(rest.len());
                let (text, behind) = rest.split_at(end);
                parts.push(NamePart::Text(text.to_owned()));
                behind
            }
        };
    }
    Natural {
        parts,
        name: name.to_owned(),
    }
}

impl Manifest {
    /// Reads the manifest of `folder`. Rows whose pictures are gone are dropped, and so are lines that cannot be read.
    pub fn open(folder: &Path) -> Self {
        Self::open_part(folder, Shard::WHOLE)
    }

    /// Reads the manifest of one of the processes that share a folder.
    pub fn open_part(folder: &Path, shard: Shard) -> Self {
        let path = SceneFolder(folder).manifest(shard);
        let text = text::read(&path).unwrap_or_default();
        let rows = text
            .lines()
            .filter_map(|line| ManifestRow::parse(line).ok())
            .filter(|row| is_below(&row.path) && folder.join(&row.path).is_file())
            .map(|row| (natural(&row.path), row))
            .collect();
        Self {
            path,
            rows,
            num_images: None,
        }
    }

    /// Adds to each row how many images a prompt has; for the list of a part.
    pub fn with_num_images(mut self, num_images: usize) -> Self {
        self.num_images = Some(num_images);
        for row in self.rows.values_mut() {
            row.num_images = self.num_images;
        }
        self
    }

    /// The path of the manifest.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the picture `name` has a row with exactly these settings.
    pub fn has_row_with(&self, name: &str, settings: &Settings) -> bool {
        self.row(name).is_some_and(|row| row.has_settings(settings))
    }

    /// The row of the picture `name`.
    pub fn row(&self, name: &str) -> Option<&ManifestRow> {
        self.rows.get(&natural(name))
    }

    /// The rows, sorted by the names of their pictures.
    pub fn rows(&self) -> impl Iterator<Item = &ManifestRow> {
        self.rows.values()
    }

    /// Adds a row without writing the file. It replaces the picture's earlier row.
    pub fn add(&mut self, mut row: ManifestRow) {
        row.num_images = self.num_images;
        self.rows.insert(natural(&row.path), row);
    }

    /// Sets the row of a picture and writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&mut self, row: ManifestRow) -> Result<()> {
        self.add(row);
        self.write()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let lines = self.rows.values().map(ManifestRow::to_line);
        let lines: Vec<String> = lines.collect::<Result<_>>()?;
        write_bytes_atomically(&self.path, lines.concat().as_bytes())
    }
}

/// Whether a path in a manifest stays below the manifest's folder: it is relative and has no `..`.
pub fn is_below(name: impl AsRef<Path>) -> bool {
    let mut parts = name.as_ref().components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_stand_in_the_order_of_their_numbers() {
        let sorted = [
            "0000-1.png",
            "0001-2.png",
            "1000-1001.png",
            "9999-10000.png",
            "10000-10001.png",
            "eta_1=9.5_0000-0.png",
            "eta_1=10_0000-0.png",
            "plain/0000-1.png",
            "plain/10000-10001.png",
        ];
        let mut names = sorted;
        names.sort();
        assert_ne!(names, sorted, "as texts they stand otherwise");
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, sorted);
        assert_ne!(natural("1.png"), natural("01.png"));
        let long = "7".repeat(100);
        assert!(natural(&long) < natural(&format!("{long}.png")));
    }

    #[test]
    fn rows_are_replaced_and_rows_of_lost_pictures_dropped() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("oneactor-manifest-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("a.png"), "")?;
        let settings: Settings = serde_json::from_str(r#"{"seed": 1}"#)?;
        let mut manifest = Manifest::open(&folder);
        manifest.set(ManifestRow::new("a.png", &settings))?;
        let mut measured = ManifestRow::new("a.png", &settings);
        measured.seconds = Some(2.0);
        manifest.set(measured)?;
        manifest.set(ManifestRow::new("b.png", &settings))?;
        let reopened = Manifest::open(&folder);
        let text = fs::read_to_string(reopened.path())?;
        fs::remove_dir_all(&folder)?;
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#""seconds":2.0"#));
        let others: Settings = serde_json::from_str(r#"{"seed": 1, "steps": 2}"#)?;
        assert!(
            reopened.has_row_with("a.png", &settings) && !reopened.has_row_with("a.png", &others)
        );
        assert!(!reopened.has_row_with("b.png", &settings));
        Ok(())
    }
}
