//! The files of a model: in a folder, on the hub, in the binary (`toy`), or in a single file.
//!
//! All models have diffusers' layout or are presented in it: `model_index.json` and a folder for
//! each component. Weights are safetensors; pickled weights are refused, because reading them runs
//! code.

mod needed;
mod unused;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::blob::Blob;
use super::config_file::{ConfigFile, Notes, from_json};
use super::hub::{HubRepo, HubSettings, files_under, is_repository_id};
use super::lora::LoraSet;
use super::model_layout::{
    candidates, check_folder, check_not_a_pointer, file_ending, is_pickled, join, no_model_file,
    no_such_model, variant_of,
};
use super::single_file::SingleFile;
use super::toy;
use crate::error::{model, usage};
use crate::wording::nearest_above;

pub use super::model_layout::{TOY, way_to_hub_file};
pub use super::needed_file::NeededFile;
pub use needed::Needs;
use unused::UnusedKeys;

/// Which model to use, and how to get its files.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// A repository of the hub (`owner/name`), a folder, a checkpoint in one file, or `toy`.
    pub model: String,
    /// Weights to prefer, such as `fp16`; a component without such weights uses its plain ones.
    pub variant: Option<String>,
    /// Branch, tag or commit of the repository; `main` when `None`.
    pub revision: Option<String>,
    /// Whether to stay off the network.
    pub offline: bool,
}

/// The files of one model. Files of the hub are fetched when they are needed.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    name: String,
    variant: Option<String>,
    source: ModelSource,
    loras: Rc<LoraSet>,
    notes: Notes,
    unused: UnusedKeys,
    is_outline: bool,
}

#[derive(Clone, Debug)]
enum ModelSource {
    Toy,
    Folder(PathBuf),
    Single(Box<SingleFile>),
    Hub(Box<HubRepo>),
}

impl ModelFiles {
    /// Finds the model, with the hub's settings from the environment.
    ///
    /// # Errors
    /// As [`ModelFiles::locate_with`], and when the environment's settings are not valid.
    pub fn locate(options: &ModelOptions) -> Result<Self> {
        Self::locate_with(options, &|| HubSettings::from_env(options.offline))
    }

    /// Finds the model. The hub's settings are only read for a repository.
    ///
    /// # Errors
    /// When the name is neither `toy` nor a folder nor possibly a repository, when the folder is
    /// not a model's, when an option does not fit, and when the repository's revision cannot be
    /// found.
    pub fn locate_with(
        options: &ModelOptions,
        settings: &dyn Fn() -> Result<HubSettings>,
    ) -> Result<Self> {
        let name = options.model.as_str();
        if let Some(variant) = &options.variant {
            check_variant(variant)?;
        }
        let path = Path::new(name);
        let source = if name == TOY {
            ModelSource::Toy
        } else if path.is_dir() {
            check_folder(path)?;
            ModelSource::Folder(path.to_path_buf())
        } else if path.is_file() && name.ends_with(".safetensors") {
            ModelSource::Single(Box::new(SingleFile::open(path)?))
        } else if path.exists() {
            return Err(no_model_file(name));
        } else if !is_repository_id(name) || file_ending(name).is_some() {
            return Err(no_such_model(name));
        } else {
            let mut settings = settings()?;
            if options.offline && settings.offline.is_none() {
                settings.offline = Some("the option offline");
            }
            ModelSource::Hub(Box::new(HubRepo::open(
                &settings,
                name,
                options.revision.as_deref(),
            )?))
        };
        if let (Some(revision), false) = (&options.revision, matches!(source, ModelSource::Hub(_)))
        {
            return Err(usage(format!(
                "revision `{revision}` was given for {name}, which is not a repository of the hub: leave the revision out"
            )));
        }
        let files = Self {
            name: name.to_owned(),
            variant: options.variant.clone(),
            source,
            loras: Rc::default(),
            notes: Notes::default(),
            unused: UnusedKeys::default(),
            is_outline: false,
        };
        files.check_variant_exists()?;
        Ok(files)
    }

