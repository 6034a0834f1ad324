//! Lists the pictures of a job, each with its recorded prompt, seed and actors and with its masks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::config::EvaluateJob;
use crate::config::batch::Settings;
use crate::config::evaluate::Masks;
use crate::config::shard::Shard;
use crate::config::shell::quoted;
use crate::error::{Error, ErrorKind, usage};
use crate::io::text;
use crate::measures::picture::Picture;
use crate::measures::table::{PLAIN, PictureRow};
use crate::pictures::photo::{Transparency, read_picture};
use crate::pictures::png::read_png_text;
use crate::progress::Reporter;
use crate::records::picture_record::{KEYWORD, PictureRecord};
use crate::records::{ManifestRow, PictureFiles, SceneFolder};
use crate::tokenizer::weights::WeightedText;

/// All pictures of a job, in the order of its folders and files.
///
/// # Errors
/// When a folder has no manifest, a picture is named twice, or a picture lacks a prompt or mask that is needed.
pub(super) fn list(job: &EvaluateJob, reporter: &Reporter) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for path in &job.pictures {
        if path.is_dir() {
            pictures.extend(of_folder(path)?)
        } else {
            pictures.push(of_file(path)?)
        }
    }
    let compares_texts = job.measures.iter().any(|measure| measure.is_of_text());
    if job.prompt.is_some() {
        let all_tell = pictures.iter().all(|picture| picture.row.prompt.is_some());
        match (all_tell, compares_texts) {
            (true, _) => reporter
                .warn("--prompt has no effect, because every picture has its own prompt: remove it"),
            (false, false) => reporter.warn(
                "--prompt is not measured, because nothing in --metrics compares pictures with a prompt: it only names \
                 the group of pictures that have no prompt of their own",
            ),
            (false, true) => {}
        }
    }
    for picture in &mut pictures {
        let name = picture.row.path.display().to_string();
        if picture.row.prompt.is_none() {
            picture.row.prompt = job.prompt.clone();
        }
        if picture.row.prompt.is_none() && compares_texts {
            return Err(usage(format!(
                "{name} has no recorded prompt, and clip_t and clip_score compare pictures with their prompts: give \
                 --prompt, or leave these two out of --metrics"
            )));
        }
        if let Some(masks) = &job.masks {
            picture.masks = find_masks(picture, masks)?;
        }
    }
    refuse_twice(&pictures)?;
    if job.masks == Some(Masks::Attention) {
        refuse_without_masks(&pictures)?;
    }
    if let Some(target) = &job.target {
        mark_target(&mut pictures, target)?;
    }
    if let Some(Masks::Folder(_)) = &job.masks {
        refuse_shared_masks(&pictures)?;
    }
    Ok(pictures)
}

/// Marks the target among the pictures: its similarity to itself says nothing about an actor.
fn mark_target(pictures: &mut [Picture], target: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let target = real(target);
    for picture in pictures.iter_mut() {
        picture.row.is_target = real(&picture.row.path) == target;
    }
    if pictures.iter().all(|picture| picture.row.is_target) {
        Err(usage(format!(
            "--target: found {}, which is also the only picture: add pictures to compare with it",
            pictures[0].row.path.display()
        )))
    } else {
        Ok(())
    }
}

/// Refuses `--masks attention` if no picture has masks. Pictures with one subject and plain pictures have none.
fn refuse_without_masks(pictures: &[Picture]) -> Result<()> {
    if pictures.iter().any(|picture| !picture.masks.is_empty()) {
        return Ok(());
    }
    let path = &pictures[0].row.path;
    Err(usage(format!(
        "--masks attention: there is no {}-mask-….png beside {} and no mask of any other picture: draw pictures with \
         several subjects with sample --save-masks, or give a folder with masks",
        path.file_stem().unwrap_or_default().display(),
        path.display()
    )))
}

/// Refuses pictures of several folders that have the same name and would be given the same mask.
fn refuse_shared_masks(pictures: &[Picture]) -> Result<()> {
    let mut of_masks: BTreeMap<&[PathBuf], &Picture> = BTreeMap::new();
    for picture in pictures {
        if let Some(other) = of_masks.insert(&picture.masks, picture) {
            return Err(usage(format!(
                "--masks: {} and {} would both have the mask {}: give each job one folder of pictures",
                other.row.path.display(),
                picture.row.path.display(),
                picture.masks[0].display()
            )));
        }
    }
    Ok(())
}

