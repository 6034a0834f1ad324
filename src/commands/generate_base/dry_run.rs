//! What a dry run of `generate-base` reports.

use anyhow::Result;

use super::BaseJob;
use crate::config::batch::Settings;
use crate::records::differences::differences;
use crate::records::{BaseFolder, BaseRecord};
use crate::run::draw::prompt_pair;
use crate::run::dry_run::{Forecast, Measured, UnetRows, Work};

impl BaseJob {
    /// The forecast of the job: how its prompt is read, and what drawing needs.
    ///
    /// # Errors
    /// When a file of the model is missing.
    pub(in super::super) fn forecast(&self) -> Result<Forecast> {
        let mut forecast = Forecast::of(&self.model);
        if self.is_finished {
            return Ok(forecast);
        }
        let drawing = &self.job.drawing;
        let words = &self.job.subjects;
        let pair = prompt_pair(drawing, &self.model.tokenizers, &self.job.prompt, words)?;
        forecast.add_pair(pair, words);
        forecast.add_beside(self.control.as_ref(), None)?;
        let layout = BaseFolder(&self.job.output_dir);
        let pictures = if self.keeps_parts(&layout, &self.parts_settings()?) {
            layout.missing(self.job.num_images).len()
        } else {
            self.job.num_images
        };
        let passes = self
            .model
            .passes(self.drawing.scheduler, drawing.steps)?
            .len();
        let rows = if drawing.guidance_scale > 1.0 { 2 } else { 1 };
        let work = Work {
            pictures,
            passes: pictures.div_ceil(drawing.batch_size) * passes,
            rows: pictures * passes * rows,
            ..Work::default()
        };
        let batch = drawing.batch_size.min(pictures);
        let at_once = UnetRows {
            at_once: rows * batch,
            without_text: rows * batch,
            watched: 0,
        };
        forecast.add_drawing(self.drawing, work, batch, at_once)?;
        forecast.measured = earlier_images(&layout, &self.settings, pictures);
        Ok(forecast)
    }
}

/// Estimated seconds for `pictures` images, from the time of the last run with the same settings.
fn earlier_images(layout: &BaseFolder, settings: &Settings, pictures: usize) -> Option<Measured> {
    let path = layout.record();
    let record = BaseRecord::read(&path).ok()?;
    if !differences(&record.parameters, settings).is_empty() {
        return None;
    }
    let drawn = record.details.images_drawn.filter(|&drawn| drawn > 0)?;
    Some(Measured {
        seconds: record.run.seconds? / drawn as f64 * pictures as f64,
        source: format!("{}, loading included", path.display()),
    })
}
