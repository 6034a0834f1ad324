//! A photo as the target (`--target-image`).

use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;

use super::LocatedModel;
use crate::backbone::Backbone;
use crate::cli::DrawingFlags;
use crate::config::{DrawingJob, layers};
use crate::error::usage;
use crate::io::text;
use crate::method::base_set::{BaseFacts, BaseSet};
use crate::method::origin::TargetImage;
use crate::method::target::with_photo;
use crate::pictures::photo::{GivenPicture, Transparency, fit_to, read_picture};
use crate::pictures::pixels::from_rgb;
use crate::records::{BaseFolder, BaseRecord};
use crate::run::session::Session;
use crate::schedulers::{SchedulerKind, new_scheduler};

/// A photo at the size of the base images, and the schedule with which these were drawn.
pub(super) struct TargetPhoto {
    /// Name and checksum of its file.
    pub facts: TargetImage,
    /// Width and height in pixels before the photo was fitted to the base images.
    size: (u32, u32),
    /// The factor by which fitting has enlarged the photo.
    factor: f64,
    picture: RgbImage,
    scheduler: SchedulerKind,
    steps: usize,
}

impl TargetPhoto {
    /// Reads the photo and the schedule of the base images.
    ///
    /// # Errors
    /// When the photo cannot be used, or the record of the base images is missing or damaged.
    pub(super) fn read(
        path: &Path,
        folder: BaseFolder,
        base: &BaseFacts,
        model: &LocatedModel,
    ) -> Result<Self> {
        let GivenPicture {
            picture,
            name,
            crc32,
        } = read_picture(path, Transparency::OnWhite).context("--target-image")?;
        let (width, height) = (base.width as u32, base.height as u32);
        let (fitted, factor) = fit_to(&picture, width, height)
            .with_context(|| format!("--target-image {}", path.display()))?;
        let drawing = drawing_of_base(folder)?;
        Ok(Self {
            facts: TargetImage { name, crc32 },
            size: picture.dimensions(),
            factor,
            picture: fitted,
            scheduler: model.resolve(&drawing)?.scheduler,
            steps: drawing.steps,
        })
    }

    /// Reports how the photo was fitted.
    pub(super) fn describe(&self, session: &Session) {
        let name = &self.facts.name;
        let ((full_width, full_height), (width, height)) = (self.size, self.picture.dimensions());
        session.reporter.note(&format!(
            "{name}: {full_width} x {full_height} pixels; its centre is used, at {width} x {height}"
        ));
        if self.factor > 1.0 {
            session.reporter.warn(&format!(
                "{name} is small and has to be enlarged {:.1} times: a larger photo shows more detail to learn",
                self.factor
            ));
        }
    }

    /// The base set with the photo added after its images.
    ///
    /// # Errors
    /// See [`with_photo`].
    pub(super) fn join(&self, backbone: &Backbone, base: &BaseSet, seed: i64) -> Result<BaseSet> {
        let scheduler = new_scheduler(self.scheduler, &backbone.scheduler_file, self.steps)?;
        // With Karras sigmas timesteps are fractional, except the last, which is a whole number.
        let last = scheduler.timesteps().last().map_or(0.0, |t| t.round());
        with_photo(backbone, base, &from_rgb(&self.picture), last as i64, seed)
    }
}

/// How the base images were drawn, according to their record.
fn drawing_of_base(base: BaseFolder) -> Result<DrawingJob> {
    let path = base.record();
    let shown = path.display().to_string();
    let text = text::read(&path).map_err(|error| {
        usage(format!(
            "reading {shown}: {error}; --target-image needs this file, because it has the steps and the scheduler of \
             the base images"
        ))
    })?;
    let record = BaseRecord::parse(&text, &shown)?;
    let flags: DrawingFlags = layers::read(record.parameters).with_context(|| shown.clone())?;
    DrawingJob::check(&flags, None, 1).context(shown)
}
