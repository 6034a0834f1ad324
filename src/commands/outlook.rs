//! What a dry run tells of a job besides its files: how each prompt is read, how much is to be fetched and
//! computed, how much memory that takes, and, where something like it was measured, how long.

mod prompts;
mod sizes;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::json;
use tch::Kind;

use super::control::LocatedControl;
use super::image_prompt::LocatedImagePrompt;
use super::located::{LocatedModel, ResolvedDrawing};
use super::session::Session;
use crate::error::runtime;
use crate::io::hub::{HubSettings, human_size};
use crate::io::model_files::{ModelFiles, NeededFile};
use crate::io::writable::check_new_files;
use crate::sdxl::files::{network_files, networks_in_one_file, pipeline_files, vae_files};
use crate::sdxl::memory::{Activations, NetworkSize, peak};
use crate::sdxl::prompt_pair::PromptPair;
use crate::tokenizer::prompt_tokens::PromptTokens;
use prompts::{Prompt, check_cuts};
use sizes::{free_bytes, network_size, size_of_tensors};

/// How much is to be computed.
#[derive(Clone, Copy, Default)]
pub struct Work {
    /// Pictures.
    pub pictures: usize,
    /// Runs of the U-Net while drawing.
    pub passes: usize,
    /// Its rows in these.
    pub rows: usize,
    /// Whether a method runs it more often than is counted here.
    pub is_least: bool,
    /// Most steps of tuning.
    pub tuning_steps: usize,
    /// Rows of each.
    pub tuning_rows: usize,
}

impl Work {
    fn is_none(&self) -> bool {
        self.pictures == 0 && self.tuning_steps == 0
    }

    /// Both.
    pub fn and(self, other: Work) -> Work {
        Work {
            pictures: self.pictures + other.pictures,
            passes: self.passes + other.passes,
            rows: self.rows + other.rows,
            is_least: self.is_least || other.is_least,
            tuning_steps: self.tuning_steps + other.tuning_steps,
            tuning_rows: self.tuning_rows.max(other.tuning_rows),
        }
    }
}

/// Seconds that work like this took before.
pub struct Measured {
    /// For all of the job.
    pub seconds: f64,
    /// Where it was measured.
    pub source: String,
}

/// What is known of a job beforehand.
pub struct Outlook {
    model: Rc<LocatedModel>,
    prompts: Vec<Prompt>,
    /// ControlNets, adapters and image encoders.
    beside: Vec<(Rc<ModelFiles>, Vec<NeededFile>)>,
    /// How much is to be computed.
    pub work: Work,
    activations: Activations,
    /// Of the pictures, three for a pixel.
    picture_bytes: u64,
    /// How long it took before.
    pub measured: Option<Measured>,
}

impl Outlook {
    /// Of a job with this model that does nothing yet.
    pub fn of(model: &Rc<LocatedModel>) -> Self {
        Self {
            model: Rc::clone(model),
            prompts: Vec::new(),
            beside: Vec::new(),
            work: Work::default(),
            activations: Activations::default(),
            picture_bytes: 0,
            measured: None,
        }
    }

    /// Adds a prompt, and the negative one where it holds anything.
    pub fn add_pair(&mut self, pair: PromptPair, words: &[String]) {
        self.add("prompt", pair.prompt, words);
        if !pair.negative.prompt().is_empty() {
            self.add("negative prompt", pair.negative, &[]);
        }
    }

    /// Adds a text, unless it is there already.
    pub fn add(&mut self, role: &'static str, tokens: PromptTokens, words: &[String]) {
        let is_same =
            |known: &Prompt| known.role == role && known.tokens.prompt() == tokens.prompt();
        if !self.prompts.iter().any(is_same) {
            let words = words.to_vec();
            self.prompts.push(Prompt {
                tokens,
                role,
                words,
            });
        }
    }

