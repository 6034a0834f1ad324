//! The files that a part of a model needs, with what is known about them before they are fetched.

use std::path::PathBuf;

use anyhow::Result;

use super::{ModelFiles, ModelSource, NeededFile};
use crate::io::blob::Blob;
use crate::io::header::{Header, TensorFacts};
use crate::io::hub::{Licence, Renewed};
use crate::io::single_file::is_no_weight;
use crate::io::toy;

/// A list of files of a model that is built up step by step.
pub struct Needs<'a> {
    files: &'a ModelFiles,
    /// The files in the list.
    pub found: Vec<NeededFile>,
}

impl<'a> Needs<'a> {
    /// An empty list.
    pub fn of(files: &'a ModelFiles) -> Self {
        Self {
            files,
            found: Vec::new(),
        }
    }

    /// Adds a file that must exist.
    ///
    /// # Errors
    /// When the file does not exist, or the hub cannot be asked.
    pub fn require(&mut self, path: &str) -> Result<()> {
        self.files.require(path)?;
        self.add(path)
    }

    /// Adds a file if it exists, and returns whether it does.
    ///
    /// # Errors
    /// When the hub cannot be asked.
    pub fn take(&mut self, path: &str) -> Result<bool> {
        let is_there = self.files.find(&[path.to_owned()])?.is_some();
        if is_there {
            self.add(path)?;
        }
        Ok(is_there)
    }

    /// Adds the weights of a component in the wanted variant. If the weights are in shards, their
    /// index is fetched.
    ///
    /// # Errors
    /// As [`ModelFiles::weights`], but no weights are fetched.
    pub fn weights(&mut self, component: &str) -> Result<()> {
        let (index, names) = self.files.weight_names(component)?;
        for name in index.iter().chain(&names) {
            self.add(name)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str) -> Result<()> {
        if self.found.iter().all(|known| known.name != name) {
            self.found.push(self.files.know(name)?);
        }
        Ok(())
    }
}

impl ModelFiles {
    fn know(&self, name: &str) -> Result<NeededFile> {
        if let ModelSource::Hub(repo) = &self.source {
            return repo.know(name);
        }
        let (path, bytes) = match &self.source {
            ModelSource::Folder(folder) => {
                let path = folder.join(name);
                let bytes = path.metadata().map_or(0, |data| data.len());
                (Some(path), bytes)
            }
            _ => match toy::file(name) {
                Some(Blob::Embedded { bytes, .. }) => (None, bytes.len() as u64),
                _ => (None, 0),
            },
        };
        Ok(NeededFile {
            name: name.to_owned(),
            path,
            bytes: Some(bytes),
            missing: Some(0),
        })
    }

    /// Whether a file is complete on this machine.
    ///
    /// # Errors
    /// When the model has no such file, or the hub cannot be asked.
    pub(super) fn is_here(&self, name: &str) -> Result<bool> {
        let known = self.know(name)?;
        Ok(known.path.is_none_or(|path| path.is_file()))
    }

    /// The path of a file on disk, fetched if necessary.
    ///
    /// # Errors
    /// When the file cannot be fetched, or the model is not in a folder.
    pub fn path_of(&self, name: &str) -> Result<PathBuf> {
        match &self.source {
            ModelSource::Hub(repo) => repo.fetch(name),
            ModelSource::Folder(folder) => Ok(folder.join(name)),
            ModelSource::Toy | ModelSource::Single(_) => Err(self.missing(name)),
        }
    }

    /// For a repository of the hub, its id, which may differ from the name that was given.
    pub fn repository(&self) -> Option<&str> {
        match &self.source {
            ModelSource::Hub(repo) => Some(repo.id()),
            _ => None,
        }
    }

    /// For a repository of the hub, the folder of its files in the cache.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        match &self.source {
            ModelSource::Hub(repo) => Some(repo.folder()),
            _ => None,
        }
    }

    /// For a repository of the hub whose revision is renewed, the effect of the renewal besides the
    /// files in `needed`.
    ///
    /// # Errors
    /// When the hub refuses or cannot be reached.
    pub fn renewed(&self, needed: &[NeededFile]) -> Result<Option<Renewed>> {
        match &self.source {
            ModelSource::Hub(repo) => repo.renewed(needed),
            _ => Ok(None),
        }
    }

    /// For a repository of the hub, makes its commit the one that its revision stands for from now
    /// on.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn settle(&self) -> Result<()> {
        match &self.source {
            ModelSource::Hub(repo) => repo.settle(),
            _ => Ok(()),
        }
    }

    /// For a repository of the hub, the names of the files with the licence's text, and the
    /// licence.
    pub fn licence(&self) -> Option<(Vec<String>, Licence)> {
        match &self.source {
            ModelSource::Hub(repo) => Some((repo.licence_files(), repo.licence())),
            _ => None,
        }
    }

    /// The file of a single-file checkpoint.
    pub fn single_file(&self) -> Option<NeededFile> {
        let ModelSource::Single(file) = &self.source else {
            return None;
        };
        let bytes = file.path().metadata().map_or(0, |data| data.len());
        Some(NeededFile {
            name: self.name().to_owned(),
            path: Some(file.path().to_owned()),
            bytes: Some(bytes),
            missing: Some(0),
        })
    }

    /// The tensors of a network in a single-file checkpoint, under the file's names; empty for
    /// other models.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn tensors_in_single_file(&self, component: &str) -> Result<Vec<TensorFacts>> {
        let ModelSource::Single(file) = &self.source else {
            return Ok(Vec::new());
        };
        let Some(Blob::Component(network)) = file.weights(component) else {
            return Ok(Vec::new());
        };
        let mut tensors = Header::read(file.path())?.tensors;
        tensors.retain(|tensor| {
            tensor.name.starts_with(network.prefix) && !is_no_weight(&tensor.name)
        });
        Ok(tensors)
    }

    /// The header of one of the model's files of weights; `None` for a file that has not been
    /// fetched.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn header(&self, file: &NeededFile) -> Result<Option<Header>> {
        match (&file.path, toy::file(&file.name)) {
            (Some(path), _) if path.is_file() => Header::read(path).map(Some),
            (None, Some(Blob::Embedded { bytes, .. })) => Ok(Header::of_bytes(bytes)),
            _ => Ok(None),
        }
    }
}
