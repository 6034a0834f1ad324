//! The checked settings with which the frozen model draws a picture.

use anyhow::Result;
use serde::Serialize;

use super::check;
use crate::cli::{AxisFlags, DrawingFlags};
use crate::error::usage;
use crate::schedulers::SchedulerKind;
use crate::tokenizer::prompt_tokens::PromptOptions;

/// The settings with which the frozen model draws a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DrawingJob {
    /// What the picture should not show. `None` means zeros or an encoded empty text, depending on the model;
    /// `""` means the encoded empty text.
    pub negative_prompt: Option<String>,
    /// How prompts are read.
    #[serde(flatten)]
    pub prompt_options: PromptOptions,
    /// Seed of the first image.
    pub seed: i64,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of plain classifier-free guidance.
    pub guidance_scale: f64,
    /// φ of arXiv 2305.08891, Eq. 16; with 0 the guided prediction is not rescaled.
    pub guidance_rescale: f64,
    /// Width in pixels; `None` means the model's own.
    pub width: Option<i64>,
    /// Height in pixels; `None` means the model's own.
    pub height: Option<i64>,
    /// The sampler; `None` means the checkpoint's own.
    pub scheduler: Option<SchedulerKind>,
    /// Number of images drawn together.
    pub batch_size: usize,
    /// Number of steps between previews; `None` means no previews.
    #[serde(skip)]
    pub preview_every: Option<usize>,
    /// Whether to draw again what already exists.
    pub overwrite: bool,
}

impl DrawingJob {
    /// Checks the flags and fills in the defaults. `images` is the number of images, whose seeds are
    /// consecutive; `guidance_scale` is that of plain guidance.
    ///
    /// # Errors
    /// Names the flag, the value found and the valid range.
    pub fn check(flags: &DrawingFlags, guidance_scale: Option<f64>, images: usize) -> Result<Self> {
        let side =
            |flag, value: Option<i64>| value.map(|value| check::side(flag, value)).transpose();
        Ok(Self {
            negative_prompt: flags.negative_prompt.clone(),
            prompt_options: prompt_options(flags),
            seed: check::seed(flags.seed.unwrap_or(0), images)?,
            steps: check::declared_count(DrawingFlags::steps(), flags.steps)?,
            guidance_scale: check::declared_number(AxisFlags::guidance_scale(), guidance_scale)?,
            guidance_rescale: check::declared_number(
                DrawingFlags::guidance_rescale(),
                flags.guidance_rescale,
            )?,
            width: side("--width", flags.width)?,
            height: side("--height", flags.height)?,
            scheduler: flags.scheduler.as_deref().map(scheduler).transpose()?,
            batch_size: check::declared_count(DrawingFlags::batch_size(), flags.batch_size)?,
            preview_every: check::count_if_given(
                DrawingFlags::preview_every(),
                flags.preview_every,
            )?,
            overwrite: flags.overwrite.unwrap_or(false),
        })
    }
}

/// How prompts are read, according to the flags.
pub fn prompt_options(flags: &DrawingFlags) -> PromptOptions {
    PromptOptions {
        long_prompts: flags.long_prompts.unwrap_or(false),
        prompt_weights: flags.prompt_weights.unwrap_or(false),
    }
}

/// The scheduler with this name, here or in another program.
fn scheduler(name: &str) -> Result<SchedulerKind> {
    SchedulerKind::from_name(name).ok_or_else(|| {
        let names = SchedulerKind::ALL.map(SchedulerKind::name).join(", ");
        usage(format!(
            "--scheduler: found \"{name}\", expected one of {names}, or its name in another program: \
            `oneactor --help` has a table"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheduler_is_refused_with_those_that_there_are() {
        let error = scheduler("euler a").expect_err("it is another scheduler");
        let expected = "expected one of euler, dpm++2m, ddim, pndm";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn defaults_are_those_of_the_paper() -> Result<()> {
        let drawing = DrawingJob::check(&DrawingFlags::default(), None, 11)?;
        assert_eq!((drawing.steps, drawing.seed), (30, 0));
        assert_eq!(drawing.guidance_scale, 7.5);
        assert_eq!((drawing.width, drawing.height), (None, None));
        Ok(())
    }
}
