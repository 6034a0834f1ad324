//! The pictures of a story: each prompt has its own cast and seed.

use anyhow::Result;

use super::Sampling;
use super::actors::Actors;
use super::pictures::{PictureList, job_settings};
use super::plan::lora_sources;
use crate::config::SampleJob;
use crate::config::shard::Shard;
use crate::records::StoryFolder;
use crate::run::drawing_settings::drawing_settings;
use crate::run::session::Session;
use crate::run::stale::refuse_stale;

/// One picture of a story.
pub struct StoryPicture {
    /// The prompt with the base words of its cast.
    pub prompt: String,
    /// The indices of the actors in the picture among the job's actors, in ascending order; empty for the plain model.
    pub cast: Vec<usize>,
    /// Seed of the picture.
    pub seed: i64,
}

/// The pictures of `scenes`. All actors of `job` must exist, its model must be set, and the prompts must have been
/// checked.
///
/// # Errors
/// When an actor cannot be read, or a file of the same name was drawn with other settings.
pub fn prepare(session: &Session, job: SampleJob, scenes: &[StoryPicture]) -> Result<Sampling> {
    let actors = Actors::read_apart(&job.actors, job.method)?;
    job.actors
        .iter()
        .try_for_each(|path| refuse_stale(path, job.method))?;
    let model = session.locate(&job.model)?;
    let drawing = model.resolve(&job.drawing)?;
    model.check_tiles(drawing.width, drawing.height, &session.reporter);
    let last = scenes.iter().map(|scene| scene.seed).max();
    last.iter().for_each(|last| session.tell_of_seed(*last));
    let plain = drawing_settings(&job.drawing, drawing, &model)?;
    let sources = lora_sources(&model);
    actors.check_loras(&model, &session.reporter);
    let series = |is_guided: bool| -> Result<PictureList> {
        Ok(PictureList {
            job: &job,
            actors: &actors,
            folder: StoryFolder::PICTURES.to_owned(),
            settings: job_settings(&job, plain.clone(), is_guided)?,
            sources: sources.clone(),
            is_guided,
        })
    };
    let (guided, alone) = (series(true)?, series(false)?);
    let picture = |(index, scene): (usize, &StoryPicture)| {
        let shown = actors.scene_of(&job, scene.prompt.clone(), scene.cast.clone());
        let series = if scene.cast.is_empty() {
            &alone
        } else {
            &guided
        };
        series.picture(index, &shown, scene.seed)
    };
    let pictures = scenes.iter().enumerate().map(picture);
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    Ok(Sampling {
        settings: guided.settings.clone(),
        actor_checksums: actors.checksums(),
        made_before: actors.made_before(job.method),
        job,
        model,
        drawing,
        control: None,
        image_prompt: None,
        pictures,
        plain_pictures: Vec::new(),
        shard: Shard::WHOLE,
    })
}