    /// Adds LoRA files, each with its scale. They are merged into the networks when these are read.
    ///
    /// # Errors
    /// As [`LoraSet::open`].
    pub fn add_loras(&mut self, files: &[(&Path, f64)]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let mut components = vec!["unet", "text_encoder"];
        if self.optional_text("text_encoder_2/config.json")?.is_some() {
            components.push("text_encoder_2");
        }
        self.loras = Rc::new(LoraSet::open(files, &components, &self.notes)?);
        Ok(())
    }

    /// The same files with the headers of the weights alone, see [`Blob::Outline`]. A network built
    /// from them computes nothing, but is refused wherever the real network would be. No weights
    /// are fetched.
    pub fn outlined(&self) -> Self {
        Self {
            is_outline: true,
            ..self.clone()
        }
    }

    /// The LoRAs that were added.
    pub fn loras(&self) -> &Rc<LoraSet> {
        &self.loras
    }

    /// Keeps a note for the user about these files.
    pub fn note(&self, note: String) {
        self.notes.add(note);
    }

    /// Takes the notes that were added since the last call; the caller shows them.
    pub fn take_notes(&self) -> Vec<String> {
        let mut notes = self.notes.take();
        notes.extend(self.unused.take_note(&self.name));
        notes
    }

    /// Adds tensors that a network did not need. One note names those of all networks that were
    /// read.
    pub fn note_unused(&self, keys: &[String]) {
        let strangers = match &self.source {
            ModelSource::Single(file) => file.strangers(),
            ModelSource::Toy | ModelSource::Folder(_) | ModelSource::Hub(_) => &[],
        };
        self.unused.add(keys, strangers);
    }

    /// Adds a note about unused tensors in a file of this model that has its own name.
    pub fn note_unused_of(&self, file: &str, keys: &[String]) {
        unused::note(file, keys)
            .into_iter()
            .for_each(|note| self.note(note));
    }

    /// The model as the user named it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The commit, for a repository of the hub.
    pub fn revision(&self) -> Option<&str> {
        match &self.source {
            ModelSource::Hub(repo) => Some(repo.commit()),
            ModelSource::Toy | ModelSource::Folder(_) | ModelSource::Single(_) => None,
        }
    }

    /// The content of a text file, such as `unet/config.json`.
    ///
    /// # Errors
    /// When the model has no such file, or the file cannot be fetched or read, or is not UTF-8.
    pub fn text(&self, path: &str) -> Result<String> {
        match self.optional_text(path)? {
            Some(text) => Ok(text),
            None => Err(self.missing(path)),
        }
    }

    /// A config file of the model, such as `unet/config.json`.
    ///
    /// # Errors
    /// As [`ModelFiles::text`], and when the file is not a JSON object; the message names it.
    pub fn config(&self, path: &str) -> Result<ConfigFile> {
        ConfigFile::parse(path, &self.text(path)?, self.notes.clone())
            .with_context(|| self.name.clone())
    }

    /// As [`ModelFiles::text`], but `None` for a file that the model does not have.
    ///
    /// # Errors
    /// When the file exists and cannot be fetched or read, or is not UTF-8.
    pub fn optional_text(&self, path: &str) -> Result<Option<String>> {
        if let ModelSource::Single(file) = &self.source {
            return file.text(path);
        }
        if self.find(&[path.to_owned()])?.is_none() {
            return Ok(None);
        }
        let text = self.fetch(path)?.read_text();
        text.map(Some)
            .map_err(|error| model(format!("{error:#} (model {})", self.name)))
    }

    /// The safetensors files of a component (`unet`; `""` for a model that is a single component):
    /// one file, or the shards that its index names.
    ///
    /// The wanted variant is preferred to the plain weights.
    ///
    /// # Errors
    /// When there are no weights, when there are only pickled ones or another variant's, or when
    /// they cannot be fetched.
    pub fn weights(&self, component: &str) -> Result<Vec<Blob>> {
        if let ModelSource::Single(file) = &self.source {
            let found = file.weights(component).map(|blob| vec![self.seen(blob)]);
            return found.ok_or_else(|| self.no_weights(component));
        }
        let (_, names) = self.weight_names(component)?;
        names.iter().map(|name| self.weights_in(name)).collect()
    }

