//! The pictures of a job: for each its name, the settings that determine it, and whether it is finished.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::actors::{Actors, Scene};
use crate::cli::{Declared, SampleFlags};
use crate::config::SampleJob;
use crate::config::batch::Settings;
use crate::config::effect::has_effect;
use crate::config::recorded::recorded;
use crate::io::checksum::crc32_of;
use crate::records::{ManifestRow, PictureFiles, SceneFolder};
use crate::run::drawing_settings::picture_settings;

/// One picture to be drawn.
pub(in super::super) struct Picture {
    pub(super) scene: Scene,
    pub seed: i64,
    pub(super) is_guided: bool,
    /// All settings that determine the picture.
    pub(super) settings: Settings,
    /// CRC-32 of the files that the settings only name.
    pub(super) sources: Settings,
    /// Path below the output folder.
    pub(super) name: String,
    pub path: PathBuf,
    pub(super) latents: Option<PathBuf>,
    /// With `--save-masks`: one file for each of several subjects.
    pub(super) masks: Vec<PathBuf>,
    pub(super) is_finished: bool,
}

impl Picture {
    /// The name without its ending, as the label on a preview.
    pub(super) fn label(&self) -> String {
        SceneFolder::label(&self.name)
    }

    /// The row in the manifest, without what is measured.
    pub(super) fn row(&self) -> ManifestRow {
        let mut row = ManifestRow::new(&self.name, &self.settings);
        row.settings.extend(self.sources.clone());
        row
    }
}

/// The settings that all guided pictures of the job share, or all plain pictures. Settings without effect on them are
/// left out.
///
/// # Errors
/// Never for a checked job.
pub(super) fn job_settings(job: &SampleJob, found: Settings, is_guided: bool) -> Result<Settings> {
    let all = SampleFlags::settings();
    let mut settings = recorded(job, &all)?;
    if is_guided {
        settings.insert("actors".to_owned(), json!(job.actors));
    } else {
        settings.remove("method");
        settings.insert("no_actor".to_owned(), json!(true));
    }
    let beside = settings.clone();
    let acts = |key: &str| {
        let setting = all.iter().find(|setting| setting.key == key);
        setting.is_some_and(|setting| has_effect(setting, &beside, &all))
    };
    settings.retain(|key, _| acts(key));
    settings.extend(found);
    Ok(settings)
}

/// The guided or the plain pictures of all prompts of a job.
pub(super) struct PictureList<'a> {
    pub job: &'a SampleJob,
    pub actors: &'a Actors,
    /// A prefix of the file names: empty, or a folder that ends with a slash.
    pub folder: String,
    pub settings: Settings,
    /// CRC-32 of LoRAs and control images, which determine plain pictures too.
    pub sources: Settings,
    pub is_guided: bool,
}

impl PictureList<'_> {
    /// All pictures; each says whether it is finished or has to be drawn.
    ///
    /// # Errors
    /// When a file of the same name was drawn with other settings and the job has no `--overwrite`.
    pub fn pictures(&self, scenes: &[Scene]) -> Result<Vec<Picture>> {
        let count = scenes.len() * self.job.num_images;
        let seed = |index| self.job.drawing.seed + index as i64;
        let picture =
            |index| self.picture(index, &scenes[index / self.job.num_images], seed(index));
        (0..count).map(picture).collect()
    }

    /// The picture with the number `index`.
    ///
    /// # Errors
    /// See [`PictureList::pictures`].
    pub fn picture(&self, index: usize, scene: &Scene, seed: i64) -> Result<Picture> {
        let prefix = format!("{}{}", self.folder, self.job.file_prefix);
        let name = SceneFolder::picture_name(&prefix, index, seed);
        let path = self.job.output_dir.join(&name);
        let mut settings = picture_settings(&self.settings, &scene.prompt, seed);
        let mut sources = self.sources.clone();
        if self.is_guided {
            // Only the actors in this picture are recorded, so that adding an actor to the job leaves the pictures
            // without that actor unchanged.
            self.actors.record(scene, &mut settings, &mut sources);
            if let Some(path) = &self.job.guidance.offsets {
                sources.insert("offsets_crc32".to_owned(), json!(crc32_of(path)?));
            }
        }
        let files = PictureFiles(&path);
        let latents = self.job.save_latents.then(|| files.latents());
        let masks = if self.job.save_masks && self.is_guided && scene.has_masks() {
            files.masks(scene.placed_words())
        } else {
            Vec::new()
        };
        let is_finished = !self.job.drawing.overwrite
            && files.is_drawn(&settings, &sources)?
            && latents.iter().chain(&masks).all(|file| file.is_file());
        Ok(Picture {
            scene: scene.clone(),
            seed,
            is_guided: self.is_guided,
            settings,
            sources,
            name,
            path,
            latents,
            masks,
            is_finished,
        })
    }
}
