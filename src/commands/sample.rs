//! `sample`: draws the subject in new scenes, or the same prompts with the plain model.

mod actors;
mod dry_run;
mod painter;
mod pictures;
mod plan;
pub(super) mod story_scenes;
mod target;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::{CommandLine, Method, SampleFlags};
use crate::config::batch::Settings;
use crate::config::shard::Shard;
use crate::config::{SampleJob, plan};
use crate::io::atomic::remove_leftovers;
use crate::io::writable::create_folder;
use crate::method::base_set::BaseFacts;
use crate::progress::STEPS;
use crate::records::{ManifestRow, PictureRecord, SceneFolder};
use crate::run::changes;
use crate::run::controlnet::LocatedControl;
use crate::run::image_prompt::LocatedImagePrompt;
use crate::run::jobs::work_off;
use crate::run::located::{LocatedModel, ResolvedDrawing};
use crate::run::manifest::Manifest;
use crate::run::prepared::Loads;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
use crate::run::sheet::{Sheet, remove_outdated};
pub(super) use dry_run::Shape;
use painter::ScenePainter;
use pictures::Picture;
pub(super) use plan::Plan;

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

/// A job with its model and the list of its pictures.
pub(super) struct Sampling {
    pub job: SampleJob,
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    control: Option<Rc<LocatedControl>>,
    image_prompt: Option<Rc<LocatedImagePrompt>>,
    /// CRC-32 of each actor's file at the time when the pictures were listed.
    actor_checksums: Vec<(PathBuf, String)>,
    /// The facts of the actors, or of the base images that a baseline uses, each with its name for messages; empty
    /// for the plain model.
    made_before: Vec<(String, BaseFacts)>,
    /// The settings that all guided pictures have in common, or all plain pictures with `--no-actor`.
    settings: Settings,
    /// The pictures that the job asks for.
    pub pictures: Vec<Picture>,
    /// With `--compare`: the same pictures by the plain model.
    plain_pictures: Vec<Picture>,
    /// The part of the work (`--shard`) that these pictures are.
    shard: Shard,
}

impl Sampling {
    fn all_pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pictures.iter().chain(&self.plain_pictures)
    }

    /// The output folder.
    fn folder(&self) -> SceneFolder<'_> {
        SceneFolder(&self.job.output_dir)
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
    fn files(&self) -> Vec<PathBuf> {
        let missing = || self.all_pictures().filter(|picture| !picture.is_finished);
        let mut files: Vec<PathBuf> = missing().map(|picture| picture.path.clone()).collect();
        files.extend(missing().filter_map(|picture| picture.latents.clone()));
        files.extend(missing().flat_map(|picture| picture.masks.clone()));
        let is_drawing = !files.is_empty();
        if is_drawing {
            files.push(self.folder().manifest(self.shard));
        }
        if self.shard.is_whole() {
            let sheets = self.sheets().into_iter();
            let sheets = sheets.filter(|(sheet, _)| is_drawing || !sheet.is_current());
            files.extend(sheets.map(|(sheet, _)| sheet.path().to_owned()));
        }
        files
    }

    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn check_networks(&self) -> Result<()> {
        let control = self.control.iter().flat_map(|control| control.files());
        self.model.check_networks(control)?;
        let mut made = self.made_before.iter();
        made.try_for_each(|(what, facts)| self.model.check_model(facts, what))
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        self.forecast()?
            .tell(session, &self.files(), &self.job.output_dir)
    }

    fn loads(&self) -> Loads {
        let control = self.control.as_deref();
        let control: Vec<&str> = control.iter().flat_map(|control| control.names()).collect();
        let adapter = self.job.image_prompt.as_ref();
        let adapter = adapter.map(|job| (&job.ip_adapter, &job.image_encoder));
        let offsets = self.job.guidance.offsets.iter();
        Loads {
            shared: vec![
                self.model.key(),
                format!("{control:?} {adapter:?}"),
                format!("{:?}", self.job.actors),
            ],
            reads: self.job.actors.iter().chain(offsets).cloned().collect(),
        }
    }
}

