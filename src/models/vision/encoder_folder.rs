//! A folder in Hugging Face's layout that holds one encoder of pictures: `config.json`, `preprocessor_config.json` or
//! `processor_config.json`, `model.safetensors`.

use anyhow::{Context, Result};
use tch::{Device, Kind};

use crate::io::config_file::ConfigFile;
use crate::io::finite_scan::FiniteScan;
use crate::io::model_files::{ModelFiles, NeededFile, Needs};
use crate::io::weights::{WeightPath, Weights};
use crate::tokenizer;

/// The folder among a model's files.
#[derive(Clone, Copy, Debug)]
pub struct EncoderFolder<'a> {
    /// All files.
    pub files: &'a ModelFiles,
    /// Its path among them; empty where the files are the encoder's alone.
    pub path: &'a str,
}

/// Tensors of a checkpoint that are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unused<'a> {
    /// Ends of keys.
    pub endings: &'a [&'a str],
    /// Whole modules.
    pub modules: &'a [&'a str],
}

impl EncoderFolder<'_> {
    fn path_of(&self, name: &str) -> String {
        match self.path {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        }
    }

    /// A config file.
    ///
    /// # Errors
    /// When it is missing, or no JSON object.
    pub fn config(&self, name: &str) -> Result<ConfigFile> {
        self.files.config(&self.path_of(name))
    }

    /// The files that it is read from, those of a tokenizer too where it has one.
    ///
    /// # Errors
    /// When one is missing, or the hub can not be asked.
    pub fn needed(&self) -> Result<Vec<NeededFile>> {
        let mut needs = Needs::of(self.files);
        needs.require(&self.path_of("config.json"))?;
        for name in [PROCESSOR, PREPROCESSOR] {
            needs.take(&self.path_of(name))?;
        }
        tokenizer::folder::take(&mut needs, self.path)?;
        needs.weights(self.path)?;
        Ok(needs.found)
    }

    /// The network that `new` makes of the weights, all of whose values have been looked at.
    ///
    /// # Errors
    /// When the weights are missing, damaged, do not fit, or hold a value that is not finite.
    pub fn network<T>(
        &self,
        (device, kind): (Device, Kind),
        unused: Unused,
        new: impl Fn(&WeightPath) -> Result<T>,
    ) -> Result<T> {
        let name = self.files.name();
        let weights = Weights::open(&self.files.weights(self.path)?, device, kind)?;
        for ending in unused.endings {
            weights.allow_unused(ending);
        }
        for module in unused.modules {
            weights.allow_unused_below(module);
        }
        let network = new(&weights.root()).with_context(|| format!("loading {name}"))?;
        let read = weights.finish()?;
        let scanned = FiniteScan::start(read.values).wait();
        scanned.with_context(|| format!("checking the weights of {name}"))?;
        self.files.note_unused(&read.unused);
        Ok(network)
    }

    /// How pictures are prepared, which `read` makes of the settings; `None` where the folder does not say it.
    ///
    /// As in transformers, the settings are those in the `image_processor` of `processor_config.json`, in which
    /// transformers 5 saves them; without that, those of `preprocessor_config.json`.
    ///
    /// # Errors
    /// When a file is damaged, or asks for what is not computed here.
    pub fn processor<T>(&self, read: impl Fn(&ConfigFile) -> Result<T>) -> Result<Option<T>> {
        let optional = |name: &str| {
            let is_there = self.files.optional_text(&self.path_of(name))?.is_some();
            is_there.then(|| self.config(name)).transpose()
        };
        let inside = optional(PROCESSOR)?.filter(|file| file.get(INSIDE).is_some());
        let settings = match inside {
            Some(file) => Some(file.part(INSIDE)?),
            None => optional(PREPROCESSOR)?,
        };
        let name = self.files.name();
        let processor = settings.map(|file| read(&file).with_context(|| format!("loading {name}")));
        processor.transpose()
    }

    /// The same where the folder must say it.
    ///
    /// # Errors
    /// As above, and when the settings are missing.
    pub fn required_processor<T>(&self, read: impl Fn(&ConfigFile) -> Result<T>) -> Result<T> {
        if let Some(processor) = self.processor(read)? {
            return Ok(processor);
        }
        let missing = self.files.require(&self.path_of(PREPROCESSOR));
        let missing =
            missing.context("how pictures are prepared stands in it or in processor_config.json");
        Err(missing.expect_err("it is read where it is there"))
    }
}

/// The settings of a processor's parts in one, from transformers 5 on.
const PROCESSOR: &str = "processor_config.json";
/// Those of pictures in it.
const INSIDE: &str = "image_processor";
/// The settings of pictures alone.
const PREPROCESSOR: &str = "preprocessor_config.json";
