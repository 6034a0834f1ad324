//! `story`: makes characters, scenes and a page to look at from one file.
//!
//! Its jobs are those of `generate-base`, `tune` and `sample`. Finished results are kept, so that an interrupted story
//! continues where it stopped.

mod dry_run;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tch::Device;

use super::generate_base::{self, BaseJob};
use super::sample::{self, Sampling, story_scenes};
use super::tune::{self, Tuning};
use crate::cli::{CommandLine, Method, StoryFlags};
use crate::config::model::DEFAULT_MODEL;
use crate::config::prompts::overlapping_words;
use crate::config::shard::Shard;
use crate::config::story::{Character, CharacterSource, Description, StoryScene, fill_in_names};
use crate::config::{StoryJob, TuneJob, plan};
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::method::actor::Actor;
use crate::method::base_set::BaseFacts;
use crate::method::templates;
use crate::pages::story::{Portrait, SceneCard, StoryPage};
use crate::records::{BaseFolder, StoryFolder};
use crate::run::draw::prompt_pair;
use crate::run::jobs::work_off;
use crate::run::located::{LocatedModel, ResolvedDrawing};
use crate::run::prepared::Loads;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
use crate::run::stale::refuse_stale;
use story_scenes::StoryPicture;

/// Does the jobs of `story`.
///
/// # Errors
/// See `work_off`.
pub fn run(line: &CommandLine<StoryFlags>) -> Result<()> {
    let session = Session::start("story", &line.run)?;
    session.refuse_shard()?;
    let config = line.run.config.as_deref();
    let jobs = plan(&line.flags, config, "story", StoryJob::check)?;
    work_off(&session, jobs, prepare, execute)
}

/// A story with its model and the jobs of its characters.
struct StoryPlan {
    job: StoryJob,
    model: Rc<LocatedModel>,
    /// How its scenes are drawn.
    drawing: ResolvedDrawing,
    /// The base words of each scene's cast.
    words: Vec<Vec<String>>,
    /// How each character is made, in the order of the job's characters.
    makings: Vec<Making>,
    scenes: Vec<StoryPicture>,
    /// The pictures, if all characters are finished.
    sampling: Option<Sampling>,
}

/// How a character is made.
enum Making {
    /// The character is an actor that was tuned before, with these facts.
    Given(Box<BaseFacts>),
    /// Base images are drawn, then the actor is tuned on one of them.
    Described {
        base: Box<BaseJob>,
        tune: Box<TuneJob>,
        /// The tuning, if the base images are finished.
        tuning: Option<Box<Tuning>>,
    },
}

impl Making {
    fn is_finished(&self) -> bool {
        match self {
            Making::Given(_) => true,
            Making::Described { tuning, .. } => {
                tuning.as_ref().is_some_and(|tuning| tuning.is_finished)
            }
        }
    }

    /// The files that are still to be written.
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Making::Given(_) => Vec::new(),
            Making::Described {
                tuning: Some(tuning),
                ..
            } => tuning.files(),
            Making::Described { base, tune, .. } => {
                let mut files = base.files();
                files.extend(tune::files(tune));
                files
            }
        }
    }
}

impl StoryPlan {
    fn folder(&self) -> StoryFolder<'_> {
        StoryFolder(&self.job.sample.output_dir)
    }

    /// The facts of the actors that were tuned before, with their names for messages.
    fn given(&self) -> impl Iterator<Item = (String, &BaseFacts)> {
        let characters = self.job.characters.iter().zip(&self.makings);
        characters.filter_map(|(character, making)| match making {
            Making::Given(facts) => Some((format!("{}: its actor", character.title()), &**facts)),
            Making::Described { .. } => None,
        })
    }

    fn files_before_page(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.makings.iter().flat_map(Making::files).collect();
        match &self.sampling {
            Some(sampling) => files.extend(sampling.files()),
            None => {
                let folder = self.folder();
                let pictures = self.scenes.iter().enumerate();
                files.extend(pictures.map(|(i, scene)| folder.picture(i, scene.seed)));
                files.push(folder.scenes().manifest(Shard::WHOLE));
                files.push(folder.scenes().grid());
            }
        }
        files
    }
}

impl Prepared for StoryPlan {
    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.files_before_page();
        if !files.is_empty() || !self.folder().is_finished() {
            files.push(self.folder().page());
        }
        files
    }

    fn settings(&self) -> Value {
        let (styles, characters): (Vec<_>, Vec<_>) =
            (self.job.characters.iter()).partition(|character| character.is_style);
        let made = |character: &Character| match &character.origin {
            CharacterSource::Actor(path) => json!({"name": character.name, "actor": path}),
            CharacterSource::Described(made) => {
                json!({"name": character.name, "base": made.base, "tune": made.tune})
            }
        };
        json!({
            "title": self.job.title,
            "characters": characters.into_iter().map(made).collect::<Vec<_>>(),
            "style": styles.into_iter().map(made).next(),
            "scenes": self.job.sample,
        })
    }

    fn check_networks(&self) -> Result<()> {
        if self.files_before_page().is_empty() {
            Ok(())
        } else {
            self.model.check_networks(std::iter::empty())?;
            let mut given = self.given();
            given.try_for_each(|(what, facts)| self.model.check_model(facts, &what))
        }
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        self.forecast()?
            .tell(session, &self.files(), self.folder().0)
    }

    fn loads(&self) -> Loads {
        let given = self
            .job
            .characters
            .iter()
            .filter_map(|character| match &character.origin {
                CharacterSource::Actor(path) => Some(path.clone()),
                CharacterSource::Described(_) => None,
            });
        Loads {
            shared: vec![self.model.key()],
            reads: given.collect(),
        }
    }
}

