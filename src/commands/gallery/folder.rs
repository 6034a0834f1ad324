//! A folder with pictures of this program, described by its manifest or its `base.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::actors;
use super::scope::Scope;
use crate::config::batch::Settings;
use crate::config::recorded::is_of_picture;
use crate::config::shell::quoted;
use crate::error::usage;
use crate::io::text;
use crate::pages::gallery::{Folder, Shown, TuningFacts};
use crate::records::base_record::BaseImage;
use crate::records::{BaseFolder, BaseRecord, ManifestRow, SceneFolder};
use crate::run::manifest::{Natural, is_below, natural};

/// How many levels below a named folder are searched: a story has `characters/NAME`.
const DEEPEST: usize = 3;

/// Whether a key is a setting that several pictures may have in common.
fn is_setting(key: &str) -> bool {
    !is_of_picture(key) && key != "no_actor" && !key.ends_with("_crc32")
}

/// The settings of one picture that differ from the others, in their order.
type Own = Vec<(String, Value)>;

/// The folders at and below `path` in which the program has drawn, in the order of their names. Links are not followed,
/// so that no folder is found twice.
pub(super) fn below(path: &Path, scope: &Scope) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(path, 0, scope, &mut found);
    found
}

fn walk(path: &Path, depth: usize, scope: &Scope, found: &mut Vec<PathBuf>) {
    let Some((mut folders, is_drawn_in)) = scope.readable(look_into(path)) else {
        return;
    };
    if is_drawn_in {
        found.push(path.to_owned());
    }
    if depth < DEEPEST {
        folders.sort();
        for folder in folders {
            walk(&folder, depth + 1, scope, found);
        }
    }
}

/// The folders in a folder, and whether the program has drawn in it.
fn look_into(path: &Path) -> Result<(Vec<PathBuf>, bool)> {
    let reading = || format!("reading {}", path.display());
    let mut folders = Vec::new();
    let mut is_drawn_in = false;
    for entry in fs::read_dir(path).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().with_context(reading)?.is_dir() && !name.starts_with('.') {
            folders.push(entry.path());
        }
        is_drawn_in |= name == BaseFolder::RECORD || SceneFolder::is_manifest(&name);
    }
    Ok((folders, is_drawn_in))
}

/// A picture as a manifest describes it.
struct Row {
    path: PathBuf,
    settings: Settings,
    who: String,
}

impl Folder {
    /// Whether it is the folder at `path`.
    pub fn is_at(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        real(&self.path) == real(path)
    }

    /// The contents of the folder: base images, tunings and the pictures of its manifests. `None` if no picture exists.
    pub(super) fn read(path: &Path, scope: &Scope) -> Option<Self> {
        let mut notes = Vec::new();
        let tuned = actors::tuned_in(path, scope);
        let mut rows = base_images(path, &tuned, scope);
        rows.extend(drawn(path, scope, &mut notes));
        let listed = rows.len();
        rows.retain(|row| row.path.is_file());
        if rows.len() < listed {
            let missing = listed - rows.len();
            notes.push(format!(
                "{missing} of {listed} pictures do not exist: they were removed, or are not drawn yet"
            ));
        }
        if rows.is_empty() {
            return None;
        }
        let (settings, own) = in_common(&rows);
        let actors = actors::cards(rows.iter().map(|row| &row.settings), scope);
        let text = |row: &Row, key: &str| match row.settings.get(key) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let shown = |(row, own): (Row, Own)| Shown {
            prompt: text(&row, "prompt"),
            seed: row.settings.get("seed").and_then(Value::as_i64),
            path: row.path,
            who: row.who,
            own,
        };
        Some(Self {
            path: path.to_owned(),
            pictures: rows.into_iter().zip(own).map(shown).collect(),
            settings,
            tuned,
            actors,
            notes,
        })
    }
}

