//! Draws pictures that share one guidance; `generate-base` and `sample` both use this.

use anyhow::Result;
use tch::Tensor;

use super::located::ResolvedDrawing;
use super::preview::Preview;
use super::session::Session;
use crate::backbone::Backbone;
use crate::backbone::controlnet::Control;
use crate::backbone::denoise::{Denoised, denoise};
use crate::backbone::guidance::{Guidance, RescaledGuidance};
use crate::backbone::prompt::Tokenizers;
use crate::backbone::prompt_pair::PromptPair;
use crate::config::DrawingJob;
use crate::schedulers::new_scheduler;

/// A prompt and the job's negative prompt as tokens. A long prompt is never split inside a base word. Pictures with
/// the actor and without it pass the same base words, so that both read the prompt in the same chunks.
///
/// # Errors
/// When the weights in a prompt cannot be parsed, or a prompt has more chunks than are allowed.
pub fn prompt_pair(
    drawing: &DrawingJob,
    tokenizers: &Tokenizers,
    prompt: &str,
    base_words: &[String],
) -> Result<PromptPair> {
    let negative = drawing.negative_prompt.as_deref();
    let whole: Vec<&str> = base_words.iter().map(String::as_str).collect();
    PromptPair::new(tokenizers, prompt, negative, drawing.prompt_options, &whole)
}

/// What the pictures of one prompt share.
pub struct Inputs<'a> {
    /// How predictions are combined.
    pub guidance: &'a dyn Guidance,
    /// The ControlNets with their control images.
    pub control: Option<&'a Control>,
    /// The preview sheet, with a label for each picture.
    pub preview: Option<(&'a Preview, &'a [String])>,
}

/// Draws one picture for each seed, all in one batch. Returns the result of denoising, and the pictures `[B, 3, H, W]`
/// in [0, 1]. Each step advances the progress bar once for every picture.
///
/// # Errors
/// When a signal asks the program to stop, or a value is not finite.
pub fn draw(
    session: &Session,
    backbone: &Backbone,
    (job, drawing): (&DrawingJob, ResolvedDrawing),
    seeds: &[i64],
    inputs: &Inputs,
) -> Result<(Denoised, Tensor)> {
    let latents: Vec<Tensor> = seeds
        .iter()
        .map(|&seed| backbone.initial_latents(seed, drawing.height, drawing.width))
        .collect();
    let steps = job.steps;
    let rescaled = RescaledGuidance {
        guidance: inputs.guidance,
        phi: job.guidance_rescale,
    };
    let guidance: &dyn Guidance = if job.guidance_rescale == 0.0 {
        inputs.guidance
    } else {
        &rescaled
    };
    let mut scheduler = new_scheduler(drawing.scheduler, &backbone.scheduler_file, steps)?;
    let denoised = denoise(
        backbone,
        scheduler.as_mut(),
        &Tensor::cat(&latents, 0),
        guidance,
        inputs.control,
        &mut |taken| {
            seeds.iter().for_each(|_| session.reporter.advance(""));
            if let Some((preview, labels)) = inputs.preview
                && taken.step < steps
            {
                preview.show_running(labels, taken)?;
            }
            session.signals.check()
        },
    )?;
    let pictures = backbone.decode(&denoised.latents)?;
    if let Some((preview, labels)) = inputs.preview {
        preview.show_finished(labels, &denoised.latents, &pictures)?;
    }
    Ok((denoised, pictures))
}
