//! Draws the pictures of a job, with actors or without.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::json;
use tch::{Kind, Tensor};

use super::Sampling;
use super::pictures::Picture;
use crate::backbone::Backbone;
use crate::backbone::controlnet::Control;
use crate::backbone::guidance::{Guidance, PlainGuidance};
use crate::backbone::shortcuts::{Shortcuts, ShortenedGuidance};
use crate::baselines::{self, Baseline};
use crate::cli::{Method, Target};
use crate::error::{runtime, usage};
use crate::io::atomic::write_bytes_atomically;
use crate::io::checksum::crc32_of;
use crate::io::header::Header;
use crate::io::tensors::TensorFile;
use crate::method::actor::Actor;
use crate::method::base_word::BaseWordPrompt;
use crate::method::guidance::{ClusterGuidance, Offsets};
use crate::method::interpolation::interpolated;
use crate::pictures::pixels::to_rgb;
use crate::pictures::png::save_png;
use crate::records::PictureFiles;
use crate::run::draw::{Inputs, draw};
use crate::run::located::ResolvedDrawing;
use crate::run::manifest::Manifest;
use crate::run::picture::{picture_facts, save_picture};
use crate::run::preview::Preview;
use crate::run::session::Session;

/// Name of the tensor in a file of `--save-latents`.
const LATENTS: &str = "latents";

/// Draws pictures with a loaded model and loaded actors.
pub(super) struct ScenePainter<'a> {
    backbone: &'a Backbone,
    sampling: &'a Sampling,
    /// The actors in the order of the job; none for the plain model and for baselines.
    actors: Vec<Actor>,
    /// The method that guides instead of the actors.
    baseline: Option<Box<dyn Baseline>>,
    /// Offsets from the file of `--offsets`, instead of the projector's.
    offsets: Option<Offsets>,
    control: Option<Control>,
    preview: Option<Preview>,
}

/// What guides the pictures of one prompt.
pub(super) enum Guide {
    /// The model alone.
    Plain(Box<PlainGuidance>),
    /// The actors that the prompt names.
    Cluster(Box<ClusterGuidance>),
    /// A baseline.
    Baseline(Box<dyn Guidance>),
}

impl Guide {
    fn guidance(&self) -> &dyn Guidance {
        match self {
            Guide::Plain(plain) => plain.as_ref(),
            Guide::Cluster(cluster) => cluster.as_ref(),
            Guide::Baseline(guidance) => guidance.as_ref(),
        }
    }

    fn masks(&self) -> Option<Tensor> {
        match self {
            Guide::Plain(_) | Guide::Baseline(_) => None,
            Guide::Cluster(cluster) => cluster.masks(),
        }
    }
}

