//! `sweep`: the same prompt and seeds with different values of one or two settings, on a labelled grid (Figs. 3, 12,
//! 13).

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::sample::{Plan, Sampling, draw_missing, restore_rows};
use crate::cli::{CommandLine, SweepFlags};
use crate::config::shard::Shard;
use crate::config::{SweepJob, plan};
use crate::progress::STEPS;
use crate::records::SceneFolder;
use crate::run::jobs::work_off;
use crate::run::manifest::Manifest;
use crate::run::prepared::Loads;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
use crate::run::sheet::Sheet;

/// Does the jobs of `sweep`.
///
/// # Errors
/// See `work_off`.
pub fn run(line: &CommandLine<SweepFlags>) -> Result<()> {
    let session = Session::start("sweep", &line.run)?;
    session.refuse_shard()?;
    let config = line.run.config.as_deref();
    let jobs = plan(&line.flags, config, "sweep", SweepJob::check)?;
    work_off(&session, jobs, prepare, execute)
}

/// A job with the pictures of every cell.
struct Sweep {
    job: SweepJob,
    /// The cells of the grid, row by row.
    cells: Vec<Sampling>,
}

impl Prepared for Sweep {
    fn files(&self) -> Vec<PathBuf> {
        let missing = self.cells.iter().flat_map(Sampling::missing);
        let mut files: Vec<PathBuf> = missing.map(|picture| picture.path.clone()).collect();
        let is_drawing = !files.is_empty();
        if is_drawing {
            files.push(SceneFolder(&self.job.output_dir).manifest(Shard::WHOLE));
        }
        let grids = self.grids().into_iter();
        let grids = grids.filter(|grid| is_drawing || !grid.is_current());
        files.extend(grids.map(|grid| grid.path().to_owned()));
        files
    }

    fn settings(&self) -> Value {
        json!({
            "rows": self.job.rows,
            "columns": self.job.columns,
            "first_cell": self.cells[0].settings(),
        })
    }

    fn check_networks(&self) -> Result<()> {
        self.cells[0].check_networks()
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        let mut cells = self.cells.iter().map(Sampling::forecast);
        let mut forecast = cells.next().expect("a sweep has a cell")?;
        for cell in cells {
            forecast.join(cell?);
        }
        forecast.tell(session, &self.files(), &self.job.output_dir)
    }

    fn loads(&self) -> Loads {
        self.cells[0].loads()
    }
}

fn prepare(session: &Session, mut job: SweepJob) -> Result<Sweep> {
    let jobs = std::mem::take(&mut job.cells);
    let stage = Plan::look_up(session, &jobs[0])?;
    let cells = jobs.into_iter().map(|job| stage.sampling(job));
    let cells = cells.collect::<Result<_>>()?;
    Ok(Sweep { job, cells })
}

impl Sweep {
    /// With one axis, one grid with a row for each seed; with two axes, one grid for each seed.
    fn grids(&self) -> Vec<Sheet> {
        let folder = SceneFolder(&self.job.output_dir);
        let columns = || self.job.columns.labels.clone();
        let seeds: Vec<i64> = self.cells[0].pictures.iter().map(|p| p.seed).collect();
        let of_seed = |index: usize| {
            let pictures = self.cells.iter().map(move |cell| &cell.pictures[index]);
            pictures.map(|picture| picture.path.as_path())
        };
        let Some(rows) = &self.job.rows else {
            let pictures: Vec<&Path> = (0..seeds.len()).flat_map(of_seed).collect();
            let rows = seeds.iter().map(|seed| format!("seed {seed}")).collect();
            return vec![Sheet::table(folder.grid(), &pictures, rows, columns())];
        };
        let grid = |(index, seed): (usize, &i64)| {
            let path = match seeds.len() {
                1 => folder.grid(),
                _ => folder.grid_of_seed(*seed),
            };
            let pictures: Vec<&Path> = of_seed(index).collect();
            Sheet::table(path, &pictures, rows.labels.clone(), columns())
        };
        seeds.iter().enumerate().map(grid).collect()
    }
}

fn execute(session: &Session, sweep: Sweep) -> Result<()> {
    let steps = sweep.cells.iter().map(Sampling::steps_to_do).sum();
    let total: usize = sweep.cells.iter().map(|cell| cell.pictures.len()).sum();
    let missing: usize = sweep.cells.iter().map(|cell| cell.missing().len()).sum();
    if missing < total {
        let done = total - missing;
        let folder = sweep.job.output_dir.display();
        session.reporter.note(&format!(
            "{folder}: {done} of {total} images are there already"
        ));
    }
    if missing > 0 {
        session.load(sweep.cells[0].model())?;
        session.reporter.start("drawing", steps, STEPS);
    }
    let mut manifest = Manifest::open(&sweep.job.output_dir);
    let mut is_new = missing > 0;
    let last = sweep.cells.len();
    for (number, cell) in (1..).zip(&sweep.cells) {
        let is_last = number == last && session.is_last_job.get();
        draw_missing(session, cell, &mut manifest, is_last)?;
        is_new |= restore_rows(cell, &mut manifest)?;
    }
    session.reporter.finish();
    if is_new {
        session.wrote(manifest.path(), "manifest", Value::Null);
    }
    for grid in sweep.grids() {
        grid.keep(session, "grid", missing > 0)?;
    }
    Ok(())
}
