//! `sample`: the subject in new scenes, or the same prompts with the plain model.

pub(super) mod book;
mod cast;
mod painter;
mod series;
mod stage;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use super::control::LocatedControl;
use super::image_prompt::LocatedImagePrompt;
use super::located::{LocatedModel, ResolvedDrawing};
use super::manifest::Manifest;
use super::picture::{save_comparison, save_contact_sheet};
use super::session::Session;
use super::{Prepared, create_folder, work_off};
use crate::cli::{CommandLine, SampleFlags};
use crate::config::batch::Settings;
use crate::config::{SampleJob, plan};
use painter::Painter;
use series::Picture;
pub(super) use stage::Stage;

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

/// A job with its model and all that it is to draw.
pub(super) struct Sampling {
    pub job: SampleJob,
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    control: Option<Rc<LocatedControl>>,
    image_prompt: Option<Rc<LocatedImagePrompt>>,
    /// What the guided pictures, or with `--no-actor` the plain ones, have in common.
    settings: Settings,
    /// The pictures that were asked for.
    pub pictures: Vec<Picture>,
    /// With `--compare`: the same ones by the plain model.
    plain_pictures: Vec<Picture>,
}

impl Sampling {
    fn all_pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pictures.iter().chain(&self.plain_pictures)
    }

    /// The model that draws.
    pub fn model(&self) -> &Rc<LocatedModel> {
        &self.model
    }

    /// The pictures that are still to be drawn.
    pub fn missing(&self) -> Vec<&Picture> {
        self.all_pictures()
            .filter(|picture| !picture.is_finished)
            .collect()
    }

    /// Denoising steps of the missing pictures, for the progress bar.
    pub fn steps_to_do(&self) -> usize {
        self.missing().len() * self.job.drawing.steps
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

/// Checks a job and lists its pictures.
///
/// # Errors
/// As [`Stage::look_up`] and [`Stage::sampling`].
pub(super) fn prepare(session: &Session, job: SampleJob) -> Result<Sampling> {
    Stage::look_up(session, &job)?.sampling(job)
}

/// Draws what is missing.
///
/// # Errors
/// When a signal asks to stop, or a file can not be written.
pub(super) fn execute(session: &Session, sampling: Sampling) -> Result<()> {
    let folder = &sampling.job.output_dir;
    let missing = sampling.missing().len();
    let total = sampling.all_pictures().count();
    let mut manifest = Manifest::open(folder);
    if missing < total {
        let done = total - missing;
        let folder = folder.display();
        session.reporter.note(&format!(
            "{folder}: {done} of {total} images are there already"
        ));
    }
    let steps = sampling.steps_to_do();
    if steps > 0 {
        session.load(&sampling.model)?;
        session.reporter.start("drawing", steps);
    }
    let is_last = session.is_last_job.get();
    draw_missing(session, &sampling, &mut manifest, is_last)?;
    session.reporter.finish();
    let is_new = restore_rows(&sampling, &mut manifest)? || missing > 0;
    if is_new {
        session.wrote(manifest.path(), "manifest", Value::Null);
    }
    save_sheets(session, &sampling, missing > 0)
}

/// Prompts that are encoded ahead at most; each holds some megabytes until it is drawn.
const ENCODED_AHEAD: usize = 64;

/// Draws the pictures that are not there yet, each with its row in the manifest. When the prompts
/// after `is_last` are encoded, the text encoders are let go.
///
/// # Errors
/// When the model can not be loaded, a file not be written, or a value is not finite.
pub(super) fn draw_missing(
    session: &Session,
    sampling: &Sampling,
    manifest: &mut Manifest,
    is_last: bool,
) -> Result<()> {
    let missing = sampling.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let backbone = session.load(&sampling.model)?;
    let painter = Painter::new(session, &backbone, sampling)?;
    for folder in missing.iter().filter_map(|picture| picture.path.parent()) {
        create_folder(folder)?;
    }
    let alike = |a: &&Picture, b: &&Picture| {
        (a.is_guided, &a.scene.prompt) == (b.is_guided, &b.scene.prompt)
    };
    let groups: Vec<&[&Picture]> = missing.chunk_by(alike).collect();
    let mut ahead = groups.chunks(ENCODED_AHEAD).peekable();
    while let Some(groups) = ahead.next() {
        let guides = groups.iter().map(|group| painter.guide(group[0]));
        let guides = guides.collect::<Result<Vec<_>>>()?;
        if is_last && ahead.peek().is_none() {
            backbone.release_text_encoders();
        }
        for (group, guide) in groups.iter().zip(guides) {
            for pictures in group.chunks(sampling.job.drawing.batch_size) {
                painter.draw(session, pictures, &guide, manifest)?;
            }
        }
    }
    Ok(())
}

/// Gives finished pictures their rows again where the manifest was lost; whether there were any.
pub(super) fn restore_rows(sampling: &Sampling, manifest: &mut Manifest) -> Result<bool> {
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
            (job.method.name(), &paths(&sampling.pictures)),
        )?;
        session.wrote(&comparison, "comparison", Value::Null);
    }
    Ok(())
}