impl<'a> ScenePainter<'a> {
    pub(super) fn new(
        session: &Session,
        backbone: &'a Rc<Backbone>,
        sampling: &'a Sampling,
    ) -> Result<Self> {
        let job = &sampling.job;
        if !job.guidance.no_actor {
            refuse_changed(&sampling.actor_checksums)?;
        }
        for (what, facts) in &sampling.made_before {
            facts.check_model(&backbone.facts, what)?;
        }
        let read = |path: &PathBuf| Actor::read(path, backbone.device());
        let actors = match (job.guidance.no_actor, job.method) {
            (false, Method::Oneactor) => job.actors.iter().map(read).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        let baseline = match (job.method, &job.actors[..]) {
            (Method::Oneactor, _) | (_, []) => None,
            (method, [path, ..]) => {
                let image = sampling.image_prompt.as_ref().map(|image| image.source());
                let baseline = baselines::load(method.name(), path, image.as_ref(), backbone)?;
                if let Some(image) = &image {
                    session.tell_notes(image.files.encoder().0);
                }
                Some(baseline)
            }
        };
        let offsets = job.guidance.offsets.as_deref();
        let preview = sampling.folder().preview(sampling.shard);
        Ok(Self {
            control: sampling
                .control
                .as_ref()
                .map(|control| control.load(session, backbone))
                .transpose()?,
            preview: Preview::begin(
                session,
                backbone,
                &job.drawing,
                sampling.drawing,
                (preview, sampling.missing().len()),
            ),
            backbone,
            sampling,
            actors,
            baseline,
            offsets: offsets.map(read_offsets).transpose()?,
        })
    }

    /// Draws pictures with the same prompt and guidance in one batch and writes each.
    pub(super) fn draw(
        &self,
        session: &Session,
        pictures: &[&Picture],
        guide: &Guide,
        manifest: &mut Manifest,
    ) -> Result<()> {
        let started = Instant::now();
        let seeds: Vec<i64> = pictures.iter().map(|picture| picture.seed).collect();
        let job = &self.sampling.job;
        let shortened;
        let guidance: &dyn Guidance = if job.shortcuts == Shortcuts::default() {
            guide.guidance()
        } else {
            shortened = ShortenedGuidance::new(guide.guidance(), job.shortcuts, job.drawing.steps);
            &shortened
        };
        let labels: Vec<String> = pictures.iter().map(|picture| picture.label()).collect();
        let (denoised, images) = draw(
            session,
            self.backbone,
            (&job.drawing, self.sampling.drawing),
            &seeds,
            &Inputs {
                guidance,
                control: self.control.as_ref(),
                preview: self.preview.as_ref().map(|preview| (preview, &labels[..])),
            },
        )?;
        let masks = guide.masks(); // [B, G, H, W]
        let seconds = started.elapsed().as_secs_f64() / pictures.len() as f64;
        for (row, picture) in pictures.iter().enumerate() {
            let latents = denoised.latents.narrow(0, row as i64, 1);
            remove_old_masks(picture)?;
            remove_old_latents(picture)?;
            if let Some(masks) = &masks {
                self.save_masks(session, picture, &masks.get(row as i64))?;
            }
            self.save(session, picture, &to_rgb(&images, row)?, &latents)?;
            let mut row = picture.row();
            row.seconds = Some(seconds);
            row.peak_gpu_memory = session.peak_memory();
            manifest.set(row)?;
            let facts =
                json!({"prompt": picture.scene.prompt, "seed": picture.seed, "seconds": seconds});
            session.wrote(&picture.path, "image", facts);
        }
        Ok(())
    }

    /// Writes the latents and then the picture: if the picture exists, all of its files are complete.
    fn save(
        &self,
        session: &Session,
        picture: &Picture,
        image: &RgbImage,
        latents: &Tensor,
    ) -> Result<()> {
        if let Some(path) = &picture.latents {
            let mut file = TensorFile::default();
            file.insert(LATENTS, latents);
            write_bytes_atomically(path, &file.to_bytes()?)?;
            session.wrote(path, "latents", json!({"seed": picture.seed}));
        }
        let mut facts = picture_facts(&self.backbone.facts, &picture.scene.words);
        facts.extend(picture.sources.clone());
        save_picture(&picture.path, image, &picture.settings, &facts)
    }

    /// Writes the masks `[G, H, W]` of a picture's subjects at the picture's size, white inside. Call this before
    /// [`Self::save`], so that the picture is written last.
    fn save_masks(&self, session: &Session, picture: &Picture, masks: &Tensor) -> Result<()> {
        let ResolvedDrawing { width, height, .. } = self.sampling.drawing;
        let words = picture.scene.placed_words();
        for (i, (path, word)) in picture.masks.iter().zip(words).enumerate() {
            let mask = masks.narrow(0, i as i64, 1).unsqueeze(0); // [1, 1, H, W]
            let pixels = mask.upsample_nearest2d([height, width], None, None);
            save_png(path, &to_rgb(&pixels.repeat([1, 3, 1, 1]), 0)?, &[])?;
            session.wrote(path, "mask", json!({"subject": word, "seed": picture.seed}));
        }
        Ok(())
    }

    /// Eq. (19) with the actors that the picture's prompt names; plain guidance if it names none.
    pub(super) fn guide(&self, picture: &Picture) -> Result<Guide> {
        let scene = &picture.scene;
        let ResolvedDrawing { width, height, .. } = self.sampling.drawing;
        let drawing = &self.sampling.job.drawing;
        let pair = scene.prompt_pair(drawing, &self.backbone.tokenizers, picture.is_guided)?;
        let negative = pair.encode_negative(self.backbone, height, width);
        if !picture.is_guided {
            let mut prompt = self.backbone.encode_tokens(&pair.prompt, height, width);
            if let Some(g) = self.sampling.job.guidance.semantic_interpolation {
                let empty = pair.encode_empty(self.backbone, height, width)?;
                prompt = interpolated(&empty, &prompt, g);
            }
            let plain = PlainGuidance::new(&negative, &prompt, drawing.guidance_scale);
            return Ok(Guide::Plain(Box::new(plain)));
        }
        let (words, size) = (&scene.words, [height, width]);
        if let Some(baseline) = &self.baseline {
            let guidance = baseline.guidance(&baselines::Scene {
                backbone: self.backbone,
                prompt: &pair.prompt,
                negative: &negative,
                size,
                guidance_scale: drawing.guidance_scale,
                target: match self.sampling.job.target {
                    Some(Target::Index(image)) => usize::try_from(image).ok(),
                    _ => None,
                },
            })?;
            return Ok(Guide::Baseline(guidance));
        }
        let prompt = BaseWordPrompt::from_tokens(self.backbone, &pair.prompt, words, size)?;
        let settings = &self.sampling.job.guidance.settings;
        let from_projectors;
        let offsets = match &self.offsets {
            Some(offsets) => offsets,
            None => {
                let acting = scene
                    .acting
                    .iter()
                    .map(|&i| self.actors[i].offsets(&prompt));
                from_projectors = Offsets::cat(&acting.collect::<Result<Vec<_>>>()?);
                &from_projectors
            }
        };
        let guidance = if scene.has_masks() {
            let prompt = (&prompt, &scene.placed[..]);
            ClusterGuidance::with_regions(&negative, prompt, offsets, settings)?
        } else {
            ClusterGuidance::new(&negative, &prompt, offsets, settings)?
        };
        Ok(Guide::Cluster(Box::new(guidance)))
    }
}

/// Removes the masks beside a picture that is drawn again, because they may show other subjects.
fn remove_old_masks(picture: &Picture) -> Result<()> {
    if picture.masks.is_empty() && !picture.path.exists() {
        return Ok(());
    }
    for mask in PictureFiles(&picture.path).masks_there()? {
        fs::remove_file(&mask).with_context(|| format!("removing {}", mask.display()))?;
    }
    Ok(())
}

/// Removes the latents beside a picture that is drawn again without `--save-latents`.
fn remove_old_latents(picture: &Picture) -> Result<()> {
    let path = PictureFiles(&picture.path).latents();
    let is_of_old = |path: &Path| {
        let tensors = Header::read(path).map(|header| header.tensors);
        tensors.is_ok_and(|tensors| matches!(&tensors[..], [only] if only.name == LATENTS))
    };
    if picture.latents.is_none() && picture.path.exists() && path.is_file() && is_of_old(&path) {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Refuses actors whose files have changed since the pictures were listed, because a tuning has ended since: the
/// pictures would record the wrong files.
fn refuse_changed(checksums: &[(PathBuf, String)]) -> Result<()> {
    for (path, crc32) in checksums {
        if crc32_of(path)? != *crc32 {
            return Err(runtime(format!(
                "{} has changed since this run began: start it again",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Reads the offsets of `--offsets`, for experiments.
pub(super) fn read_offsets(path: &Path) -> Result<Offsets> {
    let file = TensorFile::read(path)?;
    let offset = |name: &str| -> Result<Tensor> {
        let tensor = file.get(name, path)?.to_kind(Kind::Float);
        if tensor.dim() != 2 {
            return Err(usage(format!(
                "{}: {name}: found shape {:?}, expected [W, D]",
                path.display(),
                tensor.size(),
            )));
        }
        Ok(tensor)
    };
    Ok(Offsets {
        target_offset: offset("target_offset")?,
        average_offset: offset("average_offset")?,
    })
}