    /// Adds what of the prompts, networks and work of another job with the same model is not there yet.
    pub fn join(&mut self, other: Outlook) {
        for Prompt {
            tokens,
            role,
            words,
        } in other.prompts
        {
            self.add(role, tokens, &words);
        }
        for (files, needed) in other.beside {
            if !self
                .beside
                .iter()
                .any(|(known, _)| Rc::ptr_eq(known, &files))
            {
                self.beside.push((files, needed));
            }
        }
        self.work = self.work.and(other.work);
        self.activations = self.activations.or(other.activations);
        self.picture_bytes += other.picture_bytes;
    }

    /// Adds ControlNets and adapters.
    ///
    /// # Errors
    /// When a file of theirs is missing, or the hub can not be asked.
    pub fn add_beside(
        &mut self,
        control: Option<&LocatedControl>,
        image: Option<&LocatedImagePrompt>,
    ) -> Result<()> {
        for files in control.into_iter().flat_map(LocatedControl::files) {
            let needed = network_files(files, "")?;
            self.beside.push((Rc::clone(files), needed));
        }
        if let Some(image) = image {
            self.beside.extend(image.needed()?);
        }
        Ok(())
    }

    /// Adds pictures of this size, `rows` of which pass the U-Net at once at most.
    pub fn add_drawing(&mut self, drawing: ResolvedDrawing, work: Work, rows: usize) {
        self.work = self.work.and(work);
        if work.pictures == 0 {
            return;
        }
        let model = &self.model;
        let pixels = drawing.width * drawing.height;
        self.picture_bytes += work.pictures as u64 * 3 * pixels as u64;
        let latents = pixels / (model.scale_factor * model.scale_factor);
        let tile = model.tiles_of(drawing.width, drawing.height);
        let vae_kind = model.pipeline.vae_kind(&model.vae_config, model.kind);
        let decoding = Activations::of_decoding(
            &model.vae_config,
            tile.map_or(pixels, |tile| tile * tile),
            vae_kind.elt_size_in_bytes(),
        );
        let size = model.kind.elt_size_in_bytes();
        let passing = Activations::of_pass(&model.unet, rows, latents, size);
        self.activations = self.activations.or(decoding).or(passing);
    }

    /// Adds a tuning of at most so many steps of `rows` rows, `at_once` of which pass the U-Net at once, on pictures
    /// of this size.
    ///
    /// # Errors
    /// When the U-Net's config does not fit itself.
    pub fn add_tuning(
        &mut self,
        (width, height): (i64, i64),
        steps: usize,
        rows: usize,
        at_once: usize,
    ) -> Result<()> {
        let model = &self.model;
        let latents = width * height / (model.scale_factor * model.scale_factor);
        let size = model.kind.elt_size_in_bytes();
        let step = Activations::of_tuning(&model.unet, at_once.min(rows), latents, size)?;
        self.activations = self.activations.or(step);
        self.work = self.work.and(Work {
            tuning_steps: steps,
            tuning_rows: rows,
            ..Work::default()
        });
        Ok(())
    }

    /// Tells it all, and the files that the job would write.
    ///
    /// # Errors
    /// When a prompt would be cut, or there is no room for what would be fetched or written.
    pub fn tell(self, session: &Session, files: &[PathBuf], folder: &Path) -> Result<()> {
        session.list_planned(files);
        if files.is_empty() {
            return Ok(());
        }
        self.prompts
            .iter()
            .try_for_each(|prompt| prompt.tell(session))?;
        if self.work.is_none() {
            return check_cuts(&self.prompts);
        }
        let (networks, missing) = self.networks()?;
        let is_gpu = self.model.device.is_cuda();
        let offload = self.model.job.cpu_offload;
        let memory = peak(&networks, self.activations, is_gpu, offload);
        self.tell_work(session, missing, memory, folder);
        self.check_room(missing, folder)?;
        check_cuts(&self.prompts)
    }