/// Checks a job and lists its pictures.
///
/// # Errors
/// As [`Plan::look_up`] and [`Plan::sampling`].
pub(super) fn prepare(session: &Session, job: SampleJob) -> Result<Sampling> {
    // Counted before anything can fail: a job that fails in one process only must not change which pictures of the
    // later jobs belong to which part.
    let is_own = session.units(job.prompts.len() * job.num_images);
    let mut sampling = Plan::look_up(session, &job)?.sampling(job)?;
    let own = |pictures: Vec<Picture>| {
        let numbered = pictures.into_iter().zip(&is_own);
        let own = numbered.filter(|(_, is_own)| **is_own);
        own.map(|(picture, _)| picture).collect()
    };
    sampling.pictures = own(sampling.pictures);
    sampling.plain_pictures = own(sampling.plain_pictures);
    sampling.shard = session.shard();
    // Only the first finished picture is checked, because usually one run has drawn all of them.
    if let Some(kept) = sampling.all_pictures().find(|picture| picture.is_finished) {
        let version = PictureRecord::read(&kept.path)?.version;
        changes::tell(session, &kept.path, &version, &sampling.model);
    }
    Ok(sampling)
}

/// Draws the missing pictures.
///
/// # Errors
/// When a signal asks the program to stop, or a file cannot be written.
pub(super) fn execute(session: &Session, sampling: Sampling) -> Result<()> {
    let folder = &sampling.job.output_dir;
    let missing = sampling.missing().len();
    let total = sampling.all_pictures().count();
    let mut manifest = Manifest::open_part(folder, sampling.shard);
    if !sampling.shard.is_whole() {
        manifest = manifest.with_num_images(sampling.job.num_images);
    }
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
        session.reporter.start("drawing", steps, STEPS);
    }
    if !sampling.shard.is_whole() {
        announce(&sampling, &mut manifest)?;
    }
    let is_last = session.is_last_job.get();
    draw_missing(session, &sampling, &mut manifest, is_last)?;
    session.reporter.finish();
    let is_new = restore_rows(&sampling, &mut manifest)? || missing > 0;
    if is_new {
        session.wrote(manifest.path(), "manifest", Value::Null);
    }
    if sampling.shard.is_whole() {
        save_sheets(session, &sampling, missing > 0)
    } else {
        Ok(())
    }
}

/// Lists all pictures of a part in its manifest before the first is drawn. `merge` then sees which pictures are
/// missing, and a part without pictures has a manifest too. Rows of finished pictures keep their facts.
fn announce(sampling: &Sampling, manifest: &mut Manifest) -> Result<()> {
    let folder = &sampling.job.output_dir;
    let merged = Manifest::open(folder);
    for picture in sampling.all_pictures() {
        if !manifest.has_row_with(&picture.name, &picture.settings) {
            let is_known = merged.has_row_with(&picture.name, &picture.settings);
            let known = merged.row(&picture.name).filter(|_| is_known).cloned();
            manifest.add(known.unwrap_or_else(|| picture.row()));
        }
    }
    create_folder(folder)?;
    manifest.write()
}

/// The folders of the pictures, each once.
fn folders_of<'a>(pictures: impl Iterator<Item = &'a Picture>) -> impl Iterator<Item = &'a Path> {
    let folders = pictures.filter_map(|picture| picture.path.parent());
    folders.collect::<BTreeSet<_>>().into_iter()
}

/// The most prompts that are encoded before their pictures are drawn. Each encoded prompt holds some megabytes until
/// then.
const ENCODED_AHEAD: usize = 64;