fn prepare(session: &Session, mut job: StoryJob) -> Result<StoryPlan> {
    for name in &job.unused {
        session.reporter.warn(&format!(
            "no scene names the character [{name}], which is left out"
        ));
    }
    let facts = job.characters.iter().map(given_facts);
    let facts = facts.collect::<Result<Vec<_>>>()?;
    let words: Vec<&str> = job
        .characters
        .iter()
        .zip(&facts)
        .map(|(character, facts)| base_word(character, facts.as_ref()))
        .collect::<Result<_>>()?;
    let place = || format!("story file {}", job.file.display());
    let scenes = filled_scenes(&job, &words).with_context(place)?;

    let of_actor = facts.iter().flatten().next();
    let of_actor = of_actor.map_or(DEFAULT_MODEL, |facts| &facts.model.name);
    job.sample
        .model
        .model
        .get_or_insert_with(|| of_actor.to_owned());
    let model = session.locate(&job.sample.model)?;
    let resolved = model.resolve(&job.sample.drawing)?;
    let is_placed = |i: &&usize| !job.characters[**i].is_style;
    let has_masks = |scene: &StoryPicture| scene.cast.iter().filter(is_placed).count() > 1;
    let masks = scenes.iter().any(has_masks);
    model.check_attention(masks.then_some("a scene with several characters"))?;
    let own_words =
        |scene: &StoryPicture| scene.cast.iter().map(|&i| words[i].to_owned()).collect();
    let words: Vec<Vec<String>> = scenes.iter().map(own_words).collect();
    for (number, (scene, words)) in (1..).zip(scenes.iter().zip(&words)) {
        let drawing = &job.sample.drawing;
        prompt_pair(drawing, &model.tokenizers, &scene.prompt, words)
            .and_then(|pair| {
                model.check_prompt(&pair.prompt, words, &session.reporter)?;
                model.check_words(&pair.prompt, words, &session.reporter);
                Ok(())
            })
            .with_context(|| format!("scene {number}"))
            .with_context(place)?;
    }
    let mut makings = Vec::new();
    for (character, facts) in job.characters.iter().zip(facts) {
        let making = match (&character.origin, facts) {
            (CharacterSource::Described(made), _) => {
                making(session, made, &job.sample.model.model).with_context(|| character.title())?
            }
            (CharacterSource::Actor(_), facts) => Making::Given(Box::new(
                facts.expect("the facts of every given actor have been read"),
            )),
        };
        makings.push(making);
    }
    let sampling = if makings.iter().all(Making::is_finished) {
        Some(story_scenes::prepare(session, job.sample.clone(), &scenes)?)
    } else {
        None
    };
    Ok(StoryPlan {
        job,
        model,
        drawing: resolved,
        words,
        makings,
        scenes,
        sampling,
    })
}

/// The facts of a character that is an actor; `None` for a character with a description.
fn given_facts(character: &Character) -> Result<Option<BaseFacts>> {
    let CharacterSource::Actor(path) = &character.origin else {
        return Ok(None);
    };
    let actor = Actor::read(path, Device::Cpu);
    let actor = actor.with_context(|| character.title())?;
    refuse_stale(path, Method::Oneactor).with_context(|| character.title())?;
    if character.is_style && actor.kind != templates::SubjectKind::Style {
        return Err(usage(format!(
            "the style: {} was tuned with another --kind, expected an actor that was tuned with --kind style",
            path.display()
        )));
    }
    Ok(Some(actor.facts))
}

/// The base word that `[name]` stands for.
fn base_word<'a>(character: &'a Character, facts: Option<&'a BaseFacts>) -> Result<&'a str> {
    let words = match (&character.origin, facts) {
        (CharacterSource::Described(made), _) => &made.base.subjects,
        (_, Some(facts)) => &facts.base_words,
        (_, None) => return Ok(""),
    };
    match &words[..] {
        [word] => Ok(word),
        words => Err(usage(format!(
            "{}: its actor was tuned on several subjects together ({}), expected one subject, because [{}] \
             stands for one base word",
            character.title(),
            words.join(", "),
            character.name
        ))),
    }
}

