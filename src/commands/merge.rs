//! `merge`: joins the parts of a run that several processes have shared (`--shard`) into what one process would have
//! written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::sample::save_sheets_of;
use crate::cli::MergeFlags;
use crate::config::shard::Shard;
use crate::error::{runtime, usage};
use crate::io::atomic::{remove_leftovers, write_bytes_atomically};
use crate::io::checksum::crc32;
use crate::io::real_path::RealPlace;
use crate::io::text;
use crate::io::writable::check_files;
use crate::records::{ManifestRow, SceneFolder};
use crate::run::claims::lock_folder;
use crate::run::manifest::{Manifest, is_below};
use crate::run::session::Session;
use crate::wording::counted;

/// Joins manifests and draws the contact sheets of the folders.
///
/// # Errors
/// When a folder has no parts, a part is missing, or a picture of a part is gone.
pub fn run(flags: &MergeFlags) -> Result<()> {
    let session = Session::start("merge", &flags.run.run())?;
    let mut places: Vec<RealPlace> = Vec::new();
    let mut folders = Vec::new();
    for folder in &flags.folders {
        let place = RealPlace::of(folder);
        if !places.iter().any(|known| known.is_same(&place)) {
            places.push(place);
            folders.push(folder);
        }
    }
    // All folders are checked before the first is merged.
    for folder in &folders {
        alone(&session, folder, || parts(folder))?;
    }
    for folder in folders {
        session.signals.check()?;
        alone(&session, folder, || {
            merge(&session, folder, &parts(folder)?)
        })?;
    }
    Ok(())
}

/// Calls `action` while the folder is locked, after removing what an interrupted run or merge has left.
fn alone<T>(session: &Session, folder: &Path, action: impl FnOnce() -> Result<T>) -> Result<T> {
    if session.dry_run || !folder.is_dir() {
        return action();
    }
    let _lock = lock_folder(session, folder, false)?;
    remove_leftovers(folder);
    remove_merged(folder)?;
    action()
}

/// The manifests of all parts of a folder, except parts that are merged already.
fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(usage(format!(
            "there is no folder {shown}, expected a folder in which processes with --shard have drawn: check the path"
        )));
    }
    let entries = fs::read_dir(folder).with_context(|| format!("reading {shown}"))?;
    // A dry run has not removed the parts that are merged already.
    let merged = merged(folder)?;
    let mut found: BTreeMap<usize, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {shown}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let (Some((index, count)), false) =
            (SceneFolder::part_of_manifest(&name), merged.contains(&path))
        {
            found.entry(count).or_default().insert(index, path);
        }
    }
    match found.len() {
        // The folder is merged already, also if that merge was killed after its last result.
        0 if SceneFolder(folder).manifest(Shard::WHOLE).is_file() => Ok(Vec::new()),
        0 => Err(usage(format!(
            "{shown} has no lists of parts (manifest-1-of-2.jsonl and so on): expected a folder in which processes \
             with --shard have drawn"
        ))),
        1 => {
            let (count, parts) = found.into_iter().next().expect("there is one");
            let missing: Vec<usize> = (1..=count)
                .filter(|index| !parts.contains_key(index))
                .collect();
            let list = |prefix: &str, suffix: &str| {
                let shown = missing
                    .iter()
                    .map(|index| format!("{prefix}{index}{suffix}"));
                shown.collect::<Vec<_>>().join(", ")
            };
            match missing[..] {
                [] => Ok(parts.into_values().collect()),
                [part] => Err(runtime(format!(
                    "{shown}: part {part} of {count} is missing: draw it with --shard {part}/{count} first"
                ))),
                _ => Err(runtime(format!(
                    "{shown}: parts {} of {count} are missing: draw them with {} first",
                    list("", ""),
                    list("--shard ", &format!("/{count}"))
                ))),
            }
        }
        _ => {
            let counts: Vec<String> = found.keys().map(usize::to_string).collect();
            Err(usage(format!(
                "{shown} has lists of parts from different runs, of {} parts: remove the manifest-….jsonl files of the \
                 run that you do not want to merge",
                counts.join(" and of ")
            )))
        }
    }
}

