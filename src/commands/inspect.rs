//! `inspect`: what an actor, base set, picture or any safetensors file records about itself.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::cli::{Format, InspectFlags};
use crate::error::{printable, usage};
use crate::io::header::{Header, TensorFacts};
use crate::pictures::photo::picture_kind;
use crate::records::{ActorFolder, PictureRecord};
use crate::streams::{self, path_line};
use crate::wording::no_file;

/// Prints what the files record.
///
/// # Errors
/// When a file cannot be read, or has no record.
pub fn run(flags: &InspectFlags) -> Result<()> {
    for path in &flags.files {
        let path = file_at(path)?;
        let facts = facts(&path, flags.tensors)?;
        match flags.format {
            Format::Json => streams::print(format!("{}\n", Value::Object(facts))),
            Format::Text => {
                streams::print(path_line(&path));
                streams::print(&*printable(&lines(&facts)));
            }
        }
    }
    Ok(())
}

/// The facts of a file, in the order in which they are shown.
fn facts(path: &Path, with_tensors: bool) -> Result<Map<String, Value>> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .with_context(|| format!("reading {}", path.display()))?;
    match picture_kind(&start) {
        Some(_) => picture(path),
        None => tensors(path, with_tensors),
    }
}

/// A file, or the actor in a folder.
fn file_at(path: &Path) -> Result<PathBuf> {
    match path {
        _ if path.is_dir() && path.join(ActorFolder::ACTOR).is_file() => {
            Ok(path.join(ActorFolder::ACTOR))
        }
        _ if path.is_dir() => Err(usage(format!(
            "there is no {} in {}: name a picture or a .safetensors file",
            ActorFolder::ACTOR,
            path.display()
        ))),
        _ if path.is_file() => Ok(path.to_owned()),
        _ => Err(usage(no_file(path, "a picture or a .safetensors file"))),
    }
}

fn picture(path: &Path) -> Result<Map<String, Value>> {
    let record = PictureRecord::read(path)?;
    let mut facts = record.parameters;
    facts.extend(record.facts);
    facts.extend(about(path, "picture"));
    Ok(facts)
}

fn tensors(path: &Path, with_tensors: bool) -> Result<Map<String, Value>> {
    let header = Header::read(path)?;
    let mut facts = Map::new();
    for (key, text) in header.metadata {
        // A safetensors header stores lists and numbers as text.
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        facts.insert(key, value);
    }
    let values = |shape: &[usize]| shape.iter().product::<usize>();
    let sum: usize = header.tensors.iter().map(|t| values(&t.shape)).sum();
    let bytes: usize = header.tensors.iter().map(|t| t.bytes).sum();
    facts.insert("tensors".to_owned(), json!(header.tensors.len()));
    facts.insert("values".to_owned(), json!(sum));
    facts.insert("bytes".to_owned(), json!(bytes));
    if with_tensors {
        let shape = |tensor: &TensorFacts| json!(format!("{} {:?}", tensor.dtype, tensor.shape));
        let shapes = header.tensors.iter().map(|t| (t.name.clone(), shape(t)));
        facts.insert("shapes".to_owned(), Value::Object(shapes.collect()));
    }
    facts.extend(about(path, "safetensors"));
    Ok(facts)
}

fn about(path: &Path, kind: &str) -> Map<String, Value> {
    Map::from_iter([
        // UTF-8 where it is shown as JSON, see `config::paths`.
        ("path".to_owned(), json!(path.to_string_lossy())),
        ("file".to_owned(), json!(kind)),
    ])
}

/// A line for each fact, except the path. The facts of a group follow the name of the group, indented.
fn lines(facts: &Map<String, Value>) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut flat: Vec<(String, String)> = Vec::new();
    for (key, value) in facts.iter().filter(|(key, _)| *key != "path") {
        match value {
            Value::Object(group) => {
                flat.push((key.clone(), String::new()));
                flat.extend(
                    group
                        .iter()
                        .map(|(key, value)| (format!("  {key}"), shown(value))),
                );
            }
            value => flat.push((key.clone(), shown(value))),
        }
    }
    let width = flat.iter().map(|(key, _)| key.chars().count()).max();
    let width = width.unwrap_or(0);
    let rest = flat
        .iter()
        .map(|(key, value)| format!("  {}\n", format!("{key:width$}  {value}").trim_end()));
    rest.collect()
}
