//! The actors of a job, and which of them each prompt names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tch::Device;

use crate::backbone::prompt::Tokenizers;
use crate::backbone::prompt_pair::PromptPair;
use crate::baselines::{dreambooth_lora, textual_inversion};
use crate::cli::Method;
use crate::cli::sample::{SubjectAs, SubjectMasks};
use crate::config::batch::Settings;
use crate::config::prompts::{
    PLACEHOLDER, fill_in, overlapping_words, require_word, subject_phrase,
};
use crate::config::{DrawingJob, SampleJob};
use crate::error::usage;
use crate::io::checksum::crc32_of;
use crate::method::actor::Actor;
use crate::method::base_set::BaseFacts;
use crate::method::templates::SubjectKind;
use crate::progress::Reporter;
use crate::run::draw::prompt_pair;
use crate::run::located::LocatedModel;
use crate::tokenizer::find_word;

/// Most base words in one prompt.
const MOST_WORDS: usize = 32;

/// The actors of a job, as far as prompts are checked against them.
pub(super) struct Actors(Vec<Member>);

/// One actor.
struct Member {
    path: PathBuf,
    facts: BaseFacts,
    kind: SubjectKind,
    crc32: String,
    /// What stands before the base word where the model was tuned to it.
    identifier: Option<String>,
}

/// A prompt with what it names.
#[derive(Clone)]
pub(in crate::commands) struct Scene {
    /// `[b]` is filled in.
    pub prompt: String,
    /// The base words that it holds, in the order of the actors; where a plain picture is drawn
    /// again, those that it was drawn with. A long prompt keeps each in one chunk.
    pub words: Vec<String>,
    /// For each word, whether its subject has a place in the picture: a style has none.
    pub placed: Vec<bool>,
    /// Whose they are, as places among the actors, in ascending order; none for the plain model.
    pub acting: Vec<usize>,
    has_masks: bool,
    /// What guided pictures read before each base word.
    identifier: Option<String>,
}

impl Scene {
    /// The prompt and the job's negative prompt as the text encoders read them, for guided pictures with the identifier
    /// where there is one.
    ///
    /// # Errors
    /// See [`prompt_pair`].
    pub fn prompt_pair(
        &self,
        drawing: &DrawingJob,
        tokenizers: &Tokenizers,
        is_guided: bool,
    ) -> Result<PromptPair> {
        let marked;
        let prompt = match (&self.identifier, &self.words[..]) {
            (Some(identifier), [word]) if is_guided => {
                marked = dreambooth_lora::marked(&self.prompt, word, identifier);
                &marked
            }
            _ => &self.prompt,
        };
        prompt_pair(drawing, tokenizers, prompt, &self.words)
    }

    /// The words whose offsets guide; none for the plain model.
    pub fn guided_words(&self) -> &[String] {
        if self.acting.is_empty() {
            &[]
        } else {
            &self.words
        }
    }

    /// Whether each subject's offset is confined to its mask: unless the job says otherwise, with several
    /// actors that have a place in the picture. The offsets of one actor then act everywhere, those of several
    /// subjects that were tuned together too, and those of a style always.
    pub fn has_masks(&self) -> bool {
        self.has_masks
    }

    /// The words whose subjects have a mask where there are masks, in their order.
    pub fn placed_words(&self) -> impl Iterator<Item = &String> {
        let words = self.words.iter().zip(&self.placed);
        words.filter(|(_, placed)| **placed).map(|(word, _)| word)
    }
}

impl Actors {
    /// Reads what the actors were made from, all of which a prompt may name.
    ///
    /// # Errors
    /// When a file can not be read, two actors are of different models, or have base words that can
    /// not be told apart.
    pub fn read(paths: &[PathBuf], method: Method) -> Result<Self> {
        let cast = Self::read_apart(paths, method)?;
        cast.refuse_overlaps()?;
        Ok(cast)
    }

