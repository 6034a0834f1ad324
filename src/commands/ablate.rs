//! `ablate`: the same pictures without the method, with parts of the method, and with the whole method (Fig. 11).

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use super::sample::{self, Sampling, draw_missing, restore_rows};
use super::tune::{self, Tuning};
use crate::cli::{AblateFlags, CommandLine};
use crate::config::shard::Shard;
use crate::config::shell::quoted;
use crate::config::{AblateJob, plan};
use crate::error::usage;
use crate::progress::STEPS;
use crate::records::SceneFolder;
use crate::run::dry_run::Forecast;
use crate::run::jobs::work_off;
use crate::run::located::LocatedModel;
use crate::run::manifest::Manifest;
use crate::run::prepared::Loads;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
use crate::run::sheet::Sheet;

/// Does the jobs of `ablate`.
///
/// # Errors
/// See `work_off`.
pub fn run(line: &CommandLine<AblateFlags>) -> Result<()> {
    let session = Session::start("ablate", &line.run)?;
    session.refuse_shard()?;
    let config = line.run.config.as_deref();
    let jobs = plan(&line.flags, config, "ablate", AblateJob::check)?;
    work_off(&session, jobs, prepare, execute)
}

/// A job with its tunings.
struct Ablation {
    job: AblateJob,
    tunings: Vec<Tuning>,
    /// The pictures that are missing, as far as they are known before tuning.
    planned: Vec<PathBuf>,
    settings: Value,
    /// The drawings, as far as they are known before tuning.
    drawings: Vec<Sampling>,
    /// The model of the finished actor.
    model: Rc<LocatedModel>,
}

impl Prepared for Ablation {
    fn files(&self) -> Vec<PathBuf> {
        let tuned = self.tunings.iter().flat_map(Prepared::files);
        let mut files: Vec<PathBuf> = tuned.chain(self.planned.clone()).collect();
        if !self.planned.is_empty() {
            files.push(SceneFolder(&self.job.output_dir).manifest(Shard::WHOLE));
        }
        let grid = grid(&self.job, &self.drawings);
        if !self.planned.is_empty() || !grid.is_current() {
            files.push(grid.path().to_owned());
        }
        files
    }

    fn settings(&self) -> Value {
        self.settings.clone()
    }

    fn check_networks(&self) -> Result<()> {
        let mut drawings = self.drawings.iter();
        drawings.try_for_each(Prepared::check_networks)
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        let mut forecast = Forecast::of(&self.model);
        for tuning in &self.tunings {
            forecast.join(tuning.forecast()?);
        }
        for drawing in &self.drawings {
            forecast.join(drawing.forecast()?);
        }
        forecast.tell(session, &self.files(), &self.job.output_dir)
    }

    fn loads(&self) -> Loads {
        let of_tuning = self.tunings.iter().flat_map(|tuning| tuning.loads().reads);
        let actors = self.job.columns.iter();
        let actors = actors.flat_map(|column| column.drawing.actors.clone());
        Loads {
            shared: vec![self.model.key()],
            reads: of_tuning.chain(actors).collect(),
        }
    }
}

/// Checks the job. The actor with all losses must be finished and must have been tuned on the present base images.
fn prepare(session: &Session, job: AblateJob) -> Result<Ablation> {
    let full = tune::prepare(session, job.full.clone())?;
    if !full.is_finished {
        let dir = job.full.dir.display();
        return Err(usage(format!(
            "there is no finished actor in {dir}: run `oneactor tune {}` first",
            quoted(&dir.to_string())
        )));
    }
    let mut tunings = Vec::new();
    let mut planned = Vec::new();
    let mut drawn = Vec::new();
    let mut drawings = Vec::new();
    for column in &job.columns {
        let tuning = column.tuning.clone();
        let tuning = tuning.map(|job| tune::prepare(session, job)).transpose()?;
        let is_tuned = tuning.as_ref().is_none_or(|tuning| tuning.is_finished);
        if is_tuned {
            let sampling = sample::prepare(session, column.tuned())?;
            drawn.push(sampling.settings());
            planned.extend(
                sampling
                    .missing()
                    .iter()
                    .map(|picture| picture.path.clone()),
            );
            drawings.push(sampling);
        } else {
            // Prepared with the finished actor, only to check the prompts and to list the files.
            let mut job = column.drawing.clone();
            job.drawing.overwrite = true;
            let sampling = sample::prepare(session, job)?;
            planned.extend(sampling.pictures.iter().map(|picture| picture.path.clone()));
            drawings.push(sampling);
        }
        tunings.extend(tuning);
    }
    let settings = json!({
        "tunings": tunings.iter().map(Prepared::settings).collect::<Vec<_>>(),
        "drawings": drawn,
    });
    Ok(Ablation {
        model: Rc::clone(full.model()),
        job,
        tunings,
        planned,
        settings,
        drawings,
    })
}

fn execute(session: &Session, ablation: Ablation) -> Result<()> {
    let Ablation { job, tunings, .. } = ablation;
    for tuning in tunings {
        let folder = tuning.folder().display().to_string();
        session.reporter.note(&format!("{folder}:"));
        tune::execute(session, tuning.looked_up_again(session)?)?;
    }
    let columns = job.columns.iter();
    let columns: Vec<Sampling> = columns
        .map(|column| sample::prepare(session, column.tuned()))
        .collect::<Result<_>>()?;
    let steps: usize = columns.iter().map(Sampling::steps_to_do).sum();
    let is_drawing = steps > 0;
    if is_drawing {
        session.load(columns[0].model())?;
        session.reporter.start("drawing", steps, STEPS);
    }
    let mut manifest = Manifest::open(&job.output_dir);
    let mut is_new = is_drawing;
    let last = columns.len();
    for (number, column) in (1..).zip(&columns) {
        let is_last = number == last && session.is_last_job.get();
        draw_missing(session, column, &mut manifest, is_last)?;
        is_new |= restore_rows(column, &mut manifest)?;
    }
    session.reporter.finish();
    if is_new {
        session.wrote(manifest.path(), "manifest", Value::Null);
    }
    grid(&job, &columns).keep(session, "grid", is_drawing)
}

/// The contact sheet: a row for each picture, a column for each variant.
fn grid(job: &AblateJob, columns: &[Sampling]) -> Sheet {
    let rows = 0..columns[0].pictures.len();
    let pictures: Vec<&Path> = rows
        .flat_map(|row| {
            columns
                .iter()
                .map(move |column| column.pictures[row].path.as_path())
        })
        .collect();
    let seeds = columns[0].pictures.iter();
    let rows = seeds.map(|picture| format!("seed {}", picture.seed));
    let headings = job.columns.iter().map(|column| column.heading.clone());
    let path = SceneFolder(&job.output_dir).grid();
    Sheet::table(path, &pictures, rows.collect(), headings.collect())
}
