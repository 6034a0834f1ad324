//! `generate-base`: N base images of a subject, drawn by the plain model.

mod dry_run;
mod painter;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::backbone::Backbone;
use crate::cli::{CommandLine, GenerateBaseFlags};
use crate::config::batch::Settings;
use crate::config::model::DEFAULT_MODEL;
use crate::config::prompts::looks_like_syntax;
use crate::config::shell::quoted;
use crate::config::{GenerateBaseJob, plan};
use crate::error::{ErrorKind, kind_of, model};
use crate::io::atomic::{remove_leftovers, write_bytes_atomically};
use crate::io::text;
use crate::io::writable::create_folder;
use crate::method::base_set::BaseSet;
use crate::records::base_record::{BaseDetails, BaseImage};
use crate::records::{BaseFolder, BaseRecord, PictureRecord, subject};
use crate::run::changes;
use crate::run::claims::apart;
use crate::run::controlnet::LocatedControl;
use crate::run::draw::prompt_pair;
use crate::run::drawing_settings::drawing_settings;
use crate::run::jobs::work_off;
use crate::run::located::{LocatedModel, ResolvedDrawing};
use crate::run::prepared::Loads;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
use crate::run::sheet::Sheet;
use painter::BasePainter;

/// Does the jobs of `generate-base`.
///
/// # Errors
/// See `work_off`.
pub fn run(line: &CommandLine<GenerateBaseFlags>) -> Result<()> {
    let session = Session::start("generate-base", &line.run)?;
    let config = line.run.config.as_deref();
    let jobs = plan(&line.flags, config, "generate-base", GenerateBaseJob::check)?;
    work_off(
        &session,
        session.own(apart(jobs), &line.run),
        prepare,
        |session, prepared| {
            let (folder, is_finished) = (prepared.job.output_dir.clone(), prepared.is_finished);
            execute(session, prepared)?;
            if !is_finished {
                session.reporter.note(&format!(
                    "next: look at {} and tune on the image N that you like: oneactor tune {} --target N",
                    BaseFolder(&folder).grid().display(),
                    quoted(&folder.display().to_string())
                ));
            }
            Ok(())
        },
    )
}

/// A job with its model.
pub(super) struct BaseJob {
    job: GenerateBaseJob,
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    control: Option<LocatedControl>,
    /// The settings that determine the images: the same settings give the same images.
    settings: Settings,
    /// CRC-32 of the files that the settings only name.
    sources: Settings,
    /// Whether all files are there already.
    pub(super) is_finished: bool,
}

impl BaseJob {
    /// The number of base images, N.
    pub(super) fn num_images(&self) -> usize {
        self.job.num_images
    }

    /// The model that draws the images.
    pub(super) fn model(&self) -> &Rc<LocatedModel> {
        &self.model
    }

    /// The base words.
    pub(super) fn words(&self) -> &[String] {
        &self.job.subjects
    }

    fn control_names(&self) -> Vec<&str> {
        self.control
            .iter()
            .flat_map(LocatedControl::names)
            .collect()
    }

    /// The settings and sources of finished parts, as the text of the file beside them.
    fn parts_settings(&self) -> Result<String> {
        let mut settings = self.settings.clone();
        settings.extend(self.sources.clone());
        Ok(serde_json::to_string(&settings)?)
    }

    /// Whether the finished parts of an earlier run are kept, because that run had the same settings.
    fn keeps_parts(&self, layout: &BaseFolder, settings: &str) -> bool {
        let there = text::read(&layout.parts_settings());
        let is_same = there.is_ok_and(|there| there == settings);
        is_same && !(self.job.drawing.overwrite && layout.record().is_file())
    }
}

/// Draws the numbered sheet of a base folder again if it is missing or out of date and all images exist.
///
/// # Errors
/// When the sheet cannot be written.
pub(super) fn restore_sheet(session: &Session, folder: &Path, num_images: usize) -> Result<()> {
    let layout = BaseFolder(folder);
    if (0..num_images).all(|index| layout.image(index).is_file()) {
        numbered_sheet(&layout, num_images).keep(session, "grid", false)
    } else {
        Ok(())
    }
}

