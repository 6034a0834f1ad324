//! A checked story: characters, and the scenes in which they appear.
//!
//! The whole story file is checked before anything is drawn, except what depends on the model or on existing actors.

/// Declares an object of the story file: a struct that is read from it, and the list of its keys.
macro_rules! object {
    ($(#[$of_object:meta])* struct $Object:ident { $($key:ident: $type:ty,)* }) => {
        $(#[$of_object])*
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $Object {
            $($key: $type,)*
        }

        impl $Object {
            fn keys() -> Keys {
                let keys = [$(stringify!($key)),*];
                keys.into_iter().map(|key| (key.to_owned(), Vec::new())).collect()
            }
        }
    };
}

mod scenes;
mod style;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::{self, Settings, check_settings, describe};
use super::sample::actor;
use super::{DrawingJob, GenerateBaseJob, ModelJob, SampleJob, TuneJob, check, layers};
use crate::cli::sample::GuidanceFlags;
use crate::cli::{
    AxisFlags, ControlFlags, Declared, DrawingFlags, GenerateBaseFlags, Method, ModelFlags,
    SampleFlags, StoryFlags, Target, TuneFlags, keys_of,
};
use crate::error::usage;
use crate::records::StoryFolder;
use scenes::{MOST_SCENES, check_names, scenes};
use style::Style;

pub use scenes::{StoryScene, fill_in_names};

/// A checked story.
#[derive(Debug)]
pub struct StoryJob {
    /// The story file, as named by the user.
    pub file: PathBuf,
    /// The heading of the story's page.
    pub title: String,
    /// The language of title and captions, BCP 47.
    pub language: String,
    /// The characters that appear in a scene, in the order of their first scenes; then the style, if there is
    /// one, which acts in every scene.
    pub characters: Vec<Character>,
    /// Names of the characters that appear in no scene.
    pub unused: Vec<String>,
    /// The scenes, at least one.
    pub scenes: Vec<StoryScene>,
    /// How the scenes are drawn. The actors are those of `characters` and may not exist yet. The prompts
    /// contain the characters' names in place of their base words.
    pub sample: SampleJob,
}

/// A person or thing that looks the same in every scene.
#[derive(Debug)]
pub struct Character {
    /// The character's name in the prompts of scenes.
    pub name: String,
    /// The source of the character's actor.
    pub origin: CharacterSource,
    /// Whether this is the story's style instead of a character.
    pub is_style: bool,
}

impl Character {
    /// The character's name in messages.
    pub fn title(&self) -> String {
        if self.is_style {
            "the style".to_owned()
        } else {
            format!("character `{}`", self.name)
        }
    }

    /// The actor's file. An actor that is made for the story lies in the folder of the results.
    fn actor(&self) -> PathBuf {
        match &self.origin {
            CharacterSource::Actor(path) => path.clone(),
            CharacterSource::Described(made) => made.tune.results().result(),
        }
    }
}

/// The source of a character's actor.
#[derive(Debug)]
pub enum CharacterSource {
    /// The file of an actor that was tuned before.
    Actor(PathBuf),
    /// An actor that is drawn and tuned for the story.
    Described(Box<Description>),
}

/// The jobs that make an actor.
#[derive(Debug)]
pub struct Description {
    /// Draws base images.
    pub base: GenerateBaseJob,
    /// Tunes on one of them.
    pub tune: TuneJob,
}

object! {
    /// The keys of a story file, without those of the model.
    struct StoryObject {
        title: Option<String>,
        language: Option<String>,
        characters: Option<Settings>,
        style: Option<Value>,
        scenes: Option<Vec<Value>>,
        drawing: Option<Settings>,
    }
}

object! {
    /// A character that was tuned before.
    struct ActorObject {
        actor: Option<PathBuf>,
    }
}

/// Keys with their aliases, in the form that `batch` takes.
type Keys = Vec<(String, Vec<String>)>;

impl StoryJob {
    /// Reads the story file and checks it and the flags.
    ///
    /// # Errors
    /// Names the flag or the place in the file, the value found and the value expected.
    pub fn check(flags: &StoryFlags) -> Result<Self> {
        let file = check::required("STORY.json", "the file of the story", &flags.story)?;
        let output_dir = check::required(
            "--output-dir",
            "the folder for the results",
            &flags.output_dir,
        )?;
        check::folder("--output-dir", &output_dir)?;
        // Errors in the flags are found first, because they are not errors of the file.
        DrawingJob::check(&flags.drawing, flags.guidance_scale, MOST_SCENES)?;
        ModelJob::check(&flags.model)?;
        let root = batch::read_json(&file, "story file")?;
        Self::parse(root, flags, &file, &output_dir)
            .with_context(|| format!("story file {}", file.display()))
    }

    /// The seed of scene `i`: the scene's own seed, or else the first seed plus `i`.
    pub fn seed(&self, i: usize) -> i64 {
        let following = self.sample.drawing.seed + i as i64;
        self.scenes[i].seed.unwrap_or(following)
    }

    /// The story in the JSON of `file`, with its results in `output_dir`.
    ///
    /// # Errors
    /// Names the place in the file, the value found and the value expected.
    pub fn parse(root: Value, flags: &StoryFlags, file: &Path, output_dir: &Path) -> Result<Self> {
        let Value::Object(root) = root else {
            let found = describe(&root);
            return Err(usage(format!(
                "found {found}, expected {{\"title\": …, \"characters\": {{…}}, \"scenes\": […]}}"
            )));
        };
        if root.contains_key("jobs") {
            return Err(usage(
                "this is a batch file (it has the key `jobs`), expected a story: give it to its command with --config",
            ));
        }
        refuse_control(&root)?;
        let known = [StoryObject::keys(), keys_of::<ModelFlags>()].concat();
        check_settings::<StoryObject>(&root, &known)?;
        check_settings::<ModelFlags>(&root, &known)?;
        let story: StoryObject = layers::read(root.clone())?;
        let title = text("title", story.title)?;
        let language = language(story.language)?;
        let drawing = story.drawing.unwrap_or_default();
        let guidance = [AxisFlags::settings(), GuidanceFlags::settings()].concat();
        let plain = guidance.iter().filter(|setting| setting.replaces_actor);
        let plain: Vec<&str> = plain.map(|setting| setting.key).collect();
        let guidance = [keys_of::<AxisFlags>(), keys_of::<GuidanceFlags>()].concat();
        let keys = [keys_of::<DrawingFlags>(), without(guidance, &plain)].concat();
        let keys = without(keys, &["overwrite"]);
        refuse_control(&drawing).context("`drawing`")?;
        check_settings::<SampleFlags>(&drawing, &keys).context("`drawing`")?;

        let described = story.characters.unwrap_or_default();
        let names: Vec<&str> = described.keys().map(String::as_str).collect();
        check_names(&names)?;
        let style = story.style.map(|value| Style::read(value, &names));
        let style = style.transpose()?;
        let phrase = style.as_ref().map(|style| &*style.phrase);
        let list = story.scenes.unwrap_or_default();
        let (mut scenes, order) = scenes(&list, &names, phrase)?;
        let model = layers::layered(&[
            &layers::settings(&flags.model)?,
            &only(&root, &keys_of::<ModelFlags>()),
        ]);
        let maker = Maker {
            flags,
            output_dir,
            drawing,
            model,
        };
        let check = |name: &str| {
            let place = || format!("character `{name}`");
            let folder = StoryFolder(output_dir).character(name);
            maker
                .check(name, &described[name], folder)
                .with_context(place)
        };
        // Characters that appear in no scene are checked too, and then left out.
        let (mut characters, mut unused) = (Vec::new(), Vec::new());
        for (i, name) in names.iter().enumerate() {
            let character = check(name)?;
            if order.contains(&i) {
                characters.push((order.iter().position(|&j| j == i), character))
            } else {
                unused.push((*name).to_owned())
            }
        }
        characters.sort_by_key(|(place, _)| *place);
        let mut characters: Vec<Character> = characters.into_iter().map(|(_, c)| c).collect();
        if let Some(style) = style {
            let place = characters.len();
            scenes.iter_mut().for_each(|scene| scene.cast.push(place));
            characters.push(style.check(&maker)?);
        }
        let sample = maker.sample_job(&scenes, &characters)?;
        Ok(Self {
            file: file.to_owned(),
            title,
            language,
            characters,
            unused,
            scenes,
            sample,
        })
    }
}

/// Combines the settings of flags, file and character.
struct Maker<'a> {
    flags: &'a StoryFlags,
    output_dir: &'a Path,
    /// The file's `drawing`.
    drawing: Settings,
    model: Settings,
}

impl Maker<'_> {
    /// A character. If the file describes it, its actor is made in `folder`.
    fn check(&self, name: &str, value: &Value, folder: PathBuf) -> Result<Character> {
        let character = |origin| Character {
            name: name.to_owned(),
            origin,
            is_style: false,
        };
        let Value::Object(settings) = value else {
            return Err(usage(format!(
                "found {}, expected an object: {{\"actor\": …}} or {{\"prompt\": …, \"subject\": …}}",
                describe(value)
            )));
        };
        let keys = description_keys();
        check_settings::<ActorObject>(settings, &[ActorObject::keys(), keys].concat())?;
        let tuned: ActorObject = layers::read(only(settings, &ActorObject::keys()))?;
        if let Some(path) = tuned.actor {
            if let Some(key) = settings.keys().find(|key| *key != "actor") {
                return Err(usage(format!(
                    "found `actor` and `{key}`, expected one of them: an existing actor has its own settings"
                )));
            }
            return Ok(character(CharacterSource::Actor(actor(
                &path,
                Method::Oneactor,
            )?)));
        }
        if !settings.contains_key("prompt") {
            return Err(usage(
                "key `prompt` is missing: expected `actor`, or `prompt` and `subject`",
            ));
        }
        let made = self.description(settings, &folder)?;
        Ok(character(CharacterSource::Described(Box::new(made))))
    }

    fn description(&self, settings: &Settings, folder: &Path) -> Result<Description> {
        check_settings::<GenerateBaseFlags>(settings, &description_keys())?;
        check_settings::<TuneFlags>(settings, &description_keys())?;
        let mut flags = layers::settings(self.flags)?;
        // The seed in the flags and in `drawing` belongs to the first scene.
        let mut drawing = only(&self.drawing, &drawing_keys());
        flags.remove("seed");
        drawing.remove("seed");
        let top = Settings::from_iter([("output_dir".to_owned(), json!(folder))]);
        // `micro_batch` and `batch_size` are two names of one setting of `tune`; `generate-base` has only
        // `batch_size`.
        let mut of_base = settings.clone();
        of_base.remove("micro_batch");
        let base = layers::layered(&[&top, &flags, &of_base, &drawing, &self.model]);
        let base = GenerateBaseJob::check(&layers::read(base)?)?;
        if base.subjects.len() != 1 {
            return Err(usage(format!(
                "key `subject`: found {} base words, expected one: make each subject a separate character",
                base.subjects.len()
            )));
        }
        let top = Settings::from_iter([("dir".to_owned(), json!(folder))]);
        let rows = drawing.get("batch_size").cloned();
        let rows = Settings::from_iter(rows.map(|rows| ("batch_size".to_owned(), rows)));
        let mut of_tune = settings.clone();
        if settings.contains_key("micro_batch") {
            of_tune.remove("batch_size");
            flags.remove("batch_size");
        }
        let tune = layers::layered(&[&top, &flags, &of_tune, &rows, &self.model]);
        let tune = TuneJob::check(&layers::read(tune)?)?;
        if tune.method != Method::Oneactor {
            return Err(usage(format!(
                "key `method`: found {}, expected oneactor, because a story is drawn with actors",
                tune.method.name()
            )));
        }
        check_counts(&tune, base.num_images)?;
        Ok(Description { base, tune })
    }

    fn sample_job(&self, scenes: &[StoryScene], characters: &[Character]) -> Result<SampleJob> {
        let mut flags = layers::settings(&self.flags.drawing)?;
        if let Some(scale) = self.flags.guidance_scale {
            flags.insert("guidance_scale".to_owned(), json!(scale));
        }
        let prompts: Vec<&str> = scenes.iter().map(|scene| &*scene.prompt).collect();
        flags.insert("prompt".to_owned(), json!(prompts));
        flags.insert("output_dir".to_owned(), json!(self.output_dir));
        let flags: SampleFlags =
            layers::read(layers::layered(&[&flags, &self.drawing, &self.model]))?;
        let actors = characters.iter().map(Character::actor);
        SampleJob::check_with(&flags, || Ok(actors.collect()))
    }
}

