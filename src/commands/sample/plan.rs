//! Looks up what a job needs before its pictures are listed: model, size, actors, ControlNets.

use std::rc::Rc;

use anyhow::Result;
use serde_json::json;

use super::Sampling;
use super::actors::{Actors, Scene};
use super::painter::read_offsets;
use super::pictures::{PictureList, job_settings};
use super::target::target;
use crate::cli::sample::SubjectMasks;
use crate::cli::{Method, Target};
use crate::config::SampleJob;
use crate::config::batch::Settings;
use crate::config::model::DEFAULT_MODEL;
use crate::config::prompts::looks_like_syntax;
use crate::config::shard::Shard;
use crate::records::SceneFolder;
use crate::run::changes;
use crate::run::controlnet::LocatedControl;
use crate::run::drawing_settings::drawing_settings;
use crate::run::image_prompt::LocatedImagePrompt;
use crate::run::located::{LocatedModel, ResolvedDrawing};
use crate::run::session::Session;
use crate::run::stale::refuse_stale;

/// What all jobs with the same model, actors, ControlNets, prompts and size share, such as the cells of a sweep.
pub(in super::super) struct Plan {
    model: Rc<LocatedModel>,
    drawing: ResolvedDrawing,
    control: Option<Rc<LocatedControl>>,
    image_prompt: Option<Rc<LocatedImagePrompt>>,
    actors: Actors,
    /// The number of the base image that a baseline uses.
    target: Option<usize>,
    scenes: Vec<Scene>,
    /// CRC-32 of LoRAs and control images.
    sources: Settings,
}

impl Plan {
    /// Reads the small files that `job` names and checks its prompts.
    ///
    /// # Errors
    /// When a file cannot be used, or a prompt lacks the base word.
    pub fn look_up(session: &Session, job: &SampleJob) -> Result<Self> {
        // The plain model needs the actors only for `[b]` and for the name of the model.
        let actors = Actors::read(&job.actors, job.method)?;
        if !job.guidance.no_actor {
            job.actors
                .iter()
                .try_for_each(|path| refuse_stale(path, job.method))?;
        }
        let target = target(session, job)?;
        if let Some(path) = &job.guidance.offsets {
            read_offsets(path)?;
        }
        let mut named = job.model.clone();
        named.tuned_lora = actors.tuned_lora();
        let model_name = actors.model().unwrap_or(DEFAULT_MODEL);
        named.model.get_or_insert_with(|| model_name.to_owned());
        let scenes = actors.scenes(job)?;
        let model = session.locate(&named)?;
        if let Some((picture, version)) = &job.redrawn {
            changes::tell(session, picture, version, &model);
        }
        let drawing = model.resolve(&job.drawing)?;
        model.check_tiles(drawing.width, drawing.height, &session.reporter);
        session.tell_of_seed(job.drawing.seed + (scenes.len() * job.num_images) as i64 - 1);
        if !job.guidance.no_actor {
            actors.check_loras(&model, &session.reporter);
        }
        let has_weights = job.drawing.prompt_options.prompt_weights;
        let told = job.prompts.iter();
        told.filter_map(|prompt| looks_like_syntax(prompt, has_weights))
            .for_each(|line| session.reporter.warn(&line));
        for (index, scene) in scenes.iter().enumerate() {
            let is_guided = !job.guidance.no_actor;
            let pair = scene.prompt_pair(&job.drawing, &model.tokenizers, is_guided)?;
            model.check_prompt(&pair.prompt, scene.guided_words(), &session.reporter)?;
            model.check_words(&pair.prompt, scene.guided_words(), &session.reporter);
            if index == 0 {
                model.check_prompt(&pair.negative, &[], &session.reporter)?;
                model.check_words(&pair.negative, &[], &session.reporter);
            }
        }
        model.check_attention(masks_of(job, &scenes))?;
        if let (Method::Consistory, Some(prompt)) = (job.method, actors.base_prompt()) {
            let whose = "each anchor of --method consistory";
            model.check_base_prompt(prompt, whose, &session.reporter)?;
        }
        if job.save_masks {
            tell_of_missing_masks(session, &scenes);
        }
        let control = match &job.control {
            Some(control) => Some(LocatedControl::locate(session, control, &model, drawing)?),
            None => None,
        };
        let image_prompt = match (&job.image_prompt, &job.actors[..], target) {
            (Some(prompt), [base, ..], Some(target)) => {
                let picture = (base.as_path(), target);
                Some(LocatedImagePrompt::locate(
                    session, prompt, picture, &model,
                )?)
            }
            _ => None,
        };
        let mut sources = lora_sources(&model);
        sources.extend(control.iter().flat_map(LocatedControl::sources));
        Ok(Self {
            model,
            drawing,
            control: control.map(Rc::new),
            image_prompt: image_prompt.map(Rc::new),
            actors,
            target,
            scenes,
            sources,
        })
    }