fn merge(session: &Session, folder: &Path, parts: &[PathBuf]) -> Result<()> {
    if parts.is_empty() {
        let shown = folder.display();
        session.reporter.note(&format!(
            "{shown}: nothing to merge, because it has a {} and no lists of parts",
            SceneFolder::MANIFEST
        ));
        return Ok(());
    }
    let mut manifest = Manifest::open(folder);
    let mut num_images = None;
    let mut merged = BTreeMap::new();
    for part in parts {
        let reading = || format!("reading {}", part.display());
        let bytes = fs::read(part).with_context(reading)?;
        let name = part.file_name().unwrap_or_default().to_string_lossy();
        merged.insert(name.into_owned(), crc32(&bytes));
        let text = text::decode(bytes).with_context(reading)?;
        for (number, line) in (1..).zip(text.lines()) {
            let row = ManifestRow::parse(line).map_err(|error| {
                usage(format!(
                    "{}, line {number}: {error}: correct the line, or draw this part again",
                    part.display()
                ))
            })?;
            num_images = row.num_images.or(num_images);
            let name = &row.path;
            if !is_below(name) {
                return Err(usage(format!(
                    "{}, line {number}: found the path \"{name}\", expected the name of a picture below {}",
                    part.display(),
                    folder.display()
                )));
            }
            if !folder.join(name).is_file() {
                return Err(runtime(format!(
                    "{}, line {number}: the picture \"{name}\" does not exist: draw this part again",
                    part.display()
                )));
            }
            let path = folder.join(name);
            manifest.add(row.as_drawn(&path));
        }
    }
    let pictures = manifest.rows().count();
    let lists: Vec<&str> = merged.keys().map(String::as_str).collect();
    session.reporter.detail(&format!(
        "{}: {} from {}",
        folder.display(),
        counted(pictures, "picture", "pictures"),
        lists.join(", ")
    ));
    let planned = planned(folder, &manifest);
    check_files(&planned)?;
    if session.dry_run {
        session.list_planned(&planned);
        return Ok(());
    }
    manifest.write()?;
    session.wrote(manifest.path(), "manifest", Value::Null);
    save_sheets_of(session, folder, &manifest, num_images)?;
    write_bytes_atomically(
        &SceneFolder(folder).merged(),
        json!(merged).to_string().as_bytes(),
    )?;
    remove_merged(folder)
}

/// The files that a merge would write.
fn planned(folder: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let is_plain = |row: &ManifestRow| SceneFolder::is_plain(&row.path);
    let scenes = SceneFolder(folder);
    let mut files = vec![manifest.path().to_owned(), scenes.grid()];
    if manifest.rows().any(is_plain) {
        files.push(scenes.comparison());
    }
    files
}

/// The manifests of parts that are merged already, except those that were written again since. The merge records the
/// CRC-32 of each, so that after a kill between two removals the next merge removes the rest.
fn merged(folder: &Path) -> Result<Vec<PathBuf>> {
    let path = SceneFolder(folder).merged();
    let Ok(text) = text::read(&path) else {
        return Ok(Vec::new());
    };
    let sums: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|_| {
        usage(format!(
            "{}: expected the list of merged parts that merge has written: remove this file and merge again",
            path.display()
        ))
    })?;
    let parts = sums.into_iter().filter_map(|(name, sum)| {
        SceneFolder::part_of_manifest(&name)?;
        let part = folder.join(name);
        let is_merged = fs::read(&part).is_ok_and(|bytes| crc32(&bytes) == sum);
        is_merged.then_some(part)
    });
    Ok(parts.collect())
}

/// Removes the manifests of parts that are merged already.
fn remove_merged(folder: &Path) -> Result<()> {
    for part in merged(folder)? {
        fs::remove_file(&part).with_context(|| format!("removing {}", part.display()))?;
    }
    let path = SceneFolder(folder).merged();
    if path.is_file() {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    } else {
        Ok(())
    }
}
