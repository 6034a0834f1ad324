//! The actors of a job, and the actors that each prompt names.

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
use crate::wording::excerpt;

/// The most base words in one prompt.
const MOST_WORDS: usize = 32;

/// The actors of a job, with what is needed to check prompts.
pub(super) struct Actors(Vec<Member>);

/// One actor.
struct Member {
    path: PathBuf,
    facts: BaseFacts,
    kind: SubjectKind,
    crc32: String,
    /// The identifier before the base word, if the model was tuned to it (DreamBooth-LoRA).
    identifier: Option<String>,
}

/// A prompt with the actors that it names.
#[derive(Clone)]
pub(in crate::commands) struct Scene {
    /// The prompt with `[b]` filled in.
    pub prompt: String,
    /// The base words in the prompt, in the order of the actors. For a plain picture that is drawn again, the base
    /// words that it was drawn with. A long prompt is never split inside one of these words.
    pub words: Vec<String>,
    /// For each word, whether its subject has a place in the picture: a style has none.
    pub placed: Vec<bool>,
    /// The indices of the actors that the prompt names, in ascending order; empty for the plain model.
    pub acting: Vec<usize>,
    has_masks: bool,
    /// The identifier that guided pictures read before the base word.
    identifier: Option<String>,
}

impl Scene {
    /// The prompt and the job's negative prompt as the text encoders read them. For guided pictures the prompt has the
    /// identifier, if there is one.
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

    /// The words whose tokens get offsets; none for the plain model.
    pub fn guided_words(&self) -> &[String] {
        if self.acting.is_empty() {
            &[]
        } else {
            &self.words
        }
    }

    /// Whether each subject's offset acts only inside its mask. By default this is so if several actors have a place in
    /// the picture. Otherwise offsets act everywhere, also those of several subjects that were tuned together. The
    /// offset of a style always acts everywhere.
    pub fn has_masks(&self) -> bool {
        self.has_masks
    }

    /// The words whose subjects have a place in the picture, in their order. If there are masks, each of them has one.
    pub fn placed_words(&self) -> impl Iterator<Item = &String> {
        let words = self.words.iter().zip(&self.placed);
        words.filter(|(_, placed)| **placed).map(|(word, _)| word)
    }
}

impl Actors {
    /// Reads the facts of actors that may all be named in one prompt.
    ///
    /// # Errors
    /// When a file cannot be read, or two actors belong to different models or have base words that cannot be told
    /// apart.
    pub fn read(paths: &[PathBuf], method: Method) -> Result<Self> {
        let actors = Self::read_apart(paths, method)?;
        actors.refuse_overlaps()?;
        Ok(actors)
    }

    /// Reads the facts of actors, if each scene lists its actors (in a story).
    ///
    /// # Errors
    /// When a file cannot be read, or two actors belong to different models.
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
                    format!("actors in one picture must belong to the same model, here to that of {first}")
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
                "{} and {} have base words that cannot be told apart in a prompt, \"{}\" and \"{}\": \
                 leave one of the two actors out",
                paths[first], paths[second], words[first], words[second]
            )));
        }
        Ok(())
    }

    /// The scene of a prompt in which exactly the actors with the indices `acting` act.
    pub fn scene_of(&self, job: &SampleJob, prompt: String, acting: Vec<usize>) -> Scene {
        let words = acting.iter().flat_map(|&i| &self.0[i].facts.base_words);
        let words = words.cloned().collect();
        self.scene_with(job, prompt, words, acting)
    }

    /// The scene of a prompt with these base words of the actors `acting`.
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

    /// Warns of actors that were tuned with other LoRAs than the ones that are merged now.
    pub fn check_loras(&self, model: &LocatedModel, reporter: &Reporter) {
        for member in &self.0 {
            let what = format!("the actor {}", member.path.display());
            model.check_loras(&member.facts, &what, reporter);
        }
    }

    /// CRC-32 of each actor's file when it was read.
    pub fn checksums(&self) -> Vec<(PathBuf, String)> {
        let of_member = |member: &Member| (member.path.clone(), member.crc32.clone());
        self.0.iter().map(of_member).collect()
    }

    /// The facts of each actor's base images, with the name of the actor for messages.
    pub fn made_before(&self, method: Method) -> Vec<(String, BaseFacts)> {
        let what = if method == Method::Oneactor {
            "the actor"
        } else {
            "the subject"
        };
        let of_member = |member: &Member| {
            let name = format!("{what} {}", member.path.display());
            (name, member.facts.clone())
        };
        self.0.iter().map(of_member).collect()
    }

    /// The prompt of the first actor's base images.
    pub fn base_prompt(&self) -> Option<&str> {
        self.0.first().map(|member| &*member.facts.prompt)
    }

    /// The name of the actors' model.
    pub fn model(&self) -> Option<&str> {
        self.0.first().map(|member| &*member.facts.model.name)
    }

    /// The file that is merged into the model, if the method tunes the model itself.
    pub fn tuned_lora(&self) -> Option<PathBuf> {
        let mut members = self.0.iter();
        let tuned = members.find(|member| member.identifier.is_some());
        tuned.map(|member| member.path.clone())
    }

    /// The base words of all actors.
    fn words(&self) -> Vec<&String> {
        self.0
            .iter()
            .flat_map(|member| &member.facts.base_words)
            .collect()
    }

    /// The job's prompts with `[b]` filled in, each with the actors that it names.
    ///
    /// # Errors
    /// When actors are to guide and a prompt names none of them.
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
        // A single base word counts as named: if the prompt lacks it, the tokenizer's error says what is wrong.
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
                    "the prompt \"{}\" names none of the subjects: write at least one of the \
                     base words {}",
                    excerpt(&prompt),
                    words.join(", ")
                )));
            }
            if named.len() > MOST_WORDS {
                return Err(usage(format!(
                    "the prompt \"{}\" names {} subjects, expected at most {MOST_WORDS}",
                    excerpt(&prompt),
                    named.len()
                )));
            }
        }
        Ok(self.scene_with(job, prompt, named, acting))
    }

    /// The prompt with `[b]` filled in. A prompt may have `[b]` only if the job has one actor with one base word.
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
                "the prompt \"{}\" has {PLACEHOLDER}, which stands for the base word of \
                 an actor, but there is no actor: name the actor, or write the word itself",
                excerpt(prompt)
            ))),
            (_, words) => Err(usage(format!(
                "the prompt \"{}\" has {PLACEHOLDER}, which stands for one base word, but \
                 the actors have {}: write the words themselves",
                excerpt(prompt),
                words.len()
            ))),
        }
    }

    /// Records the actors of guided pictures of this scene: their files in the settings, the CRC-32 of these in the
    /// sources.
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
