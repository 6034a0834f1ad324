//! What a dry run of `story` reports.

use anyhow::Result;

use super::super::sample::Shape;
use super::super::tune;
use super::{Making, StoryPlan};
use crate::run::draw::prompt_pair;
use crate::run::dry_run::{Forecast, UnetRows, Work};
use crate::run::located::ResolvedDrawing;

impl StoryPlan {
    /// The forecast of the story: how its prompts are read, and what characters and scenes need.
    ///
    /// # Errors
    /// When a file of the model is missing.
    pub(super) fn forecast(&self) -> Result<Forecast> {
        let mut forecast = Forecast::of(&self.model);
        self.makings
            .iter()
            .try_for_each(|making| -> Result<()> { making.add_to(&mut forecast, &self.drawing) })?;
        match &self.sampling {
            Some(sampling) => forecast.join(sampling.forecast()?),
            None => self.add_scenes(&mut forecast)?,
        }
        Ok(forecast)
    }

    /// Adds the scenes before their actors exist. Each scene is drawn alone, and with masks if it has several
    /// characters.
    fn add_scenes(&self, forecast: &mut Forecast) -> Result<()> {
        let sample = &self.job.sample;
        let steps = self
            .model
            .passes(self.drawing.scheduler, sample.drawing.steps)?;
        let mut work = Work::default();
        let mut at_once = UnetRows::default();
        for (scene, words) in self.scenes.iter().zip(&self.words) {
            let (tokenizers, drawing) = (&self.model.tokenizers, &sample.drawing);
            forecast.add_pair(
                prompt_pair(drawing, tokenizers, &scene.prompt, words)?,
                words,
            );
            let placed = scene
                .cast
                .iter()
                .filter(|&&i| !self.job.characters[i].is_style);
            let shape = Shape {
                is_guided: !scene.cast.is_empty(),
                has_masks: placed.count() > 1,
            };
            let (passes, rows, most) = shape.passes(sample, &steps);
            work = work.and(Work {
                pictures: 1,
                passes,
                rows,
                ..Work::default()
            });
            at_once = at_once.or(shape.at_once(most, 1));
        }
        forecast.add_drawing(self.drawing, work, 1, at_once)
    }
}

impl Making {
    /// Adds what is still to be done for a character. Its base images are assumed to have the size of `drawing`, unless
    /// they exist.
    fn add_to(&self, forecast: &mut Forecast, drawing: &ResolvedDrawing) -> Result<()> {
        match self {
            Making::Given(_) => {}
            Making::Described {
                tuning: Some(tuning),
                ..
            } => forecast.join(tuning.forecast()?),
            Making::Described { base, tune, .. } => {
                forecast.join(base.forecast()?);
                let rows = tune::rows_before(tune, base.num_images());
                let size = (drawing.width, drawing.height);
                let learnt = tune::learnt(tune, base.model(), base.words())?;
                forecast.add_tuning(size, tune.max_steps, rows, learnt)?;
            }
        }
        Ok(())
    }
}