    fn tell_work(&self, session: &Session, missing: u64, memory: u64, folder: &Path) {
        let Work {
            pictures,
            passes,
            rows,
            is_least,
            tuning_steps,
            tuning_rows,
        } = self.work;
        let note = |line: String| session.reporter.note(&line);
        if pictures > 0 {
            let least = if is_least { "at least " } else { "" };
            note(format!(
                "work: {least}{passes} U-Net passes ({rows} rows), {pictures} decodes, for {pictures} pictures"
            ));
        }
        if tuning_steps > 0 {
            note(format!(
                "work: at most {tuning_steps} tuning steps of {tuning_rows} rows, each forward and backward through the U-Net"
            ));
        }
        note(match missing {
            0 => "download: 0 B, all is on this machine".to_owned(),
            bytes => format!("download: {}", human_size(bytes)),
        });
        let of = match self.model.device.is_cuda() {
            true => "the GPU, worked out and never measured there",
            false => "the process, worked out",
        };
        note(format!(
            "memory: about {} at the peak of {of}",
            human_size(memory)
        ));
        note(match &self.measured {
            Some(Measured { seconds, source }) => {
                format!("time: about {seconds:.0} s, by {source}")
            }
            None => "time: not known, for nothing like it was measured before".to_owned(),
        });
        let measured = self.measured.as_ref();
        session.list_object(
            "outlook",
            "planned",
            json!({
                "folder": folder,
                "pictures": pictures,
                "passes": passes,
                "rows": rows,
                "decodes": pictures,
                "is_least": is_least,
                "tuning_steps": tuning_steps,
                "tuning_rows": tuning_rows,
                "download_bytes": missing,
                "memory_bytes": memory,
                "memory_of": if self.model.device.is_cuda() { "gpu" } else { "process" },
                "seconds": measured.map(|measured| measured.seconds),
                "seconds_from": measured.map(|measured| &measured.source),
            }),
        );
    }

    /// The networks' sizes, and the bytes that are still to be fetched.
    fn networks(&self) -> Result<(Vec<NetworkSize>, u64)> {
        let model = &self.model;
        let has_other_vae = model.vae.is_some();
        let vae_kind = model.pipeline.vae_kind(&model.vae_config, model.kind);
        let kind_of = |folder: &str| match folder {
            "vae" => vae_kind,
            _ => model.kind,
        };
        let merged = |folder: &str, size: NetworkSize| match model.files.loras().reaches(folder) {
            true => size.merged(),
            false => size,
        };
        let mut missing = 0;
        let mut size = |files: &ModelFiles, needed: &[NeededFile], kind: Kind| {
            missing += needed.iter().filter_map(|file| file.missing).sum::<u64>();
            network_size(files, needed, kind)
        };
        let mut networks = Vec::new();
        for (folder, tensors) in networks_in_one_file(&model.files, has_other_vae)? {
            networks.push(merged(folder, size_of_tensors(&tensors, kind_of(folder))));
        }
        if networks.is_empty() {
            for (folder, needed) in pipeline_files(&model.files, has_other_vae)? {
                let found = size(&model.files, &needed, kind_of(folder))?;
                networks.push(merged(folder, found));
            }
        }
        if let Some(vae) = &model.vae {
            networks.push(size(vae, &vae_files(vae)?, vae_kind)?);
        }
        for (files, needed) in &self.beside {
            networks.push(size(files, needed, model.kind)?);
        }
        Ok((networks, missing))
    }

    /// Refuses what would fill a disk. A picture takes three bytes a pixel at most.
    fn check_room(&self, missing: u64, folder: &Path) -> Result<()> {
        let cache = HubSettings::from_env(self.model.job.offline).map(|settings| settings.cache);
        if let (Ok(cache), true) = (&cache, missing > 0) {
            check_new_files(cache).context("the cache of the hub, see HF_HOME")?;
        }
        if let Ok(cache) = cache
            && let Some(free) = free_bytes(&cache)
            && free < missing
        {
            return Err(runtime(format!(
                "{} are to be fetched and {} are free in the cache {}: make room, or set HF_HOME to a larger disk",
                human_size(missing),
                human_size(free),
                cache.display()
            )));
        }
        let wanted = self.picture_bytes;
        match free_bytes(folder).filter(|free| *free < wanted) {
            Some(free) => Err(runtime(format!(
                "the pictures may take {} and {} are free for {}: make room, or choose another folder",
                human_size(wanted),
                human_size(free),
                folder.display()
            ))),
            None => Ok(()),
        }
    }
}