/// The base images that the record of a base folder lists; none if there is no record.
fn base_images(folder: &Path, tuned: &[TuningFacts], scope: &Scope) -> Vec<Row> {
    let path = BaseFolder(folder).record();
    let record = path.is_file().then(|| BaseRecord::read(&path));
    let Some(record) = record.and_then(|record| scope.readable(record)) else {
        return Vec::new();
    };
    let row = |(number, image): (usize, &BaseImage)| -> Result<Row> {
        let mut settings = record.parameters.clone();
        settings.insert("seed".to_owned(), json!(image.seed));
        let of: Vec<&str> = tuned
            .iter()
            .filter(|tuned| tuned.target == Some(number))
            .map(|tuned| &*tuned.method)
            .collect();
        let who = if of.is_empty() {
            format!("base image {number}")
        } else {
            format!("base image {number}, the target of {}", of.join(", "))
        };
        Ok(Row {
            path: inside(folder, &image.path).with_context(|| path.display().to_string())?,
            settings,
            who,
        })
    };
    let images = record.details.images.iter();
    scope.all_readable(images.enumerate().map(row))
}

/// The pictures of the manifest and of the lists of parts that are not merged; each picture once.
fn drawn(folder: &Path, scope: &Scope, notes: &mut Vec<String>) -> Vec<Row> {
    let manifests = scope
        .readable(SceneFolder(folder).manifests())
        .unwrap_or_default();
    if manifests
        .iter()
        .any(|name| SceneFolder::part_of_manifest(name).is_some())
    {
        notes.push(format!(
            "its parts are not merged: run `oneactor merge {}` when all parts are done",
            quoted(&folder.display().to_string())
        ));
    }
    let mut rows = BTreeMap::new();
    for name in manifests {
        let path = folder.join(name);
        let text = text::read(&path).with_context(|| format!("reading {}", path.display()));
        let Some(text) = scope.readable(text) else {
            continue;
        };
        let found = (1..).zip(text.lines()).map(|(number, line)| {
            listed(folder, line).with_context(|| format!("{}, line {number}", path.display()))
        });
        rows.extend(scope.all_readable(found));
    }
    rows.into_values().collect()
}

/// The picture that a line of a manifest describes, with its place among the others.
fn listed(folder: &Path, line: &str) -> Result<(Natural, Row)> {
    let row = ManifestRow::parse(line)?;
    let place = natural(&row.path);
    let path = inside(folder, &row.path)?;
    let settings = row.as_drawn(&path).settings;
    let row = Row {
        path,
        who: actors::who(&settings),
        settings,
    };
    Ok((place, row))
}

/// The path of the picture `name` in `folder`. A manifest may not name files outside its folder: see [`Scope::has`].
fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    if is_below(name) {
        Ok(folder.join(name))
    } else {
        Err(usage(format!(
            "`path`: found \"{name}\", expected the name of a picture in the folder"
        )))
    }
}

/// The settings that pictures with the same keys have in common, each group with a heading; and for each picture its
/// other settings.
fn in_common(rows: &[Row]) -> (Vec<(String, Settings)>, Vec<Own>) {
    let mut kinds: BTreeMap<BTreeSet<&String>, Vec<usize>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        let keys = row.settings.keys().filter(|key| is_setting(key));
        kinds.entry(keys.collect()).or_default().push(i);
    }
    let mut own = vec![Own::new(); rows.len()];
    let mut groups: Vec<(usize, String, Settings)> = Vec::new();
    for (keys, members) in &kinds {
        let first = &rows[members[0]];
        let value = |i: usize, key: &str| rows[i].settings.get(key).cloned().unwrap_or(json!(null));
        let mut common = Settings::new();
        for key in keys {
            if members
                .iter()
                .all(|&i| rows[i].settings.get(*key) == first.settings.get(*key))
            {
                common.insert((*key).clone(), value(members[0], key));
            } else if !actors::is_who(key) {
                for &i in members {
                    own[i].push(((*key).clone(), value(i, key)));
                }
            }
        }
        let names: BTreeSet<&str> = members.iter().map(|&i| &*rows[i].who).collect();
        let heading = match (kinds.len(), names.len()) {
            (1, _) => "Settings".to_owned(),
            (_, 1) => format!("Settings of the pictures by {}", first.who),
            (_, _) if first.settings.contains_key("actors") => {
                "Settings of the pictures with actors".to_owned()
            }
            _ => "Settings of the others".to_owned(),
        };
        groups.push((members[0], heading, common));
    }
    // Groups in the order of their first pictures.
    groups.sort_by_key(|(first, ..)| *first);
    let groups = groups
        .into_iter()
        .map(|(_, heading, common)| (heading, common));
    (groups.collect(), own)
}
