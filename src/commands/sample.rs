//! `sample`: the subject in new scenes, or the same prompts with the plain model.

pub(super) mod book;
mod cast;
mod painter;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::control::LocatedControl;
use super::located::{LocatedModel, ResolvedDrawing};
use super::manifest::Manifest;
use super::picture::{
    changed_sources, differences, drawing_settings, picture_settings, save_comparison,
    save_contact_sheet,
};
use super::session::Session;
use super::{Prepared, create_folder, work_off};
use crate::cli::{CommandLine, SampleFlags};
use crate::config::batch::Settings;
use crate::config::model::DEFAULT_MODEL;
use crate::config::{SampleJob, plan, record};
use crate::error::usage;
use cast::{Cast, Scene, crc32_of};
use painter::{Painter, read_offsets};

/// The sheet of `--compare`.
const COMPARISON: &str = "comparison.png";

/// Does the jobs of `sample`.
///
/// # Errors
/// See `work_off`.
pub fn run(line: &CommandLine<SampleFlags>) -> Result<()> {
    let session = Session::start("sample", &line.run)?;
    let jobs = plan(
        &line.flags,
        line.run.config.as_deref(),
        "sample",
        SampleJob::check,
    )?;
    work_off(&session, jobs, prepare, execute)
}

/// A job with its model and its actor's facts.
pub(super) struct Sampling {
    job: SampleJob,
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    control: Option<LocatedControl>,
    /// What the guided pictures, or with `--no-actor` the plain ones, have in common.
    settings: Settings,
    /// The pictures that were asked for.
    pub(super) pictures: Vec<Picture>,
    /// With `--compare`: the same ones by the plain model.
    plain_pictures: Vec<Picture>,
}

impl Sampling {
    fn all_pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pictures.iter().chain(&self.plain_pictures)
    }
}

/// One picture to be drawn.
pub(super) struct Picture {
    pub(super) scene: Scene,
    pub(super) seed: i64,
    is_guided: bool,
    /// All that it follows from.
    settings: Settings,
    /// CRC-32 of the files that the settings only name.
    sources: Settings,
    /// Path below the folder of the results.
    name: String,
    pub(super) path: PathBuf,
    latents: Option<PathBuf>,
    /// With `--save-masks`: one for each of several subjects.
    masks: Vec<PathBuf>,
    is_finished: bool,
}

impl Picture {
    /// Its row in the manifest: settings and sources.
    fn row(&self) -> Settings {
        let mut row = self.settings.clone();
        row.extend(self.sources.clone());
        row
    }
}

impl Prepared for Sampling {
    fn folder(&self) -> &Path {
        &self.job.output_dir
    }

    fn files(&self) -> Vec<PathBuf> {
        let missing = || self.all_pictures().filter(|picture| !picture.is_finished);
        let mut files: Vec<PathBuf> = missing().map(|picture| picture.path.clone()).collect();
        files.extend(missing().filter_map(|picture| picture.latents.clone()));
        files.extend(missing().flat_map(|picture| picture.masks.clone()));
        if !files.is_empty() {
            files.extend(["manifest.jsonl", "grid.png"].map(|name| self.job.output_dir.join(name)));
            files.extend(
                self.job
                    .compare
                    .then(|| self.job.output_dir.join(COMPARISON)),
            );
        }
        files
    }

    fn settings(&self) -> Value {
        json!(self.settings)
    }
}

fn prepare(session: &Session, mut job: SampleJob) -> Result<Sampling> {
    // The plain model needs the actors only for `[b]` and for the name of the model.
    let cast = Cast::read(&job.actors)?;
    if let Some(path) = &job.guidance.offsets {
        read_offsets(path)?;
    }
    let model_name = cast.model().unwrap_or(DEFAULT_MODEL);
    job.model.model.get_or_insert_with(|| model_name.to_owned());
    let scenes = cast.scenes(&job)?;
    let model = session.locate(&job.model)?;
    let drawing = model.resolve(&job.drawing)?;
    if !job.guidance.no_actor {
        cast.check_loras(&model, &session.reporter);
    }
    for (index, scene) in scenes.iter().enumerate() {
        let pair = scene.prompt_pair(&job.drawing, &model.tokenizers)?;
        model.check_prompt(&pair.prompt, scene.guided_words(), &session.reporter)?;
        if index == 0 {
            model.check_prompt(&pair.negative, &[], &session.reporter)?;
        }
    }
    let without_masks = scenes.iter().filter(|scene| !scene.has_masks()).count();
    if job.save_masks && without_masks > 0 {
        session.reporter.note(&format!(
            "{without_masks} of {} prompts name one actor only, which acts everywhere: there are no \
             masks of their pictures",
            scenes.len()
        ));
    }
    let is_guided = !job.guidance.no_actor;
    let control = job.control.as_ref();
    let control = control
        .map(|control| LocatedControl::locate(session, control, &model, drawing))
        .transpose()?;
    let mut plain = drawing_settings(&job.drawing, drawing, &model);
    plain.extend(
        control
            .as_ref()
            .map(LocatedControl::settings)
            .unwrap_or_default(),
    );
    let settings = job_settings(&job, plain.clone(), is_guided);
    let mut sources = lora_sources(&model);
    sources.extend(
        control
            .as_ref()
            .map(LocatedControl::sources)
            .unwrap_or_default(),
    );
    let series = |folder: &str, settings: &Settings, is_guided: bool| Series {
        job: &job,
        cast: &cast,
        folder: folder.to_owned(),
        settings: settings.clone(),
        sources: sources.clone(),
        is_guided,
    };
    let pictures = series("", &settings, is_guided).pictures(&scenes)?;
    let plain_pictures = match job.compare {
        true => series("plain/", &job_settings(&job, plain, false), false).pictures(&scenes)?,
        false => Vec::new(),
    };
    Ok(Sampling {
        job,
        model,
        drawing,
        control,
        settings,
        pictures,
        plain_pictures,
    })
}

