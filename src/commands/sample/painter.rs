//! Drawing the pictures of a job, with the actor or without.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use image::RgbImage;
use serde_json::json;
use tch::{Kind, Tensor};

use super::super::draw::draw;
use super::super::located::ResolvedDrawing;
use super::super::manifest::Manifest;
use super::super::picture::{picture_facts, save_picture, to_rgb};
use super::super::session::Session;
use super::{Picture, Sampling};
use crate::config::GuidanceJob;
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::io::tensors::TensorFile;
use crate::oneactor::actor::Actor;
use crate::oneactor::base_word::BaseWordPrompt;
use crate::oneactor::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use crate::oneactor::interpolation::interpolated;
use crate::sdxl::denoise::{Guidance, PlainGuidance};
use crate::sdxl::{Backbone, Conditioning};

/// Draws pictures with a loaded model and actor.
pub(super) struct Painter<'a> {
    backbone: &'a Backbone,
    sampling: &'a Sampling,
    /// `None` for the plain model.
    actor: Option<Guide>,
    /// The branch without the prompt, the same for all pictures.
    negative: Conditioning,
}

/// Where the offsets come from.
struct Guide {
    actor: Actor,
    /// Offsets of a file, in place of the projector's.
    offsets: Option<Offsets>,
}

impl<'a> Painter<'a> {
    pub(super) fn new(backbone: &'a Backbone, sampling: &'a Sampling) -> Result<Self> {
        let job = &sampling.job;
        let actor = match &job.actor {
            Some(path) if !job.guidance.no_actor => {
                let actor = Actor::read(path, backbone.device())?;
                let what = format!("the actor {}", path.display());
                actor.facts.check_model(&backbone.facts, &what)?;
                let offsets = job
                    .guidance
                    .offsets
                    .as_deref()
                    .map(read_offsets)
                    .transpose()?;
                Some(Guide { actor, offsets })
            }
            _ => None,
        };
        let ResolvedDrawing { width, height, .. } = sampling.drawing;
        let negative = job.drawing.negative_prompt.as_deref();
        Ok(Self {
            negative: backbone.encode_negative(negative, height, width)?,
            backbone,
            sampling,
            actor,
        })
    }

    /// Draws pictures of one prompt and guidance at once and writes each.
    pub(super) fn draw(
        &self,
        session: &Session,
        pictures: &[&Picture],
        guidance: &dyn Guidance,
        manifest: &mut Manifest,
    ) -> Result<()> {
        let started = Instant::now();
        let seeds: Vec<i64> = pictures.iter().map(|picture| picture.seed).collect();
        let (denoised, images) = draw(
            session,
            self.backbone,
            self.sampling.drawing,
            self.sampling.job.drawing.steps,
            &seeds,
            guidance,
        )?;
        let seconds = started.elapsed().as_secs_f64() / pictures.len() as f64;
        for (row, picture) in pictures.iter().enumerate() {
            let latents = denoised.latents.narrow(0, row as i64, 1);
            self.save(session, picture, &to_rgb(&images, row)?, &latents)?;
            manifest.set(&picture.name, &picture.settings, Some(seconds))?;
            let facts = json!({"prompt": picture.prompt, "seed": picture.seed, "seconds": seconds});
            session.wrote(&picture.path, "image", facts);
        }
        Ok(())
    }

    /// Writes latents first: a picture that is there is a finished one.
    fn save(
        &self,
        session: &Session,
        picture: &Picture,
        image: &RgbImage,
        latents: &Tensor,
    ) -> Result<()> {
        if let Some(path) = &picture.latents {
            let mut file = TensorFile::default();
            file.insert("latents", latents);
            write_bytes_atomically(path, &file.to_bytes()?)?;
            session.wrote(path, "latents", json!({"seed": picture.seed}));
        }
        let subject = self
            .sampling
            .subject
            .as_ref()
            .map(|facts| facts.base_word.as_str());
        let mut facts = picture_facts(&self.backbone.facts, subject);
        if picture.is_guided {
            facts.extend(self.sampling.sources.clone());
        }
        save_picture(&picture.path, image, &picture.settings, &facts)
    }

    /// Eq. (19) with an actor, plain guidance without.
    pub(super) fn guidance(&self, picture: &Picture) -> Result<Box<dyn Guidance>> {
        let prompt = &picture.prompt;
        let ResolvedDrawing { width, height, .. } = self.sampling.drawing;
        let drawing = &self.sampling.job.drawing;
        let Some(guide) = self.actor.as_ref().filter(|_| picture.is_guided) else {
            let mut prompt = self.backbone.encode_prompt(prompt, height, width)?;
            if let Some(g) = self.sampling.job.guidance.semantic_interpolation {
                let empty = self.backbone.encode_prompt("", height, width)?;
                prompt = interpolated(&empty, &prompt, g);
            }
            return Ok(Box::new(PlainGuidance::new(
                &self.negative,
                &prompt,
                drawing.guidance_scale,
            )));
        };
        let word = &guide.actor.facts.base_word;
        let prompt = BaseWordPrompt::new(self.backbone, prompt, word, height, width)?;
        let settings = guidance_settings(&self.sampling.job.guidance, drawing.guidance_scale);
        let from_projector;
        let offsets = match &guide.offsets {
            Some(offsets) => offsets,
            None => {
                from_projector = guide.actor.offsets(&prompt)?;
                &from_projector
            }
        };
        Ok(Box::new(ClusterGuidance::new(
            &self.negative,
            &prompt,
            offsets,
            &settings,
        )?))
    }
}

fn guidance_settings(guidance: &GuidanceJob, guidance_scale: f64) -> GuidanceSettings {
    GuidanceSettings {
        semantic_scale: guidance.semantic_scale,
        average_scale: guidance.average_scale,
        eta_1: guidance.eta_1,
        eta_2: guidance.eta_2,
        guided_steps: guidance.guided_steps,
        guidance_scale,
    }
}

/// The offsets of a file, for experiments.
pub(super) fn read_offsets(path: &Path) -> Result<Offsets> {
    let file = TensorFile::read(path)?;
    let offset = |name: &str| -> Result<Tensor> {
        let tensor = file.get(name, path)?.to_kind(Kind::Float);
        let is_finite = tensor.isfinite().all().int64_value(&[]) == 1;
        if tensor.dim() != 2 || !is_finite {
            return Err(usage(format!(
                "{}: {name}: found shape {:?}{}, expected [W, D] with finite values",
                path.display(),
                tensor.size(),
                if is_finite {
                    ""
                } else {
                    " with values that are not finite"
                }
            )));
        }
        Ok(tensor)
    };
    Ok(Offsets {
        target_offset: offset("target_offset")?,
        average_offset: offset("average_offset")?,
    })
}
