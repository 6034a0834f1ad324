//! `manifest.jsonl`: one row for each picture of a folder.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::config::batch::Settings;
use crate::config::shard::Shard;
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::io::text;
use crate::records::{PictureRecord, SceneFolder};

/// The rows of a folder by file name. The whole file is rewritten after each picture, so that it is complete at any
/// time.
pub struct Manifest {
    path: PathBuf,
    rows: BTreeMap<Natural, Value>,
    /// In the list of a part (`--shard`): how many images each prompt has. `merge` needs it for the contact sheet.
    num_images: Option<usize>,
}

/// The key of this number in the rows of a part.
const NUM_IMAGES: &str = "num_images";

/// Keys of a row that are no settings.
const OF_A_ROW: [&str; 4] = ["path", "seconds", "peak_gpu_memory", NUM_IMAGES];

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
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|row| Some((row["path"].as_str()?.to_owned(), row)))
            .filter(|(name, _)| is_below(name) && folder.join(name).is_file())
            .map(|(name, row)| (natural(&name), row))
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
        self
    }

    /// The path of the manifest.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the picture `name` has a row with exactly these settings.
    pub fn has_row_with(&self, name: &str, settings: &Settings) -> bool {
        let row = self.row(name).and_then(Value::as_object);
        row.is_some_and(|row| has_settings(row, settings))
    }

    /// The row of the picture `name`.
    pub fn row(&self, name: &str) -> Option<&Value> {
        self.rows.get(&natural(name))
    }

    /// The rows, sorted by the names of their pictures.
    pub fn rows(&self) -> impl Iterator<Item = &Value> {
        self.rows.values()
    }

    /// Adds a row, whose `path` is the name of its picture, without writing the file.
    pub fn add(&mut self, row: Value) {
        let name = row["path"].as_str().unwrap_or_default();
        self.rows.insert(natural(name), row);
    }

    /// Sets the row of the picture `name` and writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&mut self, name: &str, settings: &Settings, seconds: Option<f64>) -> Result<()> {
        self.add(new_row(name, settings, seconds));
        self.write()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let line = |row: &Value| match self.num_images {
            Some(num_images) => {
                let mut row = row.clone();
                row[NUM_IMAGES] = json!(num_images);
                format!("{row}\n")
            }
            None => format!("{row}\n"),
        };
        let lines: Vec<String> = self.rows.values().map(line).collect();
        write_bytes_atomically(&self.path, lines.concat().as_bytes())
    }
}

/// Removes the number of images a prompt from the row of a part and returns it; `None` if an earlier version wrote the
/// row without it.
pub fn take_num_images(row: &mut Value) -> Option<usize> {
    let told = row.as_object_mut()?.remove(NUM_IMAGES)?;
    usize::try_from(told.as_u64()?).ok()
}

/// Whether a path in a manifest stays below the manifest's folder: it is relative and has no `..`.
pub fn is_below(name: impl AsRef<Path>) -> bool {
    let mut parts = name.as_ref().components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The row of a picture, from a line of a manifest.
///
/// # Errors
/// When the line is not a JSON object.
pub fn parse_row(line: &str) -> Result<Settings> {
    serde_json::from_str(line)
        .map_err(|_| usage("found no JSON object, expected the row of a picture"))
}

/// Whether a key of a row is no setting.
pub fn is_of_a_row(key: &str) -> bool {
    OF_A_ROW.contains(&key)
}

/// Whether a key identifies a file that the settings only name.
fn is_source(key: &str) -> bool {
    key.ends_with("_crc32") || key.ends_with("_revision")
}

/// Whether the settings in a row are exactly these. Keys for the picture's file, time and sources do not count.
fn has_settings(row: &Settings, settings: &Settings) -> bool {
    let is_fact = |key: &str| is_of_a_row(key) || is_source(key);
    let mut others = row.keys().filter(|key| !is_fact(key));
    settings
        .iter()
        .all(|(key, value)| row.get(key) == Some(value))
        && others.all(|key| settings.contains_key(key))
}

/// The row that describes a picture as it is now. That is `row`, unless the record inside the picture has other
/// settings: then a process drew the picture again and was killed before it wrote the row, or wrote the row into
/// another list, and the new row comes from the picture.
pub fn row_of(picture: &Path, row: Settings) -> Settings {
    let Ok(PictureRecord {
        parameters, facts, ..
    }) = PictureRecord::read(picture)
    else {
        return row;
    };
    if has_settings(&row, &parameters) {
        return row;
    }
    let mut told = Settings::new();
    told.extend(
        row.get_key_value("path")
            .map(|(key, name)| (key.clone(), name.clone())),
    );
    told.extend(parameters);
    told.extend(facts.into_iter().filter(|(key, _)| is_source(key)));
    told.insert("seconds".to_owned(), Value::Null);
    told
}

/// A new row for the picture `name`.
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
        manifest.set("a.png", &settings, None)?;
        manifest.set("a.png", &settings, Some(2.0))?;
        manifest.set("b.png", &settings, None)?;
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