    /// Whether a component's weights are on this machine, so that [`ModelFiles::weights`] fetches nothing.
    ///
    /// # Errors
    /// When there are no weights.
    pub fn has_weights(&self, component: &str) -> Result<bool> {
        let found = self.outlined().weights(component)?;
        Ok(!found
            .iter()
            .any(|blob| matches!(blob, Blob::Unfetched { .. })))
    }

    /// One of the files of weights.
    fn weights_in(&self, name: &str) -> Result<Blob> {
        if self.is_outline && !self.is_here(name)? {
            return Ok(Blob::Unfetched {
                name: name.to_owned(),
            });
        }
        Ok(self.seen(self.fetch(name)?))
    }

    fn seen(&self, blob: Blob) -> Blob {
        if self.is_outline {
            Blob::Outline(Box::new(blob))
        } else {
            blob
        }
    }

    /// The paths of the files with a component's weights. If there are several files, the path of
    /// their index comes first.
    fn weight_names(&self, component: &str) -> Result<(Option<String>, Vec<String>)> {
        let candidates = candidates(component, self.variant.as_deref());
        let Some(index) = self.find(&candidates)? else {
            return Err(self.no_weights(component));
        };
        let found = &candidates[index];
        if !found.ends_with(".json") {
            return Ok((None, vec![found.clone()]));
        }
        Ok((Some(found.clone()), self.shards(component, found)?))
    }

    /// A file of the model other than a component's weights, such as one adapter among several.
    ///
    /// # Errors
    /// When the model has no such file, or it cannot be fetched.
    pub fn file(&self, path: &str) -> Result<Blob> {
        self.require(path)?;
        self.weights_in(path)
    }

    /// Checks that the model has a file, without fetching it.
    ///
    /// # Errors
    /// When the model has no such file; the message names the file, and one with a similar name.
    pub fn require(&self, path: &str) -> Result<()> {
        match self.find(&[path.to_owned()])? {
            Some(_) => Ok(()),
            None => Err(self.missing(path)),
        }
    }

    /// The paths of the shards that an index names, without duplicates.
    fn shards(&self, component: &str, index: &str) -> Result<Vec<String>> {
        /// `*.safetensors.index.json`.
        #[derive(Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let index_text = self.text(index)?;
        let name = format!("{index} of {}", self.name);
        let parsed: Index = from_json(&name, &index_text).map_err(|error| {
            model(format!(
                "{error}; expected `weight_map` from tensors to files"
            ))
        })?;
        let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
        if names.is_empty() {
            return Err(model(format!("{index} of {} names no file", self.name)));
        }
        let shards: Vec<String> = names
            .into_iter()
            .map(|name| {
                let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
                if !name.chars().all(is_plain) || !name.ends_with(".safetensors") {
                    return Err(model(format!(
                        "{index} of {} names `{name}`, expected a safetensors file beside it",
                        self.name
                    )));
                }
                Ok(join(component, &name))
            })
            .collect::<Result<_>>()?;
        for shard in &shards {
            if self.find(std::slice::from_ref(shard))?.is_none() {
                return Err(model(format!(
                    "{index} names {shard}, which {} does not have: the model is incomplete: fetch or copy it again",
                    self.place()
                )));
            }
        }
        Ok(shards)
    }

    fn find(&self, names: &[String]) -> Result<Option<usize>> {
        match &self.source {
            ModelSource::Toy => Ok(names.iter().position(|name| toy::file(name).is_some())),
            ModelSource::Folder(folder) => {
                Ok(names.iter().position(|name| folder.join(name).exists()))
            }
            ModelSource::Single(_) => Ok(None),
            ModelSource::Hub(repo) => repo.find(names),
        }
    }

    fn fetch(&self, name: &str) -> Result<Blob> {
        match &self.source {
            ModelSource::Toy => toy::file(name).ok_or_else(|| self.missing(name)),
            ModelSource::Folder(folder) => {
                let path = folder.join(name);
                check_not_a_pointer(&path)?;
                Ok(Blob::File(path))
            }
            ModelSource::Single(_) => Err(self.missing(name)),
            ModelSource::Hub(repo) => Ok(Blob::File(repo.fetch(name)?)),
        }
    }

