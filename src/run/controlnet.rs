//! The ControlNets of a job: finds them, checks them against the model, prepares their pictures and loads them.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::json;
use tch::{Kind, Tensor};

use super::located::{LocatedModel, ResolvedDrawing};
use super::session::Session;
use crate::backbone::Backbone;
use crate::backbone::controlnet::{Control, ControlSettings, check_fit, controlnet_config};
use crate::cli::controlnet::Preprocess;
use crate::config::ControlJob;
use crate::config::batch::Settings;
use crate::config::controlnet::ControlNetJob;
use crate::io::model_files::ModelFiles;
use crate::pictures::canny::canny;
use crate::pictures::photo::{Transparency, read_picture};
use crate::pictures::resize::resize;

/// A control image whose width : height ratio changes by more than this factor is warned of.
const SAME_SHAPE: f64 = 1.02;

/// The ControlNets of a job with their files and pictures; no weights are read yet.
pub struct LocatedControl {
    job: ControlJob,
    parts: Vec<LocatedPart>,
}

struct LocatedPart {
    files: Rc<ModelFiles>,
    /// The control image as the ControlNet reads it, at the size of the drawing.
    picture: RgbImage,
    /// CRC-32 of the control image's file.
    image_crc32: String,
}

impl LocatedControl {
    /// Finds the ControlNets, refuses those that do not fit the model, and prepares their pictures.
    ///
    /// # Errors
    /// When a ControlNet or picture is missing or damaged, or a ControlNet does not fit.
    pub fn locate(
        session: &Session,
        job: &ControlJob,
        model: &LocatedModel,
        drawing: ResolvedDrawing,
    ) -> Result<Self> {
        let mut parts = Vec::new();
        for net in &job.nets {
            let files = session
                .locate_controlnet(model, &net.name)
                .and_then(|files| {
                    let config = controlnet_config(&files)?;
                    check_fit(&net.name, &config, &model.side())?;
                    Ok(files)
                })
                .context("--controlnet")?;
            let image =
                read_picture(&net.image, Transparency::Dropped).context("--control-image")?;
            warn_of_another_shape(session, &net.image, &image.picture, drawing);
            parts.push(LocatedPart {
                files,
                picture: prepared(&image.picture, net, job.canny, drawing),
                image_crc32: image.crc32,
            });
        }
        Ok(Self {
            job: job.clone(),
            parts,
        })
    }

    /// The names of the ControlNets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.job.nets.iter().map(|net| &*net.name)
    }

    /// The files of the ControlNets.
    pub fn files(&self) -> impl Iterator<Item = &Rc<ModelFiles>> {
        self.parts.iter().map(|part| &part.files)
    }

    /// The settings of `sample` that describe the ControlNets.
    pub fn settings(&self) -> Settings {
        self.job.settings()
    }

    /// What identifies the files that the settings only name: CRC-32 of the pictures, commits of the repositories.
    pub fn sources(&self) -> Settings {
        let mut sources = Settings::new();
        let sums = self.parts.iter().map(|part| part.image_crc32.as_str());
        sources.insert("control_image_crc32".to_owned(), sums.collect());
        let commits = self.parts.iter().map(|part| json!(part.files.revision()));
        if self
            .parts
            .iter()
            .any(|part| part.files.revision().is_some())
        {
            sources.insert("controlnet_revision".to_owned(), commits.collect());
        }
        sources
    }

    /// Loads the networks, or reuses those that an earlier job has loaded.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load(&self, session: &Session, backbone: &Rc<Backbone>) -> Result<Control> {
        let files: Vec<&Rc<ModelFiles>> = self.parts.iter().map(|part| &part.files).collect();
        let nets = session.load_controlnets(backbone, &files)?;
        let mut control = Control::new(ControlSettings {
            guess_mode: self.job.guess_mode,
            start: self.job.window.0,
            end: self.job.window.1,
        });
        for ((net, part), job) in nets.into_iter().zip(&self.parts).zip(&self.job.nets) {
            control.add(net, &to_tensor(&part.picture), job.scale);
        }
        Ok(control)
    }
}

fn warn_of_another_shape(
    session: &Session,
    path: &Path,
    image: &RgbImage,
    drawing: ResolvedDrawing,
) {
    let (width, height) = image.dimensions();
    let shape = |width: f64, height: f64| width / height;
    let change = shape(f64::from(width), f64::from(height))
        / shape(drawing.width as f64, drawing.height as f64);
    if !(1.0 / SAME_SHAPE..=SAME_SHAPE).contains(&change) {
        session.reporter.warn(&format!(
            "the control image {} is {width} x {height} and will be stretched to {} x {}: \
             set --width and --height to its proportions to keep its shape",
            path.display(),
            drawing.width,
            drawing.height
        ));
    }
}

/// The control image at the size of the drawing or, with the preprocessor `canny`, its edges. Edges are found after
/// resizing, because ControlNets for edges were trained on lines one pixel wide.
fn prepared(
    image: &RgbImage,
    net: &ControlNetJob,
    (low, high): (f64, f64),
    drawing: ResolvedDrawing,
) -> RgbImage {
    let sized = resize(image, drawing.width as u32, drawing.height as u32);
    match net.preprocess {
        Preprocess::None => sized,
        Preprocess::Canny => canny(&sized, low, high),
    }
}

/// The picture as `[1, 3, H, W]`, values in [0, 1].
fn to_tensor(picture: &RgbImage) -> Tensor {
    let (width, height) = picture.dimensions();
    Tensor::from_slice(picture.as_raw())
        .view([1, i64::from(height), i64::from(width), 3])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        / 255.0
}