/// The numbered contact sheet of `num_images` images.
fn numbered_sheet(layout: &BaseFolder, num_images: usize) -> Sheet {
    let images: Vec<PathBuf> = (0..num_images).map(|index| layout.image(index)).collect();
    Sheet::numbered(layout.grid(), &images, None)
}

impl Prepared for BaseJob {
    fn files(&self) -> Vec<PathBuf> {
        let layout = BaseFolder(&self.job.output_dir);
        if self.is_finished {
            let sheet = numbered_sheet(&layout, self.job.num_images);
            return if sheet.is_current() {
                Vec::new()
            } else {
                vec![layout.grid()]
            };
        }
        let mut files: Vec<PathBuf> = (0..self.job.num_images).map(|i| layout.image(i)).collect();
        files.extend([layout.grid(), layout.set(), layout.record()]);
        files
    }

    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn check_networks(&self) -> Result<()> {
        let control = self.control.iter().flat_map(LocatedControl::files);
        self.model.check_networks(control)
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        self.forecast()?
            .tell(session, &self.files(), &self.job.output_dir)
    }

    fn loads(&self) -> Loads {
        Loads {
            shared: vec![self.model.key(), format!("{:?}", self.control_names())],
            reads: Vec::new(),
        }
    }
}

/// Checks a job against its model and its folder.
///
/// # Errors
/// When the model cannot read the prompt, or the folder holds images of other settings.
pub(super) fn prepare(session: &Session, mut job: GenerateBaseJob) -> Result<BaseJob> {
    job.model
        .model
        .get_or_insert_with(|| DEFAULT_MODEL.to_owned());
    let model = session
        .locate(&job.model)
        .map_err(|error| suggest_toy(error, job.model.model.as_deref()))?;
    let words = &job.subjects;
    let pair = prompt_pair(&job.drawing, &model.tokenizers, &job.prompt, words)?;
    let options = job.drawing.prompt_options;
    if let Some(line) = looks_like_syntax(&job.prompt, options.prompt_weights) {
        session.reporter.warn(&line);
    }
    model.check_prompt(&pair.prompt, words, &session.reporter)?;
    model.check_prompt(&pair.negative, &[], &session.reporter)?;
    model.check_words(&pair.prompt, &[], &session.reporter);
    model.check_words(&pair.negative, &[], &session.reporter);
    let drawing = model.resolve(&job.drawing)?;
    model.check_tiles(drawing.width, drawing.height, &session.reporter);
    session.tell_of_seed(job.drawing.seed + job.num_images as i64 - 1);
    let control = job.control.as_ref();
    let control = control
        .map(|control| LocatedControl::locate(session, control, &model, drawing))
        .transpose()?;
    let sources = control.as_ref().map(LocatedControl::sources);
    let sources = sources.unwrap_or_default();
    let mut settings = drawing_settings(&job.drawing, drawing, &model)?;
    settings.extend(
        control
            .as_ref()
            .map(LocatedControl::settings)
            .unwrap_or_default(),
    );
    settings.extend([
        ("prompt".to_owned(), json!(job.prompt)),
        ("subject".to_owned(), subject::to_value(&job.subjects)),
        ("num_images".to_owned(), json!(job.num_images)),
        ("seed".to_owned(), json!(job.drawing.seed)),
    ]);
    if let Some(sums) = model.lora_crc32() {
        settings.insert("lora_crc32".to_owned(), json!(sums));
    }
    let layout = BaseFolder(&job.output_dir);
    let is_finished =
        !job.drawing.overwrite && layout.is_finished(job.num_images, &settings, &sources)?;
    if is_finished && let Ok(record) = PictureRecord::read(&layout.image(0)) {
        changes::tell(session, &layout.images(), &record.version, &model);
    }
    Ok(BaseJob {
        job,
        model,
        drawing,
        control,
        settings,
        sources,
        is_finished,
    })
}

/// Adds to an error about the default model that the toy model needs no download.
fn suggest_toy(error: anyhow::Error, name: Option<&str>) -> anyhow::Error {
    if kind_of(&error) == ErrorKind::Model && name == Some(DEFAULT_MODEL) {
        model(format!(
            "{error:#}; to try the program without a download, give --model toy"
        ))
    } else {
        error
    }
}