    /// The names of all known files.
    fn names(&self) -> Result<Vec<String>> {
        match &self.source {
            ModelSource::Toy => Ok(toy::names().map(str::to_owned).collect()),
            ModelSource::Folder(folder) => Ok(files_under(folder)),
            ModelSource::Single(file) => Ok(file.names()),
            ModelSource::Hub(repo) => repo.names(),
        }
    }

    /// Where the model is, for messages.
    fn place(&self) -> String {
        match &self.source {
            ModelSource::Toy => "the toy model".to_owned(),
            ModelSource::Folder(folder) => folder.display().to_string(),
            ModelSource::Single(file) => file.path().display().to_string(),
            ModelSource::Hub(repo) => repo.place(),
        }
    }

    /// What the user can do about a missing file if only the cache was searched.
    fn way_out(&self) -> &'static str {
        match &self.source {
            ModelSource::Hub(repo) if repo.is_seen_through_cache() => "; run once with the network",
            _ => "",
        }
    }

    /// A pipeline without a single file of the wanted variant is not what the user meant: twice the
    /// bytes would be fetched without a warning. A single component may lack the variant.
    fn check_variant_exists(&self) -> Result<()> {
        let Some(variant) = &self.variant else {
            return Ok(());
        };
        let has = |names: &[String]| names.iter().any(|name| variant_of(name) == Some(variant));
        if let ModelSource::Hub(repo) = &self.source
            && has(&repo.cached_names())
        {
            return Ok(());
        }
        let names = self.names()?;
        if has(&names) || !names.iter().any(|name| name == "model_index.json") {
            return Ok(());
        }
        let others: BTreeSet<&str> = names.iter().filter_map(|name| variant_of(name)).collect();
        let others = if others.is_empty() {
            "found no variant".to_owned()
        } else {
            format!(
                "found {}",
                others.into_iter().collect::<Vec<_>>().join(", ")
            )
        };
        Err(model(format!(
            "no weights of variant `{variant}` in {}: {others}; give another variant or none",
            self.place()
        )))
    }

    fn missing(&self, path: &str) -> anyhow::Error {
        let names = self.names().unwrap_or_default();
        let hint = match nearest_above(0.9, path, names.iter().map(String::as_str)) {
            Some(name) => format!("; the nearest is {name}"),
            None if path == "config.json" && names.iter().any(|n| n == "model_index.json") => {
                "; a model has one in the folder of each network, such as vae/config.json"
                    .to_owned()
            }
            None => String::new(),
        };
        model(format!(
            "no file {path} in {}{hint}{}",
            self.place(),
            self.way_out()
        ))
    }

    fn no_weights(&self, component: &str) -> anyhow::Error {
        let place = self.place();
        let names = match self.names() {
            Ok(names) => names,
            Err(error) => return error,
        };
        let prefix = join(component, "");
        let found: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix))
            .filter(|name| !name.contains('/'))
            .collect();
        let what = if component.is_empty() {
            "the network"
        } else {
            component
        };
        let variants: BTreeSet<&str> = found.iter().filter_map(|name| variant_of(name)).collect();
        if let Some(variant) = variants.first() {
            return model(format!(
                "{place} has the weights of {what} only in variant {}: set the option variant to {variant}",
                variants.iter().copied().collect::<Vec<_>>().join(", ")
            ));
        }
        let pickled: Vec<&str> = found
            .iter()
            .copied()
            .filter(|name| is_pickled(name))
            .collect();
        if !pickled.is_empty() {
            return model(format!(
                "{place} has the weights of {what} only pickled ({}): pickle is refused, because reading it runs code; use a repository or revision with safetensors, or save the weights as safetensors with diffusers",
                pickled.join(", ")
            ));
        }
        let listed = if found.is_empty() {
            "nothing".to_owned()
        } else {
            found.join(", ")
        };
        let whole = candidates(component, None)
            .into_iter()
            .find(|path| path.ends_with(".safetensors"));
        model(format!(
            "{place} has no weights of {what}: found {listed}, expected {}{}",
            whole.expect("one of them is a whole file"),
            self.way_out()
        ))
    }
}

fn check_variant(variant: &str) -> Result<()> {
    let fine = !variant.is_empty()
        && variant
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if fine {
        return Ok(());
    }
    Err(usage(format!(
        "variant `{variant}` cannot be right: expected a word such as fp16"
    )))
}
