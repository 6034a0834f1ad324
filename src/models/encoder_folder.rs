//! A folder in Hugging Face's layout that holds one encoder of pictures: `config.json`,
//! `preprocessor_config.json`, `model.safetensors`.

use anyhow::{Context, Result};
use tch::{Device, Kind};

use super::image_processor::ImageProcessor;
use crate::io::config_file::ConfigFile;
use crate::io::finite_scan::FiniteScan;
use crate::io::model_files::{ModelFiles, NeededFile, Needs};
use crate::io::weights::{WeightPath, Weights};
use crate::tokenizer::{OPTIONAL_FILES, REQUIRED_FILES};

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

    /// A text file.
    ///
    /// # Errors
    /// When it is missing.
    pub fn text(&self, name: &str) -> Result<String> {
        self.files.text(&self.path_of(name))
    }

    /// A text file that may be missing.
    ///
    /// # Errors
    /// When it is there and can not be read.
    pub fn optional_text(&self, name: &str) -> Result<Option<String>> {
        self.files.optional_text(&self.path_of(name))
    }

    /// The files that it is read from, those of a tokenizer too where it has one.
    ///
    /// # Errors
    /// When one is missing, or the hub can not be asked.
    pub fn needed(&self) -> Result<Vec<NeededFile>> {
        let mut needs = Needs::of(self.files);
        needs.require(&self.path_of("config.json"))?;
        let others = [PREPROCESSOR];
        for name in others.iter().chain(&REQUIRED_FILES).chain(&OPTIONAL_FILES) {
            needs.take(&self.path_of(name))?;
        }
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

    /// How pictures are prepared; `None` where the folder does not say it.
    ///
    /// # Errors
    /// When the file asks for what is not computed here.
    pub fn processor(&self) -> Result<Option<ImageProcessor>> {
        let text = self.optional_text(PREPROCESSOR)?;
        text.map(|text| {
            ImageProcessor::from_json(&text)
                .with_context(|| format!("loading {}", self.files.name()))
        })
        .transpose()
    }

    /// The same where the folder must say it.
    ///
    /// # Errors
    /// As above, and when the file is missing.
    pub fn required_processor(&self) -> Result<ImageProcessor> {
        self.text(PREPROCESSOR)?;
        Ok(self.processor()?.expect("the file is there"))
    }
}

const PREPROCESSOR: &str = "preprocessor_config.json";