/// Refuses the keys of ControlNets for scenes, because each scene would need its own control image. Base images
/// may have ControlNets.
fn refuse_control(settings: &Settings) -> Result<()> {
    let keys = keys_of::<ControlFlags>();
    match settings
        .keys()
        .find(|key| keys.iter().any(|(known, _)| known == *key))
    {
        Some(key) => Err(usage(format!(
            "key `{key}`: scenes of a story cannot use ControlNets. Leave out the key, and draw such a picture \
            with `oneactor sample` and the story's actors, which are in the folders characters/NAME"
        ))),
        None => Ok(()),
    }
}

/// Checks the counts that `tune` would check only after the base images are drawn.
fn check_counts(tune: &TuneJob, num_images: usize) -> Result<()> {
    if let Target::Index(index) = tune.target {
        let last = num_images as i64 - 1;
        check::whole("--target", index, 0..=last).context(format!(
            "the story draws {num_images} base images (`num_images`)"
        ))?;
    }
    match tune.num_auxiliary {
        Some(count) if count >= num_images => Err(usage(format!(
            "--num-auxiliary: found {count}, expected at most {}, because one of the {num_images} base images \
            (`num_images`) is the target",
            num_images - 1
        ))),
        _ => Ok(()),
    }
}

/// The keys of drawing and the guidance scale.
fn drawing_keys() -> Keys {
    let of_command = keys_of::<GenerateBaseFlags>().into_iter();
    let scale = of_command.filter(|(key, _)| key == "guidance_scale");
    keys_of::<DrawingFlags>().into_iter().chain(scale).collect()
}