/// Draws the missing images.
///
/// # Errors
/// When a signal asks the program to stop, or a file cannot be written.
pub(super) fn execute(session: &Session, prepared: BaseJob) -> Result<()> {
    let BaseJob { job, .. } = &prepared;
    let folder = &job.output_dir;
    let layout = BaseFolder(folder);
    remove_leftovers(folder);
    remove_leftovers(&layout.images());
    if prepared.is_finished {
        let count = job.num_images;
        session.reporter.note(&format!(
            "{}: {count} of {count} images are there already",
            folder.display()
        ));
        // The parts are still there if a process was killed after it wrote its last result.
        let _ = fs::remove_dir_all(layout.parts());
        return numbered_sheet(&layout, count).keep(session, "grid", false);
    }
    let started = Instant::now();
    let backbone = session.load(&prepared.model)?;
    let painter = BasePainter::new(session, &backbone, &prepared)?;
    if session.is_last_job.get() {
        backbone.release_text_encoders();
    }
    create_folder(&layout.images())?;
    start_parts(session, &layout, &prepared)?;

    let missing = layout.missing(job.num_images);
    if missing.len() < job.num_images {
        let done = job.num_images - missing.len();
        session.reporter.note(&format!(
            "{done} of {} images are there already",
            job.num_images
        ));
    }
    painter.draw_all(session, &layout, &missing)?;
    save_set(session, &layout, job.num_images)?;
    let cost = Cost {
        images_drawn: missing.len(),
        seconds: started.elapsed().as_secs_f64(),
    };
    save_record(session, &prepared, &backbone, &cost)?;
    session.wrote(&layout.record(), "config", Value::Null);
    fs::remove_dir_all(layout.parts()).context("removing the folder of finished parts")?;
    Ok(())
}

/// Joins the parts into the base set, and draws the numbered sheet of the images.
fn save_set(session: &Session, layout: &BaseFolder, num_images: usize) -> Result<()> {
    let parts: Vec<BaseSet> = (0..num_images)
        .map(|index| BaseSet::read(&layout.part(index)))
        .collect::<Result<_>>()?;
    let base = BaseSet::cat(&parts)?;
    write_bytes_atomically(&layout.set(), &base.to_bytes()?)?;
    session.wrote(&layout.set(), "base set", Value::Null);
    numbered_sheet(layout, num_images).keep(session, "grid", true)
}

/// Prepares the folder of parts. Parts of an earlier run with the same settings are kept.
fn start_parts(session: &Session, layout: &BaseFolder, prepared: &BaseJob) -> Result<()> {
    let text = prepared.parts_settings()?;
    if !prepared.keeps_parts(layout, &text) {
        if layout.is_unfinished() {
            session.reporter.note(
                "starting again with image 0, because the interrupted run had other settings",
            );
        }
        // The record is removed, because the folder is incomplete until all parts are drawn again.
        let _ = fs::remove_dir_all(layout.parts());
        create_folder(&layout.parts())?;
        let _ = fs::remove_file(layout.record());
        remove_images_from(layout, prepared.job.num_images);
        write_bytes_atomically(&layout.parts_settings(), text.as_bytes())?;
    }
    Ok(())
}

/// Removes the images from number `first` on, which an earlier, larger set has left.
fn remove_images_from(layout: &BaseFolder, first: usize) {
    let mut index = first;
    while fs::remove_file(layout.image(index)).is_ok() {
        index += 1;
    }
}

/// How many images this process has drawn, and its time with loading and saving.
struct Cost {
    images_drawn: usize,
    seconds: f64,
}

/// Writes the record `base.json`: the resolved settings, and facts about the run.
fn save_record(
    session: &Session,
    prepared: &BaseJob,
    backbone: &Backbone,
    cost: &Cost,
) -> Result<()> {
    let seed = prepared.job.drawing.seed;
    let image = |index| BaseImage {
        path: BaseFolder::image_name(index),
        seed: Some(seed + index as i64),
    };
    let run = session.run_facts(backbone, cost.seconds);
    let details = BaseDetails {
        sources: prepared.sources.clone(),
        images_drawn: Some(cost.images_drawn),
        images: (0..prepared.job.num_images).map(image).collect(),
    };
    let record = BaseRecord::new(prepared.settings.clone(), run, details);
    record.write(&BaseFolder(&prepared.job.output_dir).record())
}