/// Draws the missing pictures, each with its row in the manifest. If the job `is_last`, the text encoders are released
/// once all of its prompts are encoded.
///
/// # Errors
/// When the model cannot be loaded, a file cannot be written, or a value is not finite.
pub(super) fn draw_missing(
    session: &Session,
    sampling: &Sampling,
    manifest: &mut Manifest,
    is_last: bool,
) -> Result<()> {
    folders_of(sampling.all_pictures()).for_each(remove_leftovers);
    let missing = sampling.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let backbone = session.load(&sampling.model)?;
    let painter = ScenePainter::new(session, &backbone, sampling)?;
    folders_of(missing.iter().copied()).try_for_each(create_folder)?;
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

/// Writes rows for finished pictures that have no row, or whose row describes a picture that was replaced. Returns
/// whether there were any.
pub(super) fn restore_rows(sampling: &Sampling, manifest: &mut Manifest) -> Result<bool> {
    let mut is_changed = false;
    for picture in sampling.all_pictures() {
        if !manifest.has_row_with(&picture.name, &picture.settings) {
            manifest.set(picture.row())?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

impl Sampling {
    /// The sheets of the pictures, each with its kind.
    fn sheets(&self) -> Vec<(Sheet, &'static str)> {
        let job = &self.job;
        let paths = |pictures: &[Picture]| -> Vec<PathBuf> {
            pictures
                .iter()
                .map(|picture| picture.path.clone())
                .collect()
        };
        let (guided, plain) = (paths(&self.pictures), paths(&self.plain_pictures));
        let mut sheets = vec![(grid(&job.output_dir, &guided, job.num_images), "grid")];
        if job.compare {
            let path = self.folder().comparison();
            let guided = (job.method.name(), &guided[..]);
            sheets.push((Sheet::comparison(path, &plain, guided), "comparison"));
        }
        sheets
    }
}

/// Draws the sheets if the pictures `are_new`, or if a sheet is missing or out of date.
fn save_sheets(session: &Session, sampling: &Sampling, are_new: bool) -> Result<()> {
    for (sheet, kind) in sampling.sheets() {
        sheet.keep(session, kind, are_new)?;
    }
    if sampling.job.compare {
        Ok(())
    } else {
        remove_outdated(session, &sampling.folder().comparison())
    }
}

/// Draws the sheets for all pictures of a manifest, with `num_images` pictures of each prompt.
pub(super) fn save_sheets_of(
    session: &Session,
    folder: &Path,
    manifest: &Manifest,
    num_images: Option<usize>,
) -> Result<()> {
    let is_plain = |row: &&ManifestRow| SceneFolder::is_plain(&row.path);
    let guided: Vec<&ManifestRow> = manifest.rows().filter(|row| !is_plain(row)).collect();
    let paths = |rows: &[&ManifestRow]| {
        rows.iter()
            .map(|row| folder.join(&row.path))
            .collect::<Vec<_>>()
    };
    // Manifests of an earlier version do not have this number. The pictures of a prompt follow each other, and all
    // prompts have equally many.
    let prompt = |row: &ManifestRow| row.settings.get("prompt").cloned();
    let of_first = || guided.chunk_by(|a, b| prompt(a) == prompt(b)).next();
    let num_images = num_images.unwrap_or_else(|| of_first().map_or(1, <[_]>::len));
    let pictures = paths(&guided);
    grid(folder, &pictures, num_images).keep(session, "grid", true)?;
    let plain: Vec<&ManifestRow> = manifest.rows().filter(is_plain).collect();
    let comparison = SceneFolder(folder).comparison();
    if plain.is_empty() {
        remove_outdated(session, &comparison)
    } else {
        let method = guided
            .first()
            .and_then(|row| row.settings.get("method")?.as_str());
        let method = method.unwrap_or(Method::Oneactor.name());
        let guided = (method, &pictures[..]);
        Sheet::comparison(comparison, &paths(&plain), guided).keep(session, "comparison", true)
    }
}

/// The contact sheet of a folder, with a row for each prompt where each has several pictures.
fn grid(folder: &Path, pictures: &[PathBuf], num_images: usize) -> Sheet {
    let is_table = num_images > 1 && pictures.len() > num_images;
    Sheet::numbered(
        SceneFolder(folder).grid(),
        pictures,
        is_table.then_some(num_images),
    )
}
