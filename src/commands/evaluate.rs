//! `evaluate`: how similar pictures are to the target, to each other and to their prompts.

mod foregrounds;
mod measuring;
mod pictures;

use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::Value;
use tch::Device;

use crate::cli::{EvaluateLine, TableFormat};
use crate::config::evaluate::{Gate, Masks, Report};
use crate::config::{EvaluateJob, Planned, Writes, plan};
use crate::error::{Error, ErrorKind, usage};
use crate::io::atomic::write_bytes_atomically;
use crate::io::model_files::{ModelFiles, ModelOptions};
use crate::io::real_path::RealPlace;
use crate::io::writable::create_folder;
use crate::measures::Network;
use crate::measures::column::Column;
use crate::measures::distances::CommonSize;
use crate::measures::picture::{Picture, Target, read_mask, read_measurable};
use crate::measures::table::{PictureRow, Table};
use crate::pages::evaluation::EvaluationPage;
use crate::run::jobs::work_off;
use crate::run::located::find;
use crate::run::prepared::Prepared;
use crate::run::session::Session;

/// Does the jobs of `evaluate`.
///
/// # Errors
/// See `work_off`; of kind `Quality` if a gate failed.
pub fn run(line: &EvaluateLine) -> Result<()> {
    let session = Session::start("evaluate", &line.run.run())?;
    let config = line.run.config.as_deref();
    let jobs = plan(&line.flags, config, "evaluate", EvaluateJob::check)?;
    let format = line.run.format;
    if format == TableFormat::Csv && jobs.len() > 1 {
        return Err(usage(format!(
            "--format csv: found {} jobs, expected one, because each job has its own table: use --format json, or a \
             batch file for each job",
            jobs.len()
        )));
    }
    refuse_same_report(&jobs)?;
    let numbered = |(number, planned): (usize, Planned<EvaluateJob>)| Planned {
        job: planned.job.map(|job| (number, job)),
        place: planned.place,
    };
    let jobs = (1..).zip(jobs).map(numbered).collect();
    work_off(&session, jobs, prepare, |session, mut evaluation| {
        foregrounds::find(session, &mut evaluation)?;
        execute(session, &evaluation, format)
    })
}

/// Refuses two jobs with the same `--report`: the second page would overwrite the first.
fn refuse_same_report(jobs: &[Planned<EvaluateJob>]) -> Result<()> {
    let mut places: Vec<RealPlace> = Vec::new();
    for job in jobs.iter().filter_map(|planned| planned.job.as_ref().ok()) {
        let Some(Report { path, .. }) = &job.report else {
            continue;
        };
        let place = RealPlace::of(path);
        if places.iter().any(|known| known.is_same(&place)) {
            return Err(usage(format!(
                "--report: found {} in two jobs, expected a different file for each",
                path.display()
            )));
        }
        places.push(place);
    }
    Ok(())
}

/// A job with its number, counted from 1.
impl Writes for (usize, EvaluateJob) {
    fn own_folders(&self) -> Vec<PathBuf> {
        self.1.save_masks.iter().cloned().collect()
    }
}

/// A job with its pictures and the files of its networks.
struct Evaluation {
    job: EvaluateJob,
    /// The number of the job in its batch, counted from 1.
    number: usize,
    pictures: Vec<Picture>,
    /// Read before anything is measured, so that a bad file stops the job at once.
    target: Option<Target>,
    models: Vec<(Network, Rc<ModelFiles>)>,
    /// The size at which LPIPS compares pictures, if LPIPS is measured.
    lpips_size: Option<CommonSize>,
    /// The files of Segment Anything, if it finds the masks.
    sam: Option<ModelFiles>,
    device: Device,
}

impl Prepared for Evaluation {
    fn only_reads(&self) -> bool {
        true
    }

    /// The masks that the job would write or, without `--save-masks`, the pictures that it would read.
    fn files(&self) -> Vec<PathBuf> {
        match &self.job.save_masks {
            Some(folder) => foregrounds::files(self, folder),
            None => self
                .pictures
                .iter()
                .map(|picture| picture.row.path.clone())
                .collect(),
        }
    }

    fn settings(&self) -> Value {
        self.job.settings()
    }

    fn check_networks(&self) -> Result<()> {
        measuring::check_networks(self)
    }
}

/// Finds pictures, masks and the networks' files.
fn prepare(session: &Session, (number, job): (usize, EvaluateJob)) -> Result<Evaluation> {
    let pictures = pictures::list(&job, &session.reporter)?;
    let target = target(&job)?;
    let measures_lpips = job
        .models
        .iter()
        .any(|(network, _)| *network == Network::Lpips);
    let lpips_size = measures_lpips.then(|| CommonSize::of(&pictures, job.target.as_deref()));
    let lpips_size = lpips_size.transpose()?;
    note_what_is_left_out(session, &job, &pictures, lpips_size.as_ref());
    if session.dry_run {
        for picture in &pictures {
            read_measurable(&picture.row.path)?;
            picture.mask()?;
        }
    }
    let device = job.device.resolve()?;
    let files = |name: &String| {
        let options = ModelOptions {
            model: name.clone(),
            offline: job.offline,
            ..ModelOptions::default()
        };
        find(&options, session.reporter.is_quiet())
    };
    let models = job.models.iter();
    let models = models.map(|(network, name)| Ok((*network, Rc::new(files(name)?))));
    let evaluation = Evaluation {
        models: models.collect::<Result<_>>()?,
        sam: job.sam_model.as_ref().map(files).transpose()?,
        pictures,
        target,
        lpips_size,
        device,
        number,
        job,
    };
    foregrounds::check_places(&evaluation)?;
    Ok(evaluation)
}