/// The scenes with the base words of their casts in place of the names.
///
/// # Errors
/// When two base words of a scene cannot be told apart.
fn filled_scenes(job: &StoryJob, words: &[&str]) -> Result<Vec<StoryPicture>> {
    let word = |name: &str| {
        let place = job.characters.iter().position(|other| other.name == name);
        place.map_or(String::new(), |i| words[i].to_owned())
    };
    let filled = |(i, scene): (usize, &StoryScene)| {
        let own: Vec<&str> = scene.cast.iter().map(|&j| words[j]).collect();
        if let Some((first, second)) = overlapping_words(&own) {
            let name = |j: usize| &job.characters[scene.cast[j]].name;
            return Err(usage(format!(
                "scene {}: found [{}] and [{}], whose base words \"{}\" and \"{}\" cannot be told apart in a prompt: \
                 leave one of the two out",
                i + 1,
                name(first),
                name(second),
                own[first],
                own[second]
            )));
        }
        Ok(StoryPicture {
            prompt: fill_in_names(&scene.prompt, word),
            cast: scene.cast.clone(),
            seed: job.seed(i),
        })
    };
    job.scenes.iter().enumerate().map(filled).collect()
}

/// The jobs of a character with a description, with the story's model.
fn making(session: &Session, made: &Description, model: &Option<String>) -> Result<Making> {
    let mut tune = Box::new(made.tune.clone());
    let mut base = made.base.clone();
    tune.model.model.clone_from(model);
    base.model.model.clone_from(model);
    let base = Box::new(generate_base::prepare(session, base)?);
    let tuning = if base.is_finished {
        Some(Box::new(tune::prepare(session, (*tune).clone())?))
    } else {
        None
    };
    Ok(Making::Described { base, tune, tuning })
}

fn execute(session: &Session, book: StoryPlan) -> Result<()> {
    if !book.files_before_page().is_empty() {
        // An actor of another model is refused before hours are spent on the other characters.
        let backbone = session.load(&book.model)?;
        for (what, facts) in book.given() {
            facts.check_model(&backbone.facts, &what)?;
        }
    }
    let page = book.folder().page();
    let StoryPlan {
        job,
        makings,
        scenes,
        sampling,
        ..
    } = book;
    for (character, making) in job.characters.iter().zip(makings) {
        if !making.is_finished() {
            session.reporter.note(&format!("{}:", character.title()));
        }
        make(session, making).with_context(|| character.title())?;
    }
    let sampling = match sampling {
        Some(sampling) => sampling,
        None => story_scenes::prepare(session, job.sample.clone(), &scenes)?,
    };
    let cards = cards(&job, &scenes, &sampling);
    sample::execute(session, sampling)?;
    let (mut portraits, mut style) = (Vec::new(), None);
    for (character, path) in job.characters.iter().zip(&job.sample.actors) {
        match (portrait(&character.name, path)?, character.is_style) {
            (portrait, true) => style = Some(portrait),
            (portrait, false) => portraits.push(portrait),
        }
    }
    let html = StoryPage {
        title: &job.title,
        language: &job.language,
        portraits,
        style,
        cards,
    }
    .to_html()?;
    if fs::read(&page).is_ok_and(|there| there == html.as_bytes()) {
        return Ok(());
    }
    write_bytes_atomically(&page, html.as_bytes())?;
    session.wrote(&page, "page", Value::Null);
    Ok(())
}

/// Draws the missing base images of a character and tunes it, unless it is finished.
fn make(session: &Session, making: Making) -> Result<()> {
    let Making::Described { base, tune, tuning } = making else {
        return Ok(());
    };
    if tuning.as_ref().is_some_and(|tuning| tuning.is_finished) {
        return Ok(());
    }
    let tuning = match tuning {
        Some(tuning) => *tuning,
        None => {
            generate_base::execute(session, *base)?;
            tune::prepare(session, *tune)?
        }
    };
    tune::execute(session, tuning)
}

/// The pictures with their captions.
fn cards<'a>(
    job: &'a StoryJob,
    scenes: &[StoryPicture],
    sampling: &Sampling,
) -> Vec<SceneCard<'a>> {
    let card = |(i, scene): (usize, &StoryPicture)| SceneCard {
        picture: sampling.pictures[i].path.clone(),
        caption: job.scenes[i].caption.as_deref(),
        prompt: scene.prompt.clone(),
        seed: scene.seed,
        cast: scene
            .cast
            .iter()
            .map(|&j| &job.characters[j])
            .filter(|character| !character.is_style)
            .map(|character| &*character.name)
            .collect(),
    };
    scenes.iter().enumerate().map(card).collect()
}

/// A character or the style for the page, with its target image if that lies beside the actor.
fn portrait<'a>(name: &'a str, path: &Path) -> Result<Portrait<'a>> {
    let actor = Actor::read(path, Device::Cpu)?;
    let picture = BaseFolder::beside(path).image(actor.target);
    Ok(Portrait {
        name,
        prompt: actor.facts.prompt,
        picture: picture.is_file().then_some(picture),
    })
}