    /// The pictures of one of these jobs; each says whether it is finished or has to be drawn.
    ///
    /// # Errors
    /// When a file of the same name was drawn with other settings and the job has no `--overwrite`.
    pub fn sampling(&self, mut job: SampleJob) -> Result<Sampling> {
        job.target = self.target.map(|image| Target::Index(image as i64));
        let mut plain = drawing_settings(&job.drawing, self.drawing, &self.model)?;
        plain.extend(self.control.iter().flat_map(|control| control.settings()));
        let mut settings = job_settings(&job, plain.clone(), !job.guidance.no_actor)?;
        let image_prompt = self.image_prompt.as_ref();
        settings.extend(image_prompt.iter().flat_map(|image| image.settings()));
        let series = |folder: &str, settings: &Settings, is_guided: bool| {
            let mut sources = self.sources.clone();
            if let (Some(image), true) = (image_prompt, is_guided) {
                sources.extend(image.sources());
            }
            PictureList {
                job: &job,
                actors: &self.actors,
                folder: folder.to_owned(),
                settings: settings.clone(),
                sources,
                is_guided,
            }
        };
        let pictures = series("", &settings, !job.guidance.no_actor).pictures(&self.scenes)?;
        let plain_pictures = if job.compare {
            let plain = job_settings(&job, plain, false)?;
            series(SceneFolder::PLAIN, &plain, false).pictures(&self.scenes)?
        } else {
            Vec::new()
        };
        let made_before = if job.guidance.no_actor {
            Vec::new()
        } else {
            self.actors.made_before(job.method)
        };
        Ok(Sampling {
            job,
            model: Rc::clone(&self.model),
            drawing: self.drawing,
            control: self.control.clone(),
            image_prompt: self.image_prompt.clone(),
            actor_checksums: self.actors.checksums(),
            made_before,
            settings,
            pictures,
            plain_pictures,
            shard: Shard::WHOLE,
        })
    }
}

/// What needs masked attention, as the text of a message; `None` if nothing does.
fn masks_of(job: &SampleJob, scenes: &[Scene]) -> Option<&'static str> {
    match (job.method, job.subject_masks) {
        (Method::Consistory, _) => Some("--method consistory"),
        _ if job.guidance.no_actor || !scenes.iter().any(Scene::has_masks) => None,
        (_, SubjectMasks::On) => Some("--subject-masks on"),
        _ => Some("a prompt with several actors"),
    }
}

/// CRC-32 of the LoRAs that the settings only name, if there are LoRAs.
pub(super) fn lora_sources(model: &LocatedModel) -> Settings {
    let sums = model.lora_crc32().into_iter();
    sums.map(|sums| ("lora_crc32".to_owned(), json!(sums)))
        .collect()
}

fn tell_of_missing_masks(session: &Session, scenes: &[Scene]) {
    let without_masks = scenes.iter().filter(|scene| !scene.has_masks()).count();
    if without_masks > 0 {
        session.reporter.note(&format!(
            "{without_masks} of {} prompts name fewer than two actors that have a place in the \
             picture: their pictures have no masks to save, because offsets act everywhere",
            scenes.len()
        ));
    }
}
