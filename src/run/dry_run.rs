//! What a dry run reports about a job besides its files: the tokens of each prompt, the size of the download, the
//! amount of computation and the peak of memory, and the time if similar work was measured before.

mod memory;
mod prompts;
mod sizes;
mod work;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::json;
use tch::Kind;

use super::controlnet::LocatedControl;
use super::image_prompt::LocatedImagePrompt;
use super::located::{LocatedModel, ResolvedDrawing};
use super::session::Session;
use crate::backbone::files::network_files;
use crate::backbone::memory::{Activations, PassSize};
use crate::backbone::prompt_pair::PromptPair;
use crate::error::runtime;
use crate::io::hub::{HubSettings, human_size};
use crate::io::model_files::{ModelFiles, NeededFile};
use crate::io::writable::check_new_files;
use crate::libtorch::AttentionImplementation;
use crate::tokenizer::prompt_tokens::PromptTokens;
use crate::wording::counted;
use memory::Memory;
use prompts::{Prompt, check_cuts};
use sizes::free_bytes;
pub use work::{UnetRows, Work};

/// An estimate of the time, from similar work that was measured before.
pub struct Measured {
    /// Estimated seconds for the whole job.
    pub seconds: f64,
    /// Which measurement the estimate comes from, for the user.
    pub source: String,
}

/// What can be estimated about a job before it runs.
pub struct Forecast {
    model: Rc<LocatedModel>,
    prompts: Vec<Prompt>,
    /// ControlNets, adapters and image encoders, each with the files that it needs.
    beside: Vec<(Rc<ModelFiles>, Vec<NeededFile>)>,
    controlnets: usize,
    /// The amount of computation.
    pub work: Work,
    /// Whether the text encoders stay loaded while pictures are drawn, because there are too many prompts to encode
    /// all of them first.
    pub keeps_text: bool,
    /// Whether a baseline is tuned. Its parameters are inside a network, which then keeps more values than
    /// [`Activations::of_tuning`] counts.
    pub tunes_networks: bool,
    /// Bytes of the actors' files. Each file is read and then copied to a projector.
    pub actor_bytes: u64,
    passing: Activations,
    decoding: Activations,
    tuning: Activations,
    /// Activations that prepare the target before the first step, and those that stay from step to step.
    target: Activations,
    /// Most bytes of the pictures on disk: three for each pixel.
    picture_bytes: u64,
    /// An estimate of the time.
    pub measured: Option<Measured>,
}

impl Forecast {
    /// The forecast of an empty job with this model.
    pub fn of(model: &Rc<LocatedModel>) -> Self {
        Self {
            model: Rc::clone(model),
            prompts: Vec::new(),
            beside: Vec::new(),
            controlnets: 0,
            work: Work::default(),
            keeps_text: false,
            tunes_networks: false,
            actor_bytes: 0,
            passing: Activations::default(),
            decoding: Activations::default(),
            tuning: Activations::default(),
            target: Activations::default(),
            picture_bytes: 0,
            measured: None,
        }
    }

    /// Adds a prompt, and the negative prompt unless it is empty.
    pub fn add_pair(&mut self, pair: PromptPair, words: &[String]) {
        self.add("prompt", pair.prompt, words);
        if !pair.negative.prompt().is_empty() {
            self.add("negative prompt", pair.negative, &[]);
        }
    }

    /// Adds a text with its role, unless the forecast already has it.
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

    /// Adds another job with the same model. Prompts and networks that both jobs have count once.
    pub fn join(&mut self, other: Forecast) {
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
        self.keeps_text |= other.keeps_text;
        self.tunes_networks |= other.tunes_networks;
        self.actor_bytes = self.actor_bytes.max(other.actor_bytes);
        self.passing = self.passing.or(other.passing);
        self.decoding = self.decoding.or(other.decoding);
        self.tuning = self.tuning.or(other.tuning);
        self.target = self.target.or(other.target);
        self.picture_bytes += other.picture_bytes;
    }

    /// Adds ControlNets and adapters.
    ///
    /// # Errors
    /// When one of their files is missing, or the hub cannot be reached.
    pub fn add_beside(
        &mut self,
        control: Option<&LocatedControl>,
        image: Option<&LocatedImagePrompt>,
    ) -> Result<()> {
        for files in control.into_iter().flat_map(LocatedControl::files) {
            self.controlnets += 1;
            let needed = network_files(files, "")?;
            self.beside.push((Rc::clone(files), needed));
        }
        if let Some(image) = image {
            self.beside.extend(image.needed()?);
        }
        Ok(())
    }

    /// Adds the drawing of pictures of this size, at most `batch` of them at once. `rows` are the most rows of one
    /// U-Net pass.
    ///
    /// # Errors
    /// When the U-Net's config contradicts itself.
    pub fn add_drawing(
        &mut self,
        drawing: ResolvedDrawing,
        work: Work,
        batch: usize,
        rows: UnetRows,
    ) -> Result<()> {
        self.work = self.work.and(work);
        if work.pictures == 0 {
            return Ok(());
        }
        let model = &self.model;
        let pixels = drawing.width * drawing.height;
        self.picture_bytes += work.pictures as u64 * 3 * pixels as u64;
        let (controlnets, known_tokens) = (self.controlnets, self.known_tokens());
        let pass = PassSize {
            rows: rows.at_once,
            rows_without_text: rows.without_text,
            known_tokens,
            watched: rows.watched,
            controlnets,
            ..self.pass(drawing.width, drawing.height)
        };
        let size = model.kind.elt_size_in_bytes();
        let passing = Activations::of_pass(&model.unet, &pass, size)?;
        let decoding = self.decoding((drawing.width, drawing.height), batch);
        self.passing = self.passing.or(passing);
        self.decoding = self.decoding.or(decoding);
        Ok(())
    }