    /// Reads what the actors were made from, where each scene says who is in it.
    ///
    /// # Errors
    /// When a file can not be read, or two actors are of different models.
    pub fn read_apart(paths: &[PathBuf], method: Method) -> Result<Self> {
        let member = |path: &PathBuf| -> Result<Member> {
            let (facts, kind) = match method {
                Method::Oneactor => {
                    let Actor { facts, kind, .. } = Actor::read(path, Device::Cpu)?;
                    (facts, kind)
                }
                Method::TextualInversion => {
                    textual_inversion::check_file(path)?;
                    (BaseFacts::read(path)?, SubjectKind::Character)
                }
                _ => (BaseFacts::read(path)?, SubjectKind::Character),
            };
            let identifier = match method {
                Method::DreamboothLora => Some(dreambooth_lora::identifier(path)?),
                _ => None,
            };
            Ok(Member {
                identifier,
                path: path.clone(),
                facts,
                kind,
                crc32: crc32_of(path)?,
            })
        };
        let members = paths.iter().map(member).collect::<Result<Vec<_>>>()?;
        for other in members.iter().skip(1) {
            let what = format!("the actor {}", other.path.display());
            other
                .facts
                .check_model(&members[0].facts.model, &what)
                .with_context(|| {
                    let first = members[0].path.display();
                    format!("actors in one picture must be of one model, that of {first} here")
                })?;
        }
        Ok(Self(members))
    }

    fn refuse_overlaps(&self) -> Result<()> {
        let owned = |member: &Member| {
            let path = member.path.display().to_string();
            let words = member.facts.base_words.iter();
            words
                .map(move |word| (word.clone(), path.clone()))
                .collect::<Vec<_>>()
        };
        let (words, paths): (Vec<_>, Vec<_>) = self.0.iter().flat_map(owned).unzip();
        if let Some((first, second)) = overlapping_words(&words) {
            return Err(usage(format!(
                "{} and {} have base words that a prompt can not tell apart, \"{}\" and \"{}\": \
                 leave one of them out",
                paths[first], paths[second], words[first], words[second]
            )));
        }
        Ok(())
    }

    /// A prompt in which these actors act, as places among all of them, and no others.
    pub fn scene_of(&self, job: &SampleJob, prompt: String, acting: Vec<usize>) -> Scene {
        let words = acting.iter().flat_map(|&i| &self.0[i].facts.base_words);
        let words = words.cloned().collect();
        self.scene_with(job, prompt, words, acting)
    }

    /// A prompt with these words of the actors that act.
    fn scene_with(
        &self,
        job: &SampleJob,
        prompt: String,
        words: Vec<String>,
        acting: Vec<usize>,
    ) -> Scene {
        let acting_members: Vec<&Member> = acting.iter().map(|&i| &self.0[i]).collect();
        let has_place = |member: &&&Member| member.kind != SubjectKind::Style;
        let is_placed = |word: &String| {
            let mut owners = acting_members.iter().filter(has_place);
            owners.any(|member| member.facts.base_words.contains(word))
        };
        let placed: Vec<bool> = words.iter().map(is_placed).collect();
        Scene {
            has_masks: match job.subject_masks {
                SubjectMasks::Auto => acting_members.iter().filter(has_place).count() > 1,
                SubjectMasks::On => placed.contains(&true),
                SubjectMasks::Off => false,
            },
            placed,
            identifier: acting_members
                .iter()
                .find_map(|member| member.identifier.clone()),
            words,
            prompt,
            acting,
        }
    }

    /// Warns of actors that were tuned with other LoRAs than those that are merged now.
    pub fn check_loras(&self, model: &LocatedModel, reporter: &Reporter) {
        for member in &self.0 {
            let what = format!("the actor {}", member.path.display());
            model.check_loras(&member.facts, &what, reporter);
        }
    }

    /// CRC-32 of each file as it was read here.
    pub fn checksums(&self) -> Vec<(PathBuf, String)> {
        let of_member = |member: &Member| (member.path.clone(), member.crc32.clone());
        self.0.iter().map(of_member).collect()
    }

    /// The prompt of the first one's base images.
    pub fn base_prompt(&self) -> Option<&str> {
        self.0.first().map(|member| &*member.facts.prompt)
    }

