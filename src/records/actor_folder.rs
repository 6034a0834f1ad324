//! The folder that `tune` writes into: the folder of the base images, or in an ablation a separate folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::differences::differences;
use super::{BaseFolder, TuneRecord};
use crate::cli::Method;
use crate::config::batch::Settings;
use crate::error::usage;
use crate::io::text;

/// The files of one method in a folder. Several methods can use the same folder, so each has its own file names.
#[derive(Clone, Copy, Debug)]
pub struct ActorFolder<'a> {
    folder: &'a Path,
    method: Method,
}

impl<'a> ActorFolder<'a> {
    /// Name of the file that holds an actor.
    pub const ACTOR: &'static str = Self::result_name(Method::Oneactor);

    /// The files of `method` in `folder`.
    pub fn new(folder: &'a Path, method: Method) -> Self {
        Self { folder, method }
    }

    /// The files of each method that can be tuned, the paper's method first.
    pub fn of_all_methods(folder: &'a Path) -> impl Iterator<Item = Self> {
        let tuned = Method::ALL.into_iter().filter(|method| method.is_tuned());
        tuned.map(move |method| Self::new(folder, method))
    }

    /// Name of the file that `sample` draws with. A method without tuning draws with the base set.
    pub const fn result_name(method: Method) -> &'static str {
        match method {
            Method::Oneactor => "actor.safetensors",
            Method::TextualInversion => "textual-inversion.safetensors",
            Method::DreamboothLora => "dreambooth-lora.safetensors",
            Method::IpAdapter | Method::Consistory => BaseFolder::SET,
        }
    }

    /// The method whose files these are.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The actor, or the file of a baseline.
    pub fn result(&self) -> PathBuf {
        self.folder.join(Self::result_name(self.method))
    }

    /// Whether `file` has the name of the result.
    pub fn is_result(&self, file: &Path) -> bool {
        file.file_name()
            .is_some_and(|name| name == Self::result_name(self.method))
    }

    /// The log: a row of JSON for each step.
    pub fn log(&self) -> PathBuf {
        self.named("jsonl")
    }

    /// The record, see [`TuneRecord`].
    pub fn record(&self) -> PathBuf {
        self.named("json")
    }

    /// The checkpoint of a run that stopped.
    pub fn checkpoint(&self) -> PathBuf {
        self.named("checkpoint.safetensors")
    }

    /// The settings of that run.
    pub fn checkpoint_settings(&self) -> PathBuf {
        self.named("checkpoint.json")
    }

    fn named(&self, ending: &str) -> PathBuf {
        let stem = match self.method {
            Method::Oneactor => "tune",
            method => method.name(),
        };
        self.folder.join(format!("{stem}.{ending}"))
    }

    /// Whether the folder holds the result that these settings lead to.
    ///
    /// # Errors
    /// When the folder contains a result of other or unknown settings.
    pub fn is_finished(&self, settings: &Settings) -> Result<bool> {
        let result = self.result();
        if !result.is_file() {
            return Ok(false);
        }
        let Ok(text) = text::read(&self.record()) else {
            // An interrupted tuning leaves its log.
            if self.log().is_file() || self.checkpoint_settings().is_file() {
                return Ok(false);
            }
            return Err(usage(format!(
                "{} exists, but {}, the record of its settings, does not: move the file, or replace it with \
                --overwrite",
                result.display(),
                self.record().display()
            )));
        };
        // If the record cannot be read, all its settings count as different.
        let there = TuneRecord::parse(&text, "").unwrap_or_default();
        let found = differences(&there.parameters, settings);
        if found.is_empty() {
            return Ok(true);
        }
        // The tuning stopped at a lower limit of steps.
        if self.continues(settings) {
            return Ok(false);
        }
        Err(usage(format!(
            "{} was tuned with other settings ({}): copy the folder, or tune again with --overwrite",
            result.display(),
            found.join("; ")
        )))
    }

    /// Whether a tuning with these settings continues from the existing checkpoint.
    pub fn continues(&self, settings: &Settings) -> bool {
        let obstacles = self.obstacles(settings);
        self.checkpoint().is_file() && obstacles.is_some_and(|obstacles| obstacles.is_empty())
    }

    /// The differences of settings that prevent a tuning from continuing from the checkpoint; `None` without a
    /// checkpoint. A higher limit of steps is no obstacle, because the steps so far are the same.
    pub fn obstacles(&self, settings: &Settings) -> Option<Vec<String>> {
        let text = text::read(&self.checkpoint_settings()).ok()?;
        let mut there: Settings = serde_json::from_str(&text).unwrap_or_default();
        let most = |settings: &Settings| settings.get("max_steps").and_then(Value::as_u64);
        if let (Some(less), Some(more)) = (most(&there), most(settings))
            && less < more
        {
            there.insert("max_steps".to_owned(), settings["max_steps"].clone());
        }
        Some(differences(&there, settings))
    }

    /// Whether a tuning has started here and not ended. The record is removed at the start and written at the end.
    pub fn is_unfinished(&self) -> bool {
        let has_begun = self.checkpoint_settings().is_file() || self.log().is_file();
        has_begun && !self.record().is_file()
    }

    /// Number of the target in the checkpoint of an unfinished tuning.
    pub fn checkpoint_target(&self) -> Option<u64> {
        let text = text::read(&self.checkpoint_settings()).ok()?;
        let settings: Settings = serde_json::from_str(&text).ok()?;
        settings.get("target").and_then(Value::as_u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::job_record::RunFacts;
    use crate::records::tune_record::TuneDetails;
    use std::fs;

    fn settings(max_steps: usize, seed: i64) -> Settings {
        let text = format!(r#"{{"max_steps": {max_steps}, "seed": {seed}, "target": 2}}"#);
        serde_json::from_str(&text).expect("the test's JSON is an object")
    }

    #[test]
    fn a_result_counts_for_its_own_settings() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-actor-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let folder = ActorFolder::new(&path, Method::Oneactor);
        let asked = |max_steps, seed| {
            let result = folder.is_finished(&settings(max_steps, seed));
            result.map_err(|error| error.to_string())
        };
        let empty = asked(4, 0);
        fs::write(folder.result(), "")?;
        let unknown = asked(4, 0);
        TuneRecord::new(settings(4, 0), RunFacts::default(), TuneDetails::default())
            .write(&folder.record())?;
        let (same, more_steps) = (asked(4, 0), asked(8, 0));
        fs::write(
            folder.checkpoint_settings(),
            serde_json::to_string(&settings(4, 0))?,
        )?;
        fs::write(folder.checkpoint(), "")?;
        let (continued, other) = (asked(8, 0), asked(8, 1));
        let (ended, target) = (folder.is_unfinished(), folder.checkpoint_target());
        fs::remove_file(folder.record())?;
        let is_unfinished = folder.is_unfinished();
        fs::remove_dir_all(&path)?;
        assert_eq!((empty, same, continued), (Ok(false), Ok(true), Ok(false)));
        assert!(unknown.is_err_and(|error| error.contains("the record of its settings, does not")));
        assert!(more_steps.is_err_and(|error| error.contains("(max_steps: was 4, is now 8)")));
        assert!(other.is_err_and(|error| error.contains("seed: was 0, is now 1")));
        assert_eq!((ended, is_unfinished, target), (false, true, Some(2)));
        Ok(())
    }

    #[test]
    fn methods_share_no_file_that_tune_writes() {
        let folders: Vec<_> = ActorFolder::of_all_methods(Path::new("robot")).collect();
        let files = folders
            .iter()
            .flat_map(|folder| [folder.result(), folder.log(), folder.record()]);
        let different: std::collections::BTreeSet<_> = files.collect();
        assert_eq!(different.len(), 3 * folders.len());
        assert_eq!(folders[0].record(), Path::new("robot/tune.json"));
    }
}
