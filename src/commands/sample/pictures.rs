//! The pictures of a job: their names, the settings that each follows from, and whether it is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::actors::{Actors, Scene};
use crate::cli::{Declared, SampleFlags};
use crate::config::SampleJob;
use crate::config::batch::Settings;
use crate::config::effect::has_effect;
use crate::config::recorded::recorded;
use crate::error::usage;
use crate::io::checksum::crc32_of;
use crate::records::PictureRecord;
use crate::records::differences::{changed_sources, differences};
use crate::run::drawing_settings::picture_settings;

/// One picture to be drawn.
pub(in super::super) struct Picture {
    pub(super) scene: Scene,
    pub seed: i64,
    pub(super) is_guided: bool,
    /// All that it follows from.
    pub(super) settings: Settings,
    /// CRC-32 of the files that the settings only name.
    pub(super) sources: Settings,
    /// Path below the folder of the results.
    pub(super) name: String,
    pub path: PathBuf,
    pub(super) latents: Option<PathBuf>,
    /// With `--save-masks`: one for each of several subjects.
    pub(super) masks: Vec<PathBuf>,
    pub(super) is_finished: bool,
}

impl Picture {
    /// Its name without the ending, as a preview tells of it.
    pub(super) fn label(&self) -> String {
        self.name.trim_end_matches(".png").replace('/', " ")
    }

    /// Its row in the manifest: settings and sources.
    pub(super) fn row(&self) -> Settings {
        let mut row = self.settings.clone();
        row.extend(self.sources.clone());
        row
    }
}

/// The settings that guided, or plain, pictures of the job share: what has an effect on them.
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

/// Pictures of all prompts that are drawn in the same way.
pub(super) struct PictureList<'a> {
    pub job: &'a SampleJob,
    pub cast: &'a Actors,
    /// Before the file names: empty or a folder with a slash.
    pub folder: String,
    pub settings: Settings,
    /// CRC-32 of LoRAs and control images, which plain pictures follow from too.
    pub sources: Settings,
    pub is_guided: bool,
}

impl PictureList<'_> {
    /// All pictures, each with what is to become of it.
    ///
    /// # Errors
    /// When a file of that name was drawn with other settings and is not to be overwritten.
    pub fn pictures(&self, scenes: &[Scene]) -> Result<Vec<Picture>> {
        let count = scenes.len() * self.job.num_images;
        let seed = |index| self.job.drawing.seed + index as i64;
        let picture =
            |index| self.picture(index, &scenes[index / self.job.num_images], seed(index));
        (0..count).map(picture).collect()
    }

    /// The picture of this number.
    ///
    /// # Errors
    /// See [`PictureList::pictures`].
    pub fn picture(&self, index: usize, scene: &Scene, seed: i64) -> Result<Picture> {
        let name = format!(
            "{}{}{index:04}-{seed}.png",
            self.folder, self.job.file_prefix
        );
        let path = self.job.output_dir.join(&name);
        let mut settings = picture_settings(&self.settings, &scene.prompt, seed);
        let mut sources = self.sources.clone();
        if self.is_guided {
            // Only those who act: an actor that is added later changes no picture without it.
            self.cast.record(scene, &mut settings, &mut sources);
            if let Some(path) = &self.job.guidance.offsets {
                sources.insert("offsets_crc32".to_owned(), json!(crc32_of(path)?));
            }
        }
        let latents = self
            .job
            .save_latents
            .then(|| path.with_extension("safetensors"));
        let masks = if self.job.save_masks && self.is_guided && scene.has_masks() {
            mask_paths(&path, scene.placed_words())
        } else {
            Vec::new()
        };
        let is_finished = !self.job.drawing.overwrite
            && is_same_picture(&path, &settings, &sources)?
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

/// `0000-7-mask-cat.png` beside the picture `0000-7.png`, one for each word. What a file name should
/// not hold becomes a hyphen; words that are then alike are numbered.
fn mask_paths<'a>(picture: &Path, words: impl Iterator<Item = &'a String>) -> Vec<PathBuf> {
    let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
    let mut paths: Vec<PathBuf> = Vec::new();
    for word in words {
        let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
        let word: String = word.chars().map(plain).collect();
        let numbered = |i: usize| match i {
            1 => picture.with_file_name(format!("{stem}-mask-{word}.png")),
            i => picture.with_file_name(format!("{stem}-mask-{word}-{i}.png")),
        };
        paths.extend((1..).map(numbered).find(|path| !paths.contains(path)));
    }
    paths
}

/// Whether the picture at `path` is there and was drawn with these settings.
///
/// # Errors
/// When it was drawn with others.
fn is_same_picture(path: &Path, settings: &Settings, sources: &Settings) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let way_out = "choose another --output-dir, or redo it with --overwrite";
    let there = PictureRecord::read(path)
        .with_context(|| format!("a file of that name is in the way ({way_out})"))?;
    let mut found = differences(&there.parameters, settings);
    found.extend(changed_sources(sources, |key| there.facts.get(key)));
    if found.is_empty() {
        return Ok(true);
    }
    Err(usage(format!(
        "{} was drawn with other settings ({}): {way_out}",
        path.display(),
        found.join("; ")
    )))
}