    /// Adds a tuning on pictures of this size: at most `steps` steps of `rows` rows each, of which `at_once` pass the
    /// U-Net together. `parameters` is the number of values that are learnt.
    ///
    /// # Errors
    /// When the U-Net's config contradicts itself.
    pub fn add_tuning(
        &mut self,
        (width, height): (i64, i64),
        steps: usize,
        (rows, at_once): (usize, usize),
        parameters: i64,
    ) -> Result<()> {
        let model = &self.model;
        let pass = PassSize {
            rows: at_once.min(rows),
            rows_without_text: at_once.min(rows),
            ..self.pass(width, height)
        };
        let size = model.kind.elt_size_in_bytes();
        let step = Activations::of_tuning(&model.unet, &pass, size)?;
        // Six copies in f32: the parameters, their gradients, AdamW's two moments, the best parameters so far, and a
        // temporary copy.
        let learnt = 6 * 4 * parameters as u64;
        self.tuning = self.tuning.or(Activations(step.0 + learnt));
        self.target = self.target.or(self.decoding((width, height), 1));
        self.work = self.work.and(Work {
            tuning_steps: steps,
            tuning_rows: rows,
            ..Work::default()
        });
        Ok(())
    }

    /// The size of a U-Net pass for pictures of this size.
    fn pass(&self, width: i64, height: i64) -> PassSize {
        let factor = self.model.scale_factor;
        let tokens = self.prompts.iter().map(|prompt| prompt.tokens.ids(0).len());
        PassSize {
            latents: (height / factor, width / factor),
            tokens: tokens.max().unwrap_or(0),
            probability: match self.model.job.attention {
                Some(AttentionImplementation::Math) => {
                    Kind::Float.elt_size_in_bytes() / self.model.kind.elt_size_in_bytes()
                }
                _ => 0,
            },
            ..PassSize::default()
        }
    }

    /// Tokens whose keys and values the layers keep: those of a picture's prompt and negative prompt.
    fn known_tokens(&self) -> usize {
        2 * self.pass(0, 0).tokens
    }

    fn decoding(&self, (width, height): (i64, i64), pictures: usize) -> Activations {
        let model = &self.model;
        let tile = model.tiles_of(width, height);
        let side = |side: i64| tile.map_or(side, |tile| tile.min(side));
        let vae_kind = model.pipeline.vae_kind(&model.vae_config, model.kind);
        Activations::of_decoding(
            &model.vae_config,
            (side(height), side(width)),
            (pictures, width * height),
            vae_kind.elt_size_in_bytes(),
        )
    }

    /// Reports the forecast, and the files that the job would write.
    ///
    /// # Errors
    /// When a prompt would be cut, or a disk has too little room for the download or the pictures.
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
        let memory = self.memory(session, &networks);
        self.tell_work(session, missing, &memory, folder);
        self.check_room(missing, folder)?;
        check_cuts(&self.prompts)
    }

    fn tell_work(&self, session: &Session, missing: u64, memory: &Memory, folder: &Path) {
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
                "work: {least}{} ({}), {} decoded",
                counted(passes, "U-Net pass", "U-Net passes"),
                counted(rows, "row", "rows"),
                counted(pictures, "picture", "pictures")
            ));
        }
        if tuning_steps > 0 {
            note(format!(
                "work: at most {} of {}, each forward and backward through the U-Net",
                counted(tuning_steps, "tuning step", "tuning steps"),
                counted(tuning_rows, "row", "rows")
            ));
        }
        note(match missing {
            0 => "download: 0 B, every file is on this machine".to_owned(),
            bytes => format!("download: {}", human_size(bytes)),
        });
        let of = match memory.program {
            None => "the GPU (an estimate that was never checked on a GPU)".to_owned(),
            Some(bytes) => format!(
                "the process (an estimate; {} are the program and libtorch)",
                human_size(bytes)
            ),
        };
        note(format!(
            "memory: at most {} at the peak of {of}",
            human_size(memory.peak)
        ));
        note(match &self.measured {
            Some(Measured { seconds, source }) => {
                format!("time: about {seconds:.0} s, estimated from {source}")
            }
            None => "time: not known, because no similar work was measured before".to_owned(),
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
                "memory_bytes": memory.peak,
                "program_bytes": memory.program,
                "memory_of": if self.model.device.is_cuda() { "gpu" } else { "process" },
                "seconds": measured.map(|measured| measured.seconds),
                "seconds_from": measured.map(|measured| &measured.source),
            }),
        );
    }

    /// Refuses a job that would fill the disk of the cache or of the pictures. A picture takes at most three bytes a
    /// pixel.
    fn check_room(&self, missing: u64, folder: &Path) -> Result<()> {
        let cache = HubSettings::from_env(self.model.job.offline).map(|settings| settings.cache);
        if let (Ok(cache), true) = (&cache, missing > 0) {
            check_new_files(cache).context("the cache of the hub (HF_HOME sets its place)")?;
        }
        if let Ok(cache) = cache
            && let Some(free) = free_bytes(&cache)
            && free < missing
        {
            return Err(runtime(format!(
                "the download needs {}, but only {} are free in the cache {}: make room, or set HF_HOME to a larger \
                 disk",
                human_size(missing),
                human_size(free),
                cache.display()
            )));
        }
        let wanted = self.picture_bytes;
        match free_bytes(folder).filter(|free| *free < wanted) {
            Some(free) => Err(runtime(format!(
                "the pictures may take {}, but only {} are free for {}: make room, or choose another folder",
                human_size(wanted),
                human_size(free),
                folder.display()
            ))),
            None => Ok(()),
        }
    }
}
