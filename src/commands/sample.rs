//! `sample`: the subject in new scenes, or the same prompts with the plain model.

mod painter;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tch::Device;

use super::located::{LocatedModel, ResolvedDrawing};
use super::manifest::Manifest;
use super::picture::{
    differences, drawing_settings, picture_settings, save_comparison, save_contact_sheet,
};
use super::session::Session;
use super::{Prepared, create_folder, work_off};
use crate::cli::sample::SubjectAs;
use crate::cli::{CommandLine, SampleFlags};
use crate::config::batch::Settings;
use crate::config::model::DEFAULT_MODEL;
use crate::config::prompts::{PLACEHOLDER, fill_in, require_word, subject_phrase};
use crate::config::{SampleJob, plan, record};
use crate::error::usage;
use crate::oneactor::actor::Actor;
use crate::oneactor::base_set::BaseFacts;
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
    pub(super) job: SampleJob,
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    /// What the actor was made from; `None` for the plain model.
    subject: Option<BaseFacts>,
    /// What the guided pictures, or with `--no-actor` the plain ones, have in common.
    settings: Settings,
    /// CRC-32 of the files that the settings only name.
    sources: Settings,
    /// The pictures that were asked for.
    pub(super) pictures: Vec<Picture>,
    /// With `--compare`: the same ones by the plain model.
    plain_pictures: Vec<Picture>,
}

impl Sampling {
    fn all_pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pictures.iter().chain(&self.plain_pictures)
    }

    /// The model that draws.
    pub(super) fn model(&self) -> &Rc<LocatedModel> {
        &self.model
    }

    /// The pictures that are still to be drawn.
    pub(super) fn missing(&self) -> Vec<&Picture> {
        self.all_pictures()
            .filter(|picture| !picture.is_finished)
            .collect()
    }

    /// Denoising steps of the missing pictures, for the progress bar.
    pub(super) fn steps_to_do(&self) -> usize {
        self.missing().len() * self.job.drawing.steps
    }
}

/// One picture to be drawn.
pub(super) struct Picture {
    prompt: String,
    pub(super) seed: i64,
    is_guided: bool,
    /// All that it follows from.
    settings: Settings,
    /// Path below the folder of the results.
    name: String,
    pub(super) path: PathBuf,
    latents: Option<PathBuf>,
    is_finished: bool,
}

impl Prepared for Sampling {
    fn folder(&self) -> &Path {
        &self.job.output_dir
    }

