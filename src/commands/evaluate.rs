//! `evaluate`: how alike pictures are to the target, to each other and to their prompts.

mod measuring;
mod pictures;
mod plot;
mod report;
mod table;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use image::{GrayImage, RgbImage};
use serde_json::Value;
use tch::Device;

use super::located::find;
use super::session::Session;
use super::{Prepared, create_folder, work_off};
use crate::cli::{EvaluateLine, TableFormat};
use crate::config::evaluate::Report;
use crate::config::{EvaluateJob, Planned, plan};
use crate::device::resolve_device;
use crate::error::{Error, ErrorKind, usage};
use crate::io::model_files::{ModelFiles, ModelOptions};
use crate::measures::Network;
use pictures::{Picture, target_mask};
use table::Table;

/// Does the jobs of `evaluate`.
///
/// # Errors
/// See `work_off`; of kind `Quality` where a gate failed.
pub fn run(line: &EvaluateLine) -> Result<()> {
    let session = Session::start("evaluate", &line.run.run())?;
    let config = line.run.config.as_deref();
    let jobs = plan(&line.flags, config, "evaluate", EvaluateJob::check)?;
    let format = line.run.format;
    if format == TableFormat::Csv && jobs.len() > 1 {
        return Err(usage(format!(
            "--format csv: found {} jobs, expected one, for each has a table of its own: use --format json, or a file a job",
            jobs.len()
        )));
    }
    refuse_same_report(&jobs)?;
    work_off(&session, jobs, prepare, |session, evaluation| {
        execute(session, &evaluation, format)
    })
}

/// The page of one job would be lost behind that of another.
fn refuse_same_report(jobs: &[Planned<EvaluateJob>]) -> Result<()> {
    let mut paths: Vec<&Path> = Vec::new();
    for job in jobs.iter().filter_map(|planned| planned.job.as_ref().ok()) {
        let Some(Report { path, .. }) = &job.report else {
            continue;
        };
        if paths.contains(&path.as_path()) {
            return Err(usage(format!(
                "--report: found {} in two jobs, expected a file for each",
                path.display()
            )));
        }
        paths.push(path);
    }
    Ok(())
}

/// A job with its pictures and the files of its networks.
struct Evaluation {
    job: EvaluateJob,
    pictures: Vec<Picture>,
    /// The target and its mask, read first: nothing is measured for nothing.
    target: Option<RgbImage>,
    target_mask: Option<GrayImage>,
    models: Vec<(Network, Rc<ModelFiles>)>,
    device: Device,
}

impl Prepared for Evaluation {
    fn folder(&self) -> &Path {
        &self.job.pictures[0]
    }

    fn only_reads(&self) -> bool {
        true
    }

    /// Those that it would read: it writes none.
    fn files(&self) -> Vec<PathBuf> {
        self.pictures
            .iter()
            .map(|picture| picture.path.clone())
            .collect()
    }

    fn settings(&self) -> Value {
        self.job.settings()
    }
}

/// Finds pictures, masks and the networks' files.
fn prepare(session: &Session, job: EvaluateJob) -> Result<Evaluation> {
    let pictures = pictures::list(&job)?;
    let target = job.target.as_deref().map(measuring::read_measurable);
    let target = target.transpose().context("--target")?;
    let target_mask = job.target_mask.as_deref().map(target_mask).transpose()?;
    let device = resolve_device(&job.device)?;
    let models = job.models.iter().map(|(network, name)| {
        let options = ModelOptions {
            model: name.clone(),
            offline: job.offline,
            ..ModelOptions::default()
        };
        Ok((
            *network,
            Rc::new(find(&options, session.reporter.is_quiet())?),
        ))
    });
    Ok(Evaluation {
        models: models.collect::<Result<_>>()?,
        pictures,
        target,
        target_mask,
        device,
        job,
    })
}

fn execute(session: &Session, evaluation: &Evaluation, format: TableFormat) -> Result<()> {
    let report = evaluation.job.report.as_ref();
    if let Some(folder) = report.and_then(|report| report.path.parent()) {
        create_folder(folder)?;
    }
    let columns = measuring::measure(session, evaluation)?;
    let table = Table::new(&evaluation.pictures, columns);
    session.print(&match format {
        TableFormat::Text => table.text(),
        TableFormat::Json => table.json(),
        TableFormat::Csv => table.csv(),
    });
    let failed: Vec<String> = evaluation
        .job
        .gates
        .iter()
        .filter_map(|gate| table.failure(gate))
        .collect();
    if let Some(report) = report {
        report::write(report, evaluation, &table, &failed)?;
        let path = report.path.display();
        session.reporter.note(&format!("the report is {path}"));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Quality, failed.join("; ")).into()),
    }
}