/// CRC-32 of the LoRAs that the settings only name, where there are any.
fn lora_sources(model: &LocatedModel) -> Settings {
    let sums = model.lora_crc32().into_iter();
    sums.map(|sums| ("lora_crc32".to_owned(), json!(sums)))
        .collect()
}

/// The settings that guided, or plain, pictures of the job share.
fn job_settings(job: &SampleJob, mut settings: Settings, is_guided: bool) -> Settings {
    let guidance = &job.guidance;
    if !is_guided {
        settings.insert("no_actor".to_owned(), json!(true));
        return settings;
    }
    let (first, last) = guidance.guided_steps;
    settings.extend([
        ("actors".to_owned(), json!(job.actors)),
        ("semantic_scale".to_owned(), json!(guidance.semantic_scale)),
        ("eta_1".to_owned(), json!(guidance.eta_1)),
        ("eta_2".to_owned(), json!(guidance.eta_2)),
        ("guided_steps".to_owned(), json!(format!("{first}-{last}"))),
        ("average_scale".to_owned(), json!(guidance.average_scale)),
    ]);
    if let Some(offsets) = &guidance.offsets {
        settings.insert("offsets".to_owned(), json!(offsets));
    }
    settings
}

/// Pictures of all prompts that are drawn in the same way.
struct Series<'a> {
    job: &'a SampleJob,
    cast: &'a Cast,
    /// Before the file names: empty or a folder with a slash.
    folder: String,
    settings: Settings,
    /// CRC-32 of LoRAs and control images, which plain pictures follow from too.
    sources: Settings,
    is_guided: bool,
}

impl Series<'_> {
    /// All pictures, each with what is to become of it.
    ///
    /// # Errors
    /// When a file of that name was drawn with other settings and is not to be overwritten.
    fn pictures(&self, scenes: &[Scene]) -> Result<Vec<Picture>> {
        let count = scenes.len() * self.job.num_images;
        let seed = |index| self.job.drawing.seed + index as i64;
        let picture =
            |index| self.picture(index, &scenes[index / self.job.num_images], seed(index));
        (0..count).map(picture).collect()
    }

    fn picture(&self, index: usize, scene: &Scene, seed: i64) -> Result<Picture> {
        let name = format!("{}{index:04}-{seed}.png", self.folder);
        let path = self.job.output_dir.join(&name);
        let mut settings = picture_settings(&self.settings, &scene.prompt, seed);
        let mut sources = self.sources.clone();
        if self.is_guided {
            // Only those who act: an actor that is added later changes no picture without it.
            self.cast.record(scene, &mut settings, &mut sources);
            if let Some(path) = &self.job.guidance.offsets {
                sources.insert("offsets_crc32".to_owned(), json!(crc32_of(path)?));
            }
        }
        let latents = self
            .job
            .save_latents
            .then(|| path.with_extension("safetensors"));
        let masks = match self.job.save_masks && self.is_guided && scene.has_masks() {
            true => mask_paths(&path, &scene.words),
            false => Vec::new(),
        };
        let is_finished = !self.job.drawing.overwrite
            && is_same_picture(&path, &settings, &sources)?
            && latents.iter().chain(&masks).all(|file| file.is_file());
        Ok(Picture {
            scene: scene.clone(),
            seed,
            is_guided: self.is_guided,
            settings,
            sources,
            name,
            path,
            latents,
            masks,
            is_finished,
        })
    }
}