/// The target with its mask.
///
/// # Errors
/// When the target or its mask cannot be read.
fn target(job: &EvaluateJob) -> Result<Option<Target>> {
    let Some(path) = &job.target else {
        return Ok(None);
    };
    let mask = job.target_mask.as_deref().map(read_mask).transpose();
    Ok(Some(Target {
        picture: read_measurable(path).context("--target")?,
        mask: mask.context("--target-mask")?,
    }))
}

/// Notes which pictures are left out of comparisons, and which are resized first.
fn note_what_is_left_out(
    session: &Session,
    job: &EvaluateJob,
    pictures: &[Picture],
    lpips_size: Option<&CommonSize>,
) {
    if let Some(target) = pictures.iter().find(|picture| picture.row.is_target) {
        session.reporter.note(&format!(
            "{} is --target itself: it is not compared with other pictures and does not count in means",
            target.row.path.display()
        ));
    }
    let without = pictures.iter().filter(|picture| !picture.has_mask());
    let (without, all) = (without.count(), pictures.len());
    if job.masks == Some(Masks::Attention) && without > 0 {
        session.reporter.note(&format!(
            "{without} of {all} pictures have no masks: their foreground and background are not measured"
        ));
    }
    if let Some(size) = lpips_size.filter(|size| size.is_mixed) {
        session.reporter.note(&format!(
            "lpips: pictures and target have different sizes; all are compared at {} x {} pixels",
            size.width, size.height
        ));
    }
}

fn execute(session: &Session, evaluation: &Evaluation, format: TableFormat) -> Result<()> {
    let report = evaluation.job.report.as_ref();
    if let Some(folder) = report.and_then(|report| report.path.parent()) {
        create_folder(folder)?;
    }
    let columns = measuring::measure(session, evaluation)?;
    let rows = evaluation.pictures.iter();
    let rows: Vec<PictureRow> = rows.map(|picture| picture.row.clone()).collect();
    let table = Table::new(rows, columns, evaluation.number);
    session.print(match format {
        TableFormat::Text => table.text().into_bytes(),
        TableFormat::Json => table.json().into_bytes(),
        TableFormat::Csv => table.csv()?,
    });
    let failed: Vec<String> = evaluation
        .job
        .gates
        .iter()
        .filter_map(|gate| failure(gate, &table))
        .collect();
    if let Some(report) = report {
        write_report(report, evaluation, &table, &failed)?;
        let path = report.path.display();
        session.reporter.note(&format!("the report is {path}"));
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Quality, failed.join("; ")).into())
    }
}

/// The message of a gate that is not passed; `None` if it is passed.
fn failure(gate: &Gate, table: &Table) -> Option<String> {
    let (name, bound) = (&gate.column, gate.bound);
    match table.overall(name) {
        Some(found) if bound.holds(found.mean) => None,
        Some(found) => Some(format!(
            "{name}: found {:.4} overall, expected {bound}",
            found.mean
        )),
        None => Some(format!(
            "{name}: there is nothing to compare, expected {bound}"
        )),
    }
}

/// Writes the page of a job, complete or not at all.
///
/// # Errors
/// When a picture cannot be read or the page cannot be written.
fn write_report(
    report: &Report,
    evaluation: &Evaluation,
    table: &Table,
    failed: &[String],
) -> Result<()> {
    let job = &evaluation.job;
    let page = EvaluationPage {
        table,
        target: job
            .target
            .as_deref()
            .zip(evaluation.target.as_ref().map(|target| &target.picture)),
        failed,
        axes: axes(job, table),
        settings: &job.settings(),
        command: &report.command,
    };
    write_bytes_atomically(&report.path, page.to_html()?.as_bytes())
}

/// The two axes of the plot: the first measure that compares with prompts, and the first that compares pictures.
fn axes<'a>(job: &EvaluateJob, table: &'a Table) -> Option<(&'a Column, &'a Column)> {
    let columns = job.columns();
    let first = |is_of_text: bool| {
        let mut measures = columns.iter().map(|column| column.measure);
        let place = measures.position(|measure| measure.is_of_text() == is_of_text)?;
        table.columns.get(place)
    };
    Some((first(true)?, first(false)?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::evaluate::Bound;
    use crate::measures::column::ColumnValues;

    #[test]
    fn a_gate_holds_at_its_bound_and_fails_without_values() {
        let picture = PictureRow {
            path: PathBuf::from("a.png"),
            prompt: None,
            seed: None,
            actor: "cat".to_owned(),
            is_target: false,
        };
        let values = ColumnValues::Pictures(vec![Some(0.625)]);
        let columns = vec![
            Column::new("clip_i".to_owned(), values),
            Column::new("lpips".to_owned(), ColumnValues::Pairs(Vec::new())),
        ];
        let table = Table::new(vec![picture], columns, 1);
        let failure = |column: &str, bound| {
            let column = column.to_owned();
            failure(&Gate { column, bound }, &table)
        };
        assert_eq!(failure("clip_i", Bound::AtLeast(0.625)), None);
        assert_eq!(failure("clip_i", Bound::AtMost(0.625)), None);
        let low = "clip_i: found 0.6250 overall, expected at least 0.7";
        assert_eq!(failure("clip_i", Bound::AtLeast(0.7)).as_deref(), Some(low));
        let high = "clip_i: found 0.6250 overall, expected at most 0.5";
        assert_eq!(failure("clip_i", Bound::AtMost(0.5)).as_deref(), Some(high));
        let none = "lpips: there is nothing to compare, expected at least -1";
        assert_eq!(
            failure("lpips", Bound::AtLeast(-1.0)).as_deref(),
            Some(none)
        );
    }
}
