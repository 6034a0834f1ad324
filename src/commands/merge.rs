//! `merge`: the parts of a run that several processes have shared become what one would have left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::manifest::{Manifest, is_below};
use super::sample::save_sheets_of;
use super::session::Session;
use crate::cli::MergeFlags;
use crate::config::shard::Shard;
use crate::error::{runtime, usage};

/// Joins manifests and draws the contact sheets of the folders.
///
/// # Errors
/// When a folder has no parts, lacks one, or a picture of a part is gone.
pub fn run(flags: &MergeFlags) -> Result<()> {
    let session = Session::start("merge", &flags.run())?;
    let parts: Vec<Vec<PathBuf>> = flags
        .folders
        .iter()
        .map(|folder| parts(folder))
        .collect::<Result<_>>()?;
    for (folder, parts) in flags.folders.iter().zip(parts) {
        session.signals.check()?;
        merge(&session, folder, &parts)?;
    }
    Ok(())
}

/// The manifests of all parts of a folder; none where they are merged already.
fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(usage(format!("there is no folder {shown}")));
    }
    let entries = fs::read_dir(folder).with_context(|| format!("reading {shown}"))?;
    let mut found: BTreeMap<usize, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {shown}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some((index, count)) = Shard::of_manifest(&name) {
            found.entry(count).or_default().insert(index, path);
        }
    }
    match found.len() {
        // As a merge leaves it, also one that was killed at its very end.
        0 if folder.join(Shard::WHOLE.manifest()).is_file() => Ok(Vec::new()),
        0 => Err(usage(format!(
            "{shown} has no manifest-i-of-n.jsonl: expected a folder that processes with --shard i/n have drawn in"
        ))),
        1 => {
            let (count, parts) = found.into_iter().next().expect("there is one");
            let missing: Vec<String> = (1..=count)
                .filter(|index| !parts.contains_key(index))
                .map(|index| index.to_string())
                .collect();
            match missing.is_empty() {
                true => Ok(parts.into_values().collect()),
                false => Err(runtime(format!(
                    "{shown}: part {} of {count} is missing: draw it with --shard i/{count} first",
                    missing.join(", ")
                ))),
            }
        }
        _ => {
            let counts: Vec<String> = found.keys().map(usize::to_string).collect();
            Err(usage(format!(
                "{shown} has parts of {} each: remove the manifests of those that do not count",
                counts.join(" and of ")
            )))
        }
    }
}

fn merge(session: &Session, folder: &Path, parts: &[PathBuf]) -> Result<()> {
    if parts.is_empty() {
        let shown = folder.display();
        session.reporter.note(&format!(
            "{shown} has a manifest.jsonl and no parts: nothing to merge"
        ));
        return Ok(());
    }
    let mut manifest = Manifest::open(folder);
    for part in parts {
        let text =
            fs::read_to_string(part).with_context(|| format!("reading {}", part.display()))?;
        for line in text.lines() {
            let row: Value = serde_json::from_str(line)
                .map_err(|error| usage(format!("{}: {error}", part.display())))?;
            let name = row["path"].as_str().unwrap_or_default();
            if !is_below(name) {
                return Err(usage(format!(
                    "{}: found the path \"{name}\", expected the name of a picture below {}",
                    part.display(),
                    folder.display()
                )));
            }
            if !folder.join(name).is_file() {
                return Err(runtime(format!(
                    "{}: its picture \"{name}\" is gone: draw that part again",
                    part.display()
                )));
            }
            manifest.add(row);
        }
    }
    manifest.write()?;
    session.wrote(manifest.path(), "manifest", Value::Null);
    save_sheets_of(session, folder, &manifest)?;
    for part in parts {
        fs::remove_file(part).with_context(|| format!("removing {}", part.display()))?;
    }
    Ok(())
}
