//! Draws base images, each with its part of the base set.

use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use serde_json::json;

use super::BaseJob;
use crate::backbone::controlnet::Control;
use crate::backbone::guidance::PlainGuidance;
use crate::backbone::{Backbone, Conditioning};
use crate::io::atomic::write_bytes_atomically;
use crate::method::base_set::{BaseFacts, BaseSet};
use crate::pictures::pixels::to_rgb;
use crate::progress::STEPS;
use crate::records::BaseFolder;
use crate::run::controlnet::LocatedControl;
use crate::run::draw::{Inputs, draw, prompt_pair};
use crate::run::drawing_settings::{drawing_settings, picture_settings};
use crate::run::located::ResolvedDrawing;
use crate::run::picture::{picture_facts, save_picture};
use crate::run::preview::Preview;
use crate::run::session::Session;

/// Draws base images with a loaded model.
pub(super) struct BasePainter<'a> {
    backbone: &'a Backbone,
    prepared: &'a BaseJob,
    guidance: PlainGuidance,
    control: Option<Control>,
}

impl<'a> BasePainter<'a> {
    pub(super) fn new(
        session: &Session,
        backbone: &'a Rc<Backbone>,
        prepared: &'a BaseJob,
    ) -> Result<Self> {
        let ResolvedDrawing { width, height, .. } = prepared.drawing;
        let drawing = &prepared.job.drawing;
        let (text, words) = (&prepared.job.prompt, &prepared.job.subjects);
        let pair = prompt_pair(drawing, &backbone.tokenizers, text, words)?;
        let prompt: Conditioning = backbone.encode_tokens(&pair.prompt, height, width);
        let negative = pair.encode_negative(backbone, height, width);
        Ok(Self {
            guidance: PlainGuidance::new(&negative, &prompt, drawing.guidance_scale),
            control: prepared
                .control
                .as_ref()
                .map(|control| control.load(session, backbone))
                .transpose()?,
            backbone,
            prepared,
        })
    }

    /// Draws the images `missing`, with a preview if the job asks for one.
    pub(super) fn draw_all(
        &self,
        session: &Session,
        layout: &BaseFolder,
        missing: &[usize],
    ) -> Result<()> {
        let drawing = &self.prepared.job.drawing;
        let preview = Preview::begin(
            session,
            self.backbone,
            drawing,
            self.prepared.drawing,
            (layout.preview(), missing.len()),
        );
        let steps = missing.len() * drawing.steps;
        session.reporter.start("drawing base images", steps, STEPS);
        for indices in missing.chunks(drawing.batch_size) {
            self.draw(session, layout, indices, preview.as_ref())?;
        }
        session.reporter.finish();
        Ok(())
    }

    /// Draws the images `indices` in one batch and writes each with its part.
    fn draw(
        &self,
        session: &Session,
        layout: &BaseFolder,
        indices: &[usize],
        preview: Option<&Preview>,
    ) -> Result<()> {
        let (backbone, job) = (self.backbone, &self.prepared.job);
        let drawing = &job.drawing;
        let seeds: Vec<i64> = indices
            .iter()
            .map(|&index| drawing.seed + index as i64)
            .collect();
        let labels: Vec<String> = indices.iter().map(usize::to_string).collect();
        let (denoised, pictures) = draw(
            session,
            backbone,
            (drawing, self.prepared.drawing),
            &seeds,
            &Inputs {
                guidance: &self.guidance,
                control: self.control.as_ref(),
                preview: preview.map(|preview| (preview, &labels[..])),
            },
        )?;
        for (row, (&index, &seed)) in indices.iter().zip(&seeds).enumerate() {
            let part = BaseSet {
                facts: self.facts()?,
                latents: denoised.latents.narrow(0, row as i64, 1),
                encoder_features: denoised.encoder_features.narrow(0, row as i64, 1),
                seeds: vec![seed],
            };
            write_bytes_atomically(&layout.part(index), &part.to_bytes()?)?;
            self.save(&layout.image(index), &to_rgb(&pictures, row)?, seed)?;
            session.wrote(&layout.image(index), "image", json!({"seed": seed}));
        }
        Ok(())
    }

    fn save(&self, path: &Path, picture: &image::RgbImage, seed: i64) -> Result<()> {
        let job = &self.prepared.job;
        let settings = drawing_settings(&job.drawing, self.prepared.drawing, &self.prepared.model)?;
        let mut settings = picture_settings(&settings, &job.prompt, seed);
        let control = self.prepared.control.as_ref();
        settings.extend(control.map(LocatedControl::settings).unwrap_or_default());
        settings.insert("no_actor".to_owned(), json!(true));
        let mut facts = picture_facts(&self.backbone.facts, &job.subjects);
        facts.extend(self.prepared.sources.clone());
        save_picture(path, picture, &settings, &facts)
    }

    fn facts(&self) -> Result<BaseFacts> {
        let job = &self.prepared.job;
        Ok(BaseFacts {
            // Stored without weights, because `sample` takes the phrase of the subject from this text.
            prompt: job.drawing.prompt_options.plain_text(&job.prompt)?,
            base_words: job.subjects.clone(),
            width: self.prepared.drawing.width,
            height: self.prepared.drawing.height,
            model: self.backbone.facts.clone(),
        })
    }
}
