//! What a dry run of `sample` reports.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::pictures::Picture;
use super::{ENCODED_AHEAD, Sampling};
use crate::cli::Method;
use crate::config::SampleJob;
use crate::config::recorded::is_of_picture;
use crate::records::{BaseFolder, BaseRecord, ManifestRow};
use crate::run::dry_run::{Forecast, Measured, UnetRows, Work};
use crate::run::manifest::Manifest;

impl Sampling {
    /// The forecast of the missing pictures: how their prompts are read, and what drawing them needs.
    ///
    /// # Errors
    /// When a prompt cannot be read, or a file of the model is missing.
    pub(in super::super) fn forecast(&self) -> Result<Forecast> {
        let mut forecast = Forecast::of(&self.model);
        let missing = self.missing();
        let drawing = &self.job.drawing;
        for picture in &missing {
            let scene = &picture.scene;
            let pair = scene.prompt_pair(drawing, &self.model.tokenizers, picture.is_guided)?;
            forecast.add_pair(pair, scene.guided_words());
        }
        if missing.is_empty() {
            return Ok(forecast);
        }
        forecast.add_beside(self.control.as_deref(), self.image_prompt.as_deref())?;
        let actors = self
            .job
            .actors
            .iter()
            .filter_map(|path| fs::metadata(path).ok());
        forecast.actor_bytes = if self.job.guidance.no_actor {
            0
        } else {
            actors.map(|file| file.len()).sum()
        };
        let steps = self.model.passes(self.drawing.scheduler, drawing.steps)?;
        let mut work = Work {
            is_least: self.job.method == Method::Consistory,
            ..Work::default()
        };
        let alike = |a: &&Picture, b: &&Picture| {
            (a.is_guided, &a.scene.prompt) == (b.is_guided, &b.scene.prompt)
        };
        let (mut batch, mut at_once) = (0, UnetRows::default());
        forecast.keeps_text = missing.chunk_by(alike).count() > ENCODED_AHEAD;
        for group in missing.chunk_by(alike) {
            let shape = Shape {
                is_guided: group[0].is_guided,
                has_masks: group[0].is_guided && group[0].scene.has_masks(),
            };
            for pictures in group.chunks(drawing.batch_size) {
                let (passes, rows, most) = shape.passes(&self.job, &steps);
                work.pictures += pictures.len();
                work.passes += passes;
                work.rows += rows * pictures.len();
                batch = batch.max(pictures.len());
                at_once = at_once.or(shape.at_once(most, pictures.len()));
            }
        }
        forecast.add_drawing(self.drawing, work, batch, at_once)?;
        forecast.measured = self
            .by_manifest(&missing)
            .or_else(|| self.by_base_images(work));
        Ok(forecast)
    }

    /// Estimated seconds, from the pictures in the folder with the same settings.
    fn by_manifest(&self, missing: &[&Picture]) -> Option<Measured> {
        let manifest = Manifest::open_part(&self.job.output_dir, self.shard);
        let mut seconds = 0.0;
        for picture in missing {
            let is_alike = |row: &&ManifestRow| {
                let mut settings = picture.settings.iter();
                settings
                    .all(|(key, value)| is_of_picture(key) || row.settings.get(key) == Some(value))
            };
            let rows = manifest.rows().filter(is_alike);
            let mut times: Vec<f64> = rows.filter_map(|row| row.seconds).collect();
            times.sort_by(f64::total_cmp);
            seconds += times.get(times.len() / 2)?;
        }
        Some(Measured {
            seconds,
            source: format!("the pictures in {}", manifest.path().display()),
        })
    }

    /// Estimated seconds, from the base images of the first actor if they have the same model, size and device: their
    /// time for each row of the U-Net, with loading.
    fn by_base_images(&self, work: Work) -> Option<Measured> {
        let path = BaseFolder::beside(self.job.actors.first()?).record();
        let base = BaseRecord::read(&path).ok()?;
        let parameters = &base.parameters;
        for key in ["model", "width", "height", "dtype"] {
            if parameters.get(key)? != self.settings.get(key)? {
                return None;
            }
        }
        if base.run.device != format!("{:?}", self.model.device) {
            return None;
        }
        let images = base.details.images_drawn.filter(|&images| images > 0)?;
        let number = |key: &str| parameters.get(key).and_then(Value::as_f64);
        let guided = number("guidance_scale")? > 1.0;
        let rows = images as f64 * number("steps")? * if guided { 2.0 } else { 1.0 };
        Some(Measured {
            seconds: base.run.seconds? / rows * work.rows as f64,
            source: format!(
                "the time of each row in {}, loading included",
                path.display()
            ),
        })
    }
}

/// The properties of a picture, besides its job, that determine its rows in the U-Net.
pub(in super::super) struct Shape {
    /// Whether an actor or a baseline guides.
    pub is_guided: bool,
    /// Whether subjects have masks.
    pub has_masks: bool,
}

impl Shape {
    /// For pictures that are drawn in one batch: the number of U-Net passes, the rows of one picture in all passes
    /// together, and its most rows in one pass. `steps` has for each pass the step that it belongs to.
    pub fn passes(&self, job: &SampleJob, steps: &[usize]) -> (usize, usize, usize) {
        let rows: Vec<usize> = steps.iter().map(|&step| self.rows(job, step)).collect();
        // One more pass before the first step finds out where the subjects are.
        let first_look = usize::from(self.has_masks);
        (
            rows.len() + first_look,
            rows.iter().sum::<usize>() + first_look,
            rows.iter().copied().max().unwrap_or(1),
        )
    }

    /// The rows of one pass for `images` pictures, each with `most` rows. The rows of target and average differ only in
    /// their text. With masks, the attention maps of one row a picture are recorded.
    pub fn at_once(&self, most: usize, images: usize) -> UnetRows {
        UnetRows {
            at_once: most * images,
            without_text: most.min(2) * images,
            watched: if self.has_masks { images } else { 0 },
        }
    }

    /// Rows of a picture at this step; steps are counted from 1.
    fn rows(&self, job: &SampleJob, step: usize) -> usize {
        let interval = job.shortcuts.guidance_interval;
        if interval.is_some_and(|(first, last)| !(first..=last).contains(&step)) {
            return 1;
        }
        let (first, last) = job.guidance.settings.guided_steps;
        let is_of_the_method = self.is_guided && job.method == Method::Oneactor;
        match is_of_the_method && (first..=last).contains(&step) {
            true if job.guidance.settings.eta_2 == 0.0 => 2,
            true => 3,
            false if job.drawing.guidance_scale > 1.0 => 2,
            false => 1,
        }
    }
}
