//! The image prompt of a job: a base image, and the IP-Adapter and image encoder that read it.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::{Value, json};

use super::found_ip_adapter::FoundIpAdapter;
use super::located::LocatedModel;
use super::session::Session;
use crate::baselines::ip_adapter::{ImageSource, needed_files};
use crate::config::ImagePromptJob;
use crate::config::batch::Settings;
use crate::io::ip_adapter::{Fingerprint, default_adapter};
use crate::io::model_files::{ModelFiles, NeededFile};
use crate::io::real_path::folder_of;
use crate::pictures::photo::{GivenPicture, Transparency, read_picture};
use crate::records::BaseFolder;

/// The image prompt of a job with its picture and files; no weights are read yet.
pub struct LocatedImagePrompt {
    job: ImagePromptJob,
    found: Rc<FoundIpAdapter>,
    /// The name of the adapter, from the flags or the default.
    name: String,
    picture: RgbImage,
    picture_crc32: String,
}

impl LocatedImagePrompt {
    /// Reads the picture of base image `target` in the folder of `base`, and finds the adapter and its image encoder.
    ///
    /// # Errors
    /// When there is no such base image, adapter or encoder.
    pub fn locate(
        session: &Session,
        job: &ImagePromptJob,
        (base, target): (&Path, usize),
        model: &LocatedModel,
    ) -> Result<Self> {
        let path = BaseFolder(folder_of(base)).image(target);
        let GivenPicture { picture, crc32, .. } =
            read_picture(&path, Transparency::Dropped).context("the image prompt")?;
        let default = default_adapter(model.files.name());
        Ok(Self {
            found: session.locate_ip_adapter(model, job)?,
            name: job.ip_adapter.clone().unwrap_or(default.to_owned()),
            job: job.clone(),
            picture,
            picture_crc32: crc32,
        })
    }

    /// The settings of `sample` that describe the image prompt.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new();
        let mut set = |key: &str, value: Value| settings.insert(key.to_owned(), value);
        set("ip_adapter", json!(self.name));
        if let Some(encoder) = &self.job.image_encoder {
            set("image_encoder", json!(encoder));
        }
        set("ip_adapter_scale", json!(self.job.scale));
        settings
    }

    /// What identifies the files that the settings only name: CRC-32 or commit of picture, adapter and encoder.
    pub fn sources(&self) -> Settings {
        let mut sources = Settings::new();
        sources.insert("image_prompt_crc32".to_owned(), json!(self.picture_crc32));
        for (name, fingerprint) in ["ip_adapter", "image_encoder"]
            .iter()
            .zip(&self.found.fingerprints)
        {
            let (kind, value) = match fingerprint {
                Fingerprint::Commit(commit) => ("revision", commit),
                Fingerprint::Crc32(sum) => ("crc32", sum),
            };
            sources.insert(format!("{name}_{kind}"), json!(value));
        }
        sources
    }

    /// The files of the adapter and of the image encoder.
    ///
    /// # Errors
    /// When a file is missing, or the hub cannot be reached.
    pub fn needed(&self) -> Result<Vec<(Rc<ModelFiles>, Vec<NeededFile>)>> {
        needed_files(&self.found.files)
    }

    /// What the IP-Adapter baseline loads.
    pub fn source(&self) -> ImageSource<'_> {
        ImageSource {
            files: &self.found.files,
            picture: &self.picture,
            scale: self.job.scale,
        }
    }
}