    fn files(&self) -> Vec<PathBuf> {
        let missing = || self.all_pictures().filter(|picture| !picture.is_finished);
        let mut files: Vec<PathBuf> = missing().map(|picture| picture.path.clone()).collect();
        files.extend(missing().filter_map(|picture| picture.latents.clone()));
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

fn prepare(session: &Session, job: SampleJob) -> Result<Sampling> {
    Scene::look_up(session, &job)?.sampling(job)
}

/// What is the same for all jobs with one model, one actor and the same prompts and size.
pub(super) struct Scene {
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    subject: Option<BaseFacts>,
    sources: Settings,
    prompts: Vec<String>,
}

impl Scene {
    /// Reads the small files that `job` names and checks its prompts.
    ///
    /// # Errors
    /// When a file can not be used, or a prompt lacks the base word.
    pub(super) fn look_up(session: &Session, job: &SampleJob) -> Result<Self> {
        // The plain model needs the actor only for `[b]` and for the name of the model.
        let actor = job
            .actor
            .as_deref()
            .map(|path| Actor::read(path, Device::Cpu))
            .transpose()?;
        let subject = actor.map(|actor| actor.facts);
        if let Some(path) = &job.guidance.offsets {
            read_offsets(path)?;
        }
        let model_name = subject
            .as_ref()
            .map_or(DEFAULT_MODEL, |facts| &facts.model.name);
        let mut named = job.model.clone();
        named.model.get_or_insert_with(|| model_name.to_owned());
        let prompts = resolved_prompts(job, subject.as_ref())?;
        let model = session.locate(&named)?;
        let drawing = model.resolve(&job.drawing)?;
        let word = subject.as_ref().filter(|_| !job.guidance.no_actor);
        for prompt in &prompts {
            let word = word.map(|facts| facts.base_word.as_str());
            model.check_prompt(prompt, word, &session.reporter)?;
        }
        Ok(Self {
            model,
            drawing,
            subject,
            sources: sources(job)?,
            prompts,
        })
    }

    /// The pictures of a job in this scene, each with what is to become of it.
    ///
    /// # Errors
    /// When a file of that name was drawn with other settings and is not to be overwritten.
    pub(super) fn sampling(&self, job: SampleJob) -> Result<Sampling> {
        let Scene {
            model,
            drawing,
            sources,
            prompts,
            ..
        } = self;
        let is_guided = !job.guidance.no_actor;
        let plain = drawing_settings(&job.drawing, *drawing, model);
        let settings = job_settings(&job, plain.clone(), is_guided);
        let series = |folder: &str, settings: &Settings, is_guided: bool| Series {
            job: &job,
            folder: folder.to_owned(),
            settings: settings.clone(),
            sources: if is_guided {
                sources.clone()
            } else {
                Settings::new()
            },
            is_guided,
        };
        let pictures = series("", &settings, is_guided).pictures(prompts)?;
        let plain_pictures = match job.compare {
            true => series("plain/", &job_settings(&job, plain, false), false).pictures(prompts)?,
            false => Vec::new(),
        };
        Ok(Sampling {
            job,
            model: Rc::clone(model),
            drawing: *drawing,
            subject: self.subject.clone(),
            settings,
            sources: sources.clone(),
            pictures,
            plain_pictures,
        })
    }
}

/// The prompts with `[b]` filled in, each holding the base word where an actor guides.
fn resolved_prompts(job: &SampleJob, subject: Option<&BaseFacts>) -> Result<Vec<String>> {
    let resolve = |prompt: &String| {
        let Some(facts) = subject else {
            if prompt.contains(PLACEHOLDER) {
                return Err(usage(format!(
                    "the prompt \"{prompt}\" has {PLACEHOLDER}, which stands for the base word of \
                     an actor: name the actor, or write the word itself"
                )));
            }
            return Ok(prompt.clone());
        };
        let stands_for = match job.subject_as {
            SubjectAs::Word => facts.base_word.as_str(),
            SubjectAs::Phrase => subject_phrase(&facts.prompt, &facts.base_word),
        };
        let prompt = fill_in(prompt, stands_for);
        if !job.guidance.no_actor {
            require_word(&prompt, &facts.base_word)?;
        }
        Ok(prompt)
    };
    job.prompts.iter().map(resolve).collect()
}

/// The settings that guided, or plain, pictures of the job share.
fn job_settings(job: &SampleJob, mut settings: Settings, is_guided: bool) -> Settings {
    let guidance = &job.guidance;
    if !is_guided {
        settings.insert("no_actor".to_owned(), json!(true));
        if let Some(g) = guidance.semantic_interpolation {
            settings.insert("semantic_interpolation".to_owned(), json!(g));
        }
        return settings;
    }
    let (first, last) = guidance.guided_steps;
    settings.extend([
        ("actors".to_owned(), json!([job.actor])),
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

/// CRC-32 of actor and offsets, so that a picture of an actor that was tuned again since is not
/// taken for finished.
fn sources(job: &SampleJob) -> Result<Settings> {
    let mut sources = Settings::new();
    if job.guidance.no_actor {
        return Ok(sources);
    }
    let files = [
        ("actor_crc32", &job.actor),
        ("offsets_crc32", &job.guidance.offsets),
    ];
    for (key, path) in files {
        if let Some(path) = path {
            let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let sum = format!("{:08x}", crc32fast::hash(&bytes));
            sources.insert(key.to_owned(), json!(sum));
        }
    }
    Ok(sources)
}

/// Pictures of all prompts that are drawn in the same way.
struct Series<'a> {
    job: &'a SampleJob,
    /// Before the file names: empty or a folder with a slash.
    folder: String,
    settings: Settings,
    sources: Settings,
    is_guided: bool,
}

impl Series<'_> {
    /// All pictures, each with what is to become of it.
    ///
    /// # Errors
    /// When a file of that name was drawn with other settings and is not to be overwritten.
    fn pictures(&self, prompts: &[String]) -> Result<Vec<Picture>> {
        let count = prompts.len() * self.job.num_images;
        let picture = |index| self.picture(index, &prompts[index / self.job.num_images]);
        (0..count).map(picture).collect()
    }

    fn picture(&self, index: usize, prompt: &str) -> Result<Picture> {
        let seed = self.job.drawing.seed + index as i64;
        let name = format!(
            "{}{}{index:04}-{seed}.png",
            self.folder, self.job.file_prefix
        );
        let path = self.job.output_dir.join(&name);
        let settings = picture_settings(&self.settings, prompt, seed);
        let latents = self
            .job
            .save_latents
            .then(|| path.with_extension("safetensors"));
        let is_finished = !self.job.drawing.overwrite
            && is_same_picture(&path, &settings, &self.sources)?
            && latents.as_ref().is_none_or(|latents| latents.is_file());
        Ok(Picture {
            prompt: prompt.to_owned(),
            seed,
            is_guided: self.is_guided,
            settings,
            name,
            path,
            latents,
            is_finished,
        })
    }
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
    for (key, value) in sources {
        if there.facts.get(key) != Some(value) {
            found.push(format!(
                "{} has changed since",
                key.trim_end_matches("_crc32")
            ));
        }
    }
    if found.is_empty() {
        return Ok(true);
    }
    Err(usage(format!(
        "{} was drawn with other settings ({}): {way_out}",
        path.display(),
        found.join("; ")
    )))
}

fn execute(session: &Session, sampling: Sampling) -> Result<()> {
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
    draw_missing(session, &sampling, &mut manifest)?;
    session.reporter.finish();
    let is_new = restore_rows(&sampling, &mut manifest)? || missing > 0;
    if is_new {
        session.wrote(manifest.path(), "manifest", Value::Null);
    }
    save_sheets(session, &sampling, missing > 0)
}

/// Draws the pictures that are not there yet, each with its row in the manifest.
///
/// # Errors
/// When the model can not be loaded, a file not be written, or a value is not finite.
pub(super) fn draw_missing(
    session: &Session,
    sampling: &Sampling,
    manifest: &mut Manifest,
) -> Result<()> {
    let missing = sampling.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let folder = &sampling.job.output_dir;
    let backbone = session.load(&sampling.model)?;
    create_folder(folder)?;
    if sampling.job.compare {
        create_folder(&folder.join("plain"))?;
    }
    let painter = Painter::new(&backbone, sampling)?;
    let alike = |a: &&Picture, b: &&Picture| (a.is_guided, &a.prompt) == (b.is_guided, &b.prompt);
    for same_guidance in missing.chunk_by(alike) {
        let guidance = painter.guidance(same_guidance[0])?;
        for pictures in same_guidance.chunks(sampling.job.drawing.batch_size) {
            painter.draw(session, pictures, guidance.as_ref(), manifest)?;
        }
    }
    Ok(())
}

/// Gives finished pictures their rows again where the manifest was lost; whether there were any.
pub(super) fn restore_rows(sampling: &Sampling, manifest: &mut Manifest) -> Result<bool> {
    let mut is_changed = false;
    for picture in sampling.all_pictures() {
        if !manifest.has(&picture.name) {
            manifest.set(&picture.name, &picture.settings, None)?;
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
