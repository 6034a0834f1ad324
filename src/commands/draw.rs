//! Drawing pictures that share a guidance, as `generate-base` and `sample` both do.

use anyhow::Result;
use tch::Tensor;

use super::located::ResolvedDrawing;
use super::session::Session;
use crate::schedulers::new_scheduler;
use crate::sdxl::Backbone;
use crate::sdxl::control::Control;
use crate::sdxl::denoise::{Denoised, Guidance, denoise};

/// Draws one picture for each seed, all at once: what denoising leaves, and the pictures in [0, 1]
/// `[B, 3, H, W]`, kept to the pictures of `control` where there is one. Progress counts a step of every picture.
///
/// # Errors
/// When a signal asks to stop, or a value is not finite.
pub fn draw(
    session: &Session,
    backbone: &Backbone,
    drawing: ResolvedDrawing,
    steps: usize,
    seeds: &[i64],
    (guidance, control): (&dyn Guidance, Option<&Control>),
) -> Result<(Denoised, Tensor)> {
    let latents: Vec<Tensor> = seeds
        .iter()
        .map(|&seed| backbone.initial_latents(seed, drawing.height, drawing.width))
        .collect();
    let mut scheduler = new_scheduler(drawing.scheduler, &backbone.scheduler_config, steps)?;
    let denoised = denoise(
        backbone,
        scheduler.as_mut(),
        &Tensor::cat(&latents, 0),
        guidance,
        control,
        &mut |_| {
            seeds.iter().for_each(|_| session.reporter.advance(""));
            session.signals.check()
        },
    )?;
    let pictures = backbone.decode(&denoised.latents)?;
    Ok((denoised, pictures))
}