/// `0000-7-mask-cat.png` beside the picture `0000-7.png`, one for each word. What a file name should
/// not hold becomes a hyphen; words that are then alike are numbered.
fn mask_paths(picture: &Path, words: &[String]) -> Vec<PathBuf> {
    let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
    let mut paths: Vec<PathBuf> = Vec::new();
    for word in words {
        let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
        let word: String = word.chars().map(plain).collect();
        let numbered = |i: usize| match i {
            1 => picture.with_file_name(format!("{stem}-mask-{word}.png")),
            i => picture.with_file_name(format!("{stem}-mask-{word}-{i}.png")),
        };
        paths.extend((1..).map(numbered).find(|path| !paths.contains(path)));
    }
    paths
}

/// Whether the picture at `path` is there and was drawn with these settings.
///
/// # Errors
/// When it was drawn with others.
fn is_same_picture(path: &Path, settings: &Settings, sources: &Settings) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let way_out = "choose another --output-dir, or redo it with --overwrite";
    let there = record::read_record(path)
        .with_context(|| format!("a file of that name is in the way ({way_out})"))?;
    let mut found = differences(&there.parameters, settings);
    found.extend(changed_sources(sources, |key| there.facts.get(key)));
    if found.is_empty() {
        return Ok(true);
    }
    Err(usage(format!(
        "{} was drawn with other settings ({}): {way_out}",
        path.display(),
        found.join("; ")
    )))
}

/// Draws what is missing.
///
/// # Errors
/// When a signal asks to stop, or a file can not be written.
pub(super) fn execute(session: &Session, sampling: Sampling) -> Result<()> {
    let folder = &sampling.job.output_dir;
    let missing: Vec<&Picture> = sampling
        .all_pictures()
        .filter(|picture| !picture.is_finished)
        .collect();
    let total = sampling.all_pictures().count();
    let mut manifest = Manifest::open(folder);
    if missing.len() < total {
        let done = total - missing.len();
        let folder = folder.display();
        session.reporter.note(&format!(
            "{folder}: {done} of {total} images are there already"
        ));
    }
    if !missing.is_empty() {
        let backbone = session.load(&sampling.model)?;
        let painter = Painter::new(session, &backbone, &sampling)?;
        for folder in missing.iter().filter_map(|picture| picture.path.parent()) {
            create_folder(folder)?;
        }
        session
            .reporter
            .start("drawing", missing.len() * sampling.job.drawing.steps);
        let alike = |a: &&Picture, b: &&Picture| {
            (a.is_guided, &a.scene.prompt) == (b.is_guided, &b.scene.prompt)
        };
        for same_guidance in missing.chunk_by(alike) {
            let guide = painter.guide(same_guidance[0])?;
            for pictures in same_guidance.chunks(sampling.job.drawing.batch_size) {
                painter.draw(session, pictures, &guide, &mut manifest)?;
            }
        }
        session.reporter.finish();
    }
    let is_new = restore_rows(&sampling, &mut manifest)? || !missing.is_empty();
    if is_new {
        session.wrote(manifest.path(), "manifest", Value::Null);
    }
    save_sheets(session, &sampling, !missing.is_empty())
}

/// Gives finished pictures their rows again where the manifest was lost; whether there were any.
fn restore_rows(sampling: &Sampling, manifest: &mut Manifest) -> Result<bool> {
    let mut is_changed = false;
    for picture in sampling.all_pictures() {
        if !manifest.has(&picture.name) {
            manifest.set(&picture.name, &picture.row(), None)?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

/// Writes grid.png and comparison.png where pictures are new or the sheet is missing.
fn save_sheets(session: &Session, sampling: &Sampling, is_new: bool) -> Result<()> {
    let job = &sampling.job;
    let grid = job.output_dir.join("grid.png");
    if is_new || !grid.is_file() {
        let paths: Vec<&Path> = sampling
            .pictures
            .iter()
            .map(|picture| picture.path.as_path())
            .collect();
        let is_table = job.num_images > 1 && paths.len() > job.num_images;
        save_contact_sheet(&grid, &paths, is_table.then_some(job.num_images))?;
        session.wrote(&grid, "grid", Value::Null);
    }
    let comparison = job.output_dir.join(COMPARISON);
    if job.compare && (is_new || !comparison.is_file()) {
        let paths = |pictures: &[Picture]| -> Vec<PathBuf> {
            pictures
                .iter()
                .map(|picture| picture.path.clone())
                .collect()
        };
        save_comparison(
            &comparison,
            &paths(&sampling.plain_pictures),
            &paths(&sampling.pictures),
        )?;
        session.wrote(&comparison, "comparison", Value::Null);
    }
    Ok(())
}