    /// The name of the actors' model.
    pub fn model(&self) -> Option<&str> {
        self.0.first().map(|member| &*member.facts.model.name)
    }

    /// The file that is merged into the model, where a method tunes the model itself.
    pub fn tuned_lora(&self) -> Option<PathBuf> {
        let mut members = self.0.iter();
        let tuned = members.find(|member| member.identifier.is_some());
        tuned.map(|member| member.path.clone())
    }

    /// All base words.
    fn words(&self) -> Vec<&String> {
        self.0
            .iter()
            .flat_map(|member| &member.facts.base_words)
            .collect()
    }

    /// The job's prompts with `[b]` filled in, each with the actors that it names.
    ///
    /// # Errors
    /// When an actor is to guide and a prompt names none.
    pub fn scenes(&self, job: &SampleJob) -> Result<Vec<Scene>> {
        let prompts = job.prompts.iter();
        prompts.map(|prompt| self.scene(prompt, job)).collect()
    }

    fn scene(&self, prompt: &str, job: &SampleJob) -> Result<Scene> {
        let words = self.words();
        let prompt = self.filled(prompt, job)?;
        let text = job.drawing.prompt_options.plain_text(&prompt)?;
        if let ([word], false) = (&words[..], job.guidance.no_actor) {
            require_word(&text, word)?;
        }
        // Of a single actor's only word the tokenizer says what is wrong with it, if anything.
        let names = |word: &String| words.len() == 1 || !find_word(&text, word).is_empty();
        let known = if words.is_empty() {
            job.recorded_subjects.iter().collect()
        } else {
            words.clone()
        };
        let named = known.into_iter().filter(|word| names(word));
        let named: Vec<String> = named.cloned().collect();
        let mut acting = Vec::new();
        if !job.guidance.no_actor {
            let places = 0..self.0.len();
            acting = places
                .filter(|&i| self.0[i].facts.base_words.iter().any(names))
                .collect();
            if acting.is_empty() {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                return Err(usage(format!(
                    "the prompt \"{prompt}\" names none of the subjects: write at least one of the \
                     base words {}",
                    words.join(", ")
                )));
            }
            if named.len() > MOST_WORDS {
                return Err(usage(format!(
                    "the prompt \"{prompt}\" names {} subjects, expected at most {MOST_WORDS}",
                    named.len()
                )));
            }
        }
        Ok(self.scene_with(job, prompt, named, acting))
    }

    /// The prompt with `[b]` filled in, which must be of a single base word.
    fn filled(&self, prompt: &str, job: &SampleJob) -> Result<String> {
        if !prompt.contains(PLACEHOLDER) {
            return Ok(prompt.to_owned());
        }
        match (&self.0[..], &self.words()[..]) {
            ([member], [word]) => {
                let stands_for = match job.subject_as {
                    SubjectAs::Word => word,
                    SubjectAs::Phrase => subject_phrase(&member.facts.prompt, word),
                };
                let literal = job.drawing.prompt_options.literal(stands_for);
                Ok(fill_in(prompt, &literal))
            }
            ([], _) => Err(usage(format!(
                "the prompt \"{prompt}\" has {PLACEHOLDER}, which stands for the base word of \
                 an actor: name the actor, or write the word itself"
            ))),
            (_, words) => Err(usage(format!(
                "the prompt \"{prompt}\" has {PLACEHOLDER}, which stands for one base word, and \
                 there are {}: write the words themselves",
                words.len()
            ))),
        }
    }

    /// What guided pictures of this scene are told about their actors: the files among the settings,
    /// their CRC-32 among the sources.
    pub fn record(&self, scene: &Scene, settings: &mut Settings, sources: &mut Settings) {
        let acting: Vec<&Member> = scene.acting.iter().map(|&i| &self.0[i]).collect();
        let paths: Vec<&Path> = acting.iter().map(|member| &*member.path).collect();
        settings.insert("actors".to_owned(), json!(paths));
        let sums: Value = match &acting[..] {
            [member] => json!(member.crc32),
            members => members.iter().map(|member| &*member.crc32).collect(),
        };
        sources.insert("actor_crc32".to_owned(), sums);
    }
}
