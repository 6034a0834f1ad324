//! Drawing pictures that share a guidance, as `generate-base` and `sample` both do.

use anyhow::Result;
use tch::Tensor;

use super::located::ResolvedDrawing;
use super::session::Session;
use crate::schedulers::new_scheduler;
use crate::sdxl::Sdxl;
use crate::sdxl::denoise::{Denoised, Guidance, denoise};

/// Draws one picture for each seed, all at once: what denoising leaves, and the pictures in [0, 1]
/// `[B, 3, H, W]`. Progress counts a step of every picture.
///
/// # Errors
/// When a signal asks to stop, or a value is not finite.
pub fn draw(
    session: &Session,
    sdxl: &Sdxl,
    drawing: ResolvedDrawing,
    steps: usize,
    seeds: &[i64],
    guidance: &dyn Guidance,
) -> Result<(Denoised, Tensor)> {
    let latents: Vec<Tensor> = seeds
        .iter()
        .map(|&seed| sdxl.initial_latents(seed, drawing.height, drawing.width))
        .collect();
    let mut scheduler = new_scheduler(drawing.scheduler, &sdxl.scheduler_config, steps)?;
    let denoised = denoise(
        sdxl,
        scheduler.as_mut(),
        &Tensor::cat(&latents, 0),
        guidance,
        &mut |_| {
            seeds.iter().for_each(|_| session.reporter.advance(""));
            session.signals.check()
        },
    )?;
    let pictures = sdxl.decode(&denoised.latents)?;
    Ok((denoised, pictures))
}