fn refuse_twice(pictures: &[Picture]) -> Result<()> {
    let mut paths: Vec<PathBuf> = pictures
        .iter()
        .map(|picture| {
            picture
                .row
                .path
                .canonicalize()
                .unwrap_or_else(|_| picture.row.path.clone())
        })
        .collect();
    paths.sort();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(usage(format!(
            "{} is named twice and would be compared with itself: name it once",
            pair[0].display()
        ))),
        None => Ok(()),
    }
}

/// The rows of a folder's manifest.
fn of_folder(folder: &Path) -> Result<Vec<Picture>> {
    let path = SceneFolder(folder).manifest(Shard::WHOLE);
    let shown = path.display();
    if !path.is_file() && SceneFolder(folder).has_parts()? {
        let folder = folder.display();
        return Err(usage(format!(
            "{folder} has no {}, because the parts of a run with --shard are not merged: run `oneactor merge {}` first",
            SceneFolder::MANIFEST,
            quoted(&folder.to_string())
        )));
    }
    if !path.is_file() {
        return Err(usage(format!(
            "{} has no {}, expected a folder that sample wrote: for other folders give the pictures, for instance {}/*.png",
            folder.display(),
            SceneFolder::MANIFEST,
            quoted(&folder.display().to_string())
        )));
    }
    let text = text::read(&path)
        .with_context(|| Error::new(ErrorKind::Usage, format!("reading {shown}")))?;
    let mut pictures = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| usage(format!("{shown}, line {number}: {what}"));
        let row = ManifestRow::parse(line).map_err(|error| wrong(&error.to_string()))?;
        let name = PathBuf::from(&row.path);
        let picture = folder.join(&name);
        if !picture.is_file() {
            return Err(wrong(&format!("there is no picture {}", picture.display())));
        }
        pictures.push(Picture {
            name,
            ..described(picture.clone(), &row.as_drawn(&picture).settings)?
        });
    }
    if pictures.is_empty() {
        Err(usage(format!(
            "{shown} names no picture, expected a row for each picture"
        )))
    } else {
        Ok(pictures)
    }
}

/// A picture that the user names itself. Pictures of other programs have no record.
fn of_file(path: &Path) -> Result<Picture> {
    let texts = read_png_text(path).unwrap_or_default();
    if !texts.iter().any(|(keyword, _)| keyword == KEYWORD) {
        read_picture(path, Transparency::Dropped)?; // a file that is no PNG or JPEG is refused before loading
        return described(path.to_owned(), &Settings::new());
    }
    described(path.to_owned(), &PictureRecord::read(path)?.parameters)
}

fn described(path: PathBuf, parameters: &Settings) -> Result<Picture> {
    let prompt = match parameters.get("prompt") {
        Some(Value::String(prompt))
            if parameters.get("prompt_weights") == Some(&Value::Bool(true)) =>
        {
            Some(WeightedText::parse(prompt)?.text)
        }
        Some(Value::String(prompt)) => Some(prompt.clone()),
        _ => None,
    };
    let actors = match parameters.get("actors") {
        Some(Value::Array(actors)) => actors.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(actor)) => vec![actor.as_str()],
        _ => Vec::new(),
    };
    let actor = match (actors.is_empty(), parameters.get("method")) {
        (true, _) => PLAIN.to_owned(),
        (false, Some(Value::String(method))) => format!("{method}: {}", actors.join(" + ")),
        (false, _) => actors.join(" + "),
    };
    Ok(Picture {
        name: path.file_name().unwrap_or_default().into(),
        row: PictureRow {
            path,
            prompt,
            seed: parameters.get("seed").and_then(Value::as_i64),
            actor,
            is_target: false,
        },
        masks: Vec::new(),
        found_mask: None,
    })
}

/// The masks of a picture.
fn find_masks(picture: &Picture, masks: &Masks) -> Result<Vec<PathBuf>> {
    match masks {
        Masks::Folder(folder) => {
            let path = folder.join(picture.name.with_extension("png"));
            if path.is_file() {
                Ok(vec![path])
            } else {
                Err(usage(format!(
                    "--masks: there is no {}, expected the mask of {}",
                    path.display(),
                    picture.row.path.display()
                )))
            }
        }
        // The files `NAME-mask-….png`, which may be none.
        Masks::Attention => PictureFiles(&picture.row.path).masks_there(),
        // Masks by Segment Anything are found later, when the pictures are read.
        Masks::Sam => Ok(Vec::new()),
    }
}
