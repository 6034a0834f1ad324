//! The folders that a job writes into.

use std::path::PathBuf;

use super::{AblateJob, GenerateBaseJob, SampleJob, StoryJob, SweepJob, TuneJob};
use crate::config::story::{CharacterSource, Description};
use crate::records::{BaseFolder, SceneFolder, StoryFolder};

/// A job that writes into folders.
pub trait Writes {
    /// The folders that no other job of the run may write into, because the files would have the same names.
    fn own_folders(&self) -> Vec<PathBuf>;

    /// The folders that no other process may use while the job runs.
    fn locked_folders(&self) -> Vec<PathBuf> {
        self.own_folders().into_iter().take(1).collect()
    }

    /// Whether several processes that each do a part of this job (`--shard`) write into the same folder.
    fn shares_its_folder(&self) -> bool {
        false
    }
}

impl Writes for GenerateBaseJob {
    fn own_folders(&self) -> Vec<PathBuf> {
        vec![
            self.output_dir.clone(),
            BaseFolder(&self.output_dir).images(),
        ]
    }
}

impl Writes for TuneJob {
    fn own_folders(&self) -> Vec<PathBuf> {
        vec![self.output_dir.clone()]
    }
}

impl Writes for SampleJob {
    fn own_folders(&self) -> Vec<PathBuf> {
        let plain = self.compare.then(|| SceneFolder(&self.output_dir).plain());
        [self.output_dir.clone()].into_iter().chain(plain).collect()
    }

    fn shares_its_folder(&self) -> bool {
        true
    }
}

impl Writes for StoryJob {
    fn own_folders(&self) -> Vec<PathBuf> {
        let mut folders = self.locked_folders();
        folders.push(StoryFolder(&self.sample.output_dir).pictures());
        folders
    }

    fn locked_folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.sample.output_dir.clone()];
        for character in &self.characters {
            if let CharacterSource::Described(made) = &character.origin {
                let Description { base, .. } = made.as_ref();
                folders.push(base.output_dir.clone());
            }
        }
        folders
    }
}

impl Writes for SweepJob {
    fn own_folders(&self) -> Vec<PathBuf> {
        vec![self.output_dir.clone()]
    }
}

impl AblateJob {
    fn tunings(&self) -> impl Iterator<Item = &TuneJob> {
        self.columns
            .iter()
            .filter_map(|column| column.tuning.as_ref())
    }
}

impl Writes for AblateJob {
    /// Ablations of one actor share the folders of its tunings, unless they tune again.
    fn own_folders(&self) -> Vec<PathBuf> {
        let redone = self.tunings().filter(|tuning| tuning.overwrite);
        let redone = redone.map(|tuning| tuning.output_dir.clone());
        [self.output_dir.clone()]
            .into_iter()
            .chain(redone)
            .collect()
    }

    fn locked_folders(&self) -> Vec<PathBuf> {
        let tunings = self.tunings().map(|tuning| tuning.output_dir.clone());
        [self.output_dir.clone()]
            .into_iter()
            .chain(tunings)
            .collect()
    }
}