/// The keys of a character that is drawn and tuned: those of `generate-base` and `tune`, except folder and
/// model, which the story sets.
fn description_keys() -> Keys {
    let mut keys = keys_of::<GenerateBaseFlags>();
    for key in keys_of::<TuneFlags>() {
        if !keys.iter().any(|(known, _)| *known == key.0) {
            keys.push(key);
        }
    }
    let model = keys_of::<ModelFlags>();
    keys.retain(|key| !model.contains(key));
    without(keys, &["output_dir", "dir", "overwrite"])
}

/// The text of a required key.
fn text(key: &str, value: Option<String>) -> Result<String> {
    let found = match value {
        None => "nothing",
        Some(text) if text.trim().is_empty() => "an empty text",
        Some(text) => return Ok(text),
    };
    Err(usage(format!(
        "key `{key}`: found {found}, expected some text"
    )))
}

/// The language tag of the page, which screen readers and hyphenation use; English by default.
fn language(tag: Option<String>) -> Result<String> {
    let Some(tag) = tag else {
        return Ok("en".to_owned());
    };
    let is_part = |part: &str| {
        (1..=8).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let first = tag.split('-').next().unwrap_or_default();
    if tag.split('-').all(is_part) && first.chars().all(|c| c.is_ascii_alphabetic()) {
        Ok(tag)
    } else {
        Err(usage(format!(
            "key `language`: found \"{tag}\", expected a language tag such as \"en\", \"de\" or \
             \"pt-BR\""
        )))
    }
}

fn without(mut keys: Keys, names: &[&str]) -> Keys {
    keys.retain(|(key, _)| !names.contains(&key.as_str()));
    keys
}

/// The settings with these keys.
fn only(settings: &Settings, keys: &Keys) -> Settings {
    let mut settings = settings.clone();
    settings.retain(|key, _| keys.iter().any(|(known, _)| known == key));
    settings
}
