//! `manifest.jsonl`: a row for each picture of a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::config::batch::Settings;
use crate::config::shard::Shard;
use crate::io::atomic::write_bytes_atomically;

/// The rows of a folder by file name; they are written anew with each picture, so that the file is
/// complete at any time.
pub struct Manifest {
    path: PathBuf,
    rows: BTreeMap<String, Value>,
}

impl Manifest {
    /// The manifest of `folder`; rows of pictures that are gone are left out.
    pub fn open(folder: &Path) -> Self {
        Self::open_part(folder, Shard::WHOLE)
    }

    /// The manifest of one of the processes that share a folder.
    pub fn open_part(folder: &Path, shard: Shard) -> Self {
        let path = folder.join(shard.manifest());
        let text = fs::read_to_string(&path).unwrap_or_default();
        let rows = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|row| Some((row["path"].as_str()?.to_owned(), row)))
            .filter(|(name, _)| is_below(name) && folder.join(name).is_file())
            .collect();
        Self { path, rows }
    }

    /// Its own file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the picture `name` has a row.
    pub fn has(&self, name: &str) -> bool {
        self.rows.contains_key(name)
    }

    /// The row of the picture `name`.
    pub fn row(&self, name: &str) -> Option<&Value> {
        self.rows.get(name)
    }

    /// Its rows, in the order of their pictures' names.
    pub fn rows(&self) -> impl Iterator<Item = &Value> {
        self.rows.values()
    }

    /// Takes a row over, which names its picture as `path`; see [`Manifest::write`].
    pub fn add(&mut self, row: Value) {
        let name = row["path"].as_str().unwrap_or_default().to_owned();
        self.rows.insert(name, row);
    }

    /// Sets the row of the picture `name` and writes the file.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn set(&mut self, name: &str, settings: &Settings, seconds: Option<f64>) -> Result<()> {
        self.add(new_row(name, settings, seconds));
        self.write()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When that can not be done.
    pub fn write(&self) -> Result<()> {
        let lines: Vec<String> = self.rows.values().map(|row| format!("{row}\n")).collect();
        write_bytes_atomically(&self.path, lines.concat().as_bytes())
    }
}

/// Whether the file that a manifest calls `name` lies below the manifest's folder.
pub fn is_below(name: impl AsRef<Path>) -> bool {
    let mut parts = name.as_ref().components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// A picture's row.
pub fn new_row(name: &str, settings: &Settings, seconds: Option<f64>) -> Value {
    let mut row = Settings::new();
    row.insert("path".to_owned(), json!(name));
    row.extend(settings.clone());
    row.insert("seconds".to_owned(), json!(seconds));
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_replaced_and_rows_of_lost_pictures_dropped() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("oneactor-manifest-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("a.png"), "")?;
        let settings: Settings = serde_json::from_str(r#"{"seed": 1}"#)?;
        let mut manifest = Manifest::open(&folder);
        manifest.set("a.png", &settings, None)?;
        manifest.set("a.png", &settings, Some(2.0))?;
        manifest.set("b.png", &settings, None)?;
        let reopened = Manifest::open(&folder);
        let text = fs::read_to_string(reopened.path())?;
        fs::remove_dir_all(&folder)?;
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#""seconds":2.0"#));
        assert!(reopened.has("a.png") && !reopened.has("b.png"));
        Ok(())
    }
}
