//! A folder in Hugging Face's layout with one image encoder: `config.json`,
//! `preprocessor_config.json` or `processor_config.json`, and `model.safetensors`.

use anyhow::{Context, Result};
use tch::{Device, Kind};

use crate::io::config_file::ConfigFile;
use crate::io::finite_scan::FiniteScan;
use crate::io::model_files::{ModelFiles, NeededFile, Needs};
use crate::io::weights::{WeightPath, Weights};
use crate::tokenizer;

/// An encoder's folder among a model's files.
#[derive(Clone, Copy, Debug)]
pub struct EncoderFolder<'a> {
    /// All files of the model.
    pub files: &'a ModelFiles,
    /// The folder's path among them; empty if the files belong to the encoder alone.
    pub path: &'a str,
}

/// Tensors of a checkpoint that are not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unused<'a> {
    /// Endings of their keys.
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
    /// When the file is missing or not a JSON object.
    pub fn config(&self, name: &str) -> Result<ConfigFile> {
        self.files.config(&self.path_of(name))
    }

    /// The files that the encoder needs, including those of a tokenizer if it has one.
    ///
    /// # Errors
    /// When a file is missing, or the hub cannot be asked.
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

    /// Builds the network with `new` from the weights, after all values were checked to be finite.
    ///
    /// # Errors
    /// When the weights are missing, damaged, do not fit, or contain a value that is not finite.
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

    /// The image processor that `read` makes of the settings; `None` if the folder has no settings.
    ///
    /// As in transformers, the settings are the `image_processor` of `processor_config.json`, where
    /// transformers 5 saves them, or otherwise those of `preprocessor_config.json`.
    ///
    /// # Errors
    /// When a file is damaged, or asks for something that is not supported.
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

    /// As [`processor`](Self::processor), for a folder that must have settings.
    ///
    /// # Errors
    /// As [`processor`](Self::processor), and when the settings are missing.
    pub fn required_processor<T>(&self, read: impl Fn(&ConfigFile) -> Result<T>) -> Result<T> {
        if let Some(processor) = self.processor(read)? {
            return Ok(processor);
        }
        let missing = self.files.require(&self.path_of(PREPROCESSOR));
        let missing = missing.context(
            "the settings of the image processor are in this file or in processor_config.json",
        );
        Err(missing.expect_err("it is read where it is there"))
    }
}

/// The settings of all parts of a processor in one file, from transformers 5 on.
const PROCESSOR: &str = "processor_config.json";
/// The key in this file with the settings for pictures.
const INSIDE: &str = "image_processor";
/// The file with the settings for pictures alone.
const PREPROCESSOR: &str = "preprocessor_config.json";
