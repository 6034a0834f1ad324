//! Renews a branch that is in the cache: asks the hub for its newest commit, fetches the files that
//! have changed, and only then updates the branch in the cache. Until then every run uses the old
//! commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::address::FileName;
use super::listing::Listing;
use super::{HubRepo, HubSettings};
use crate::error::usage;
use crate::io::needed_file::NeededFile;

/// A commit and its files.
type FoundListing = (String, Arc<Listing>);

/// The newest commits of branches. Each branch is asked for once, so that all files of a run come
/// from one commit.
#[derive(Clone, Debug, Default)]
pub struct Renewal(Arc<Mutex<BTreeMap<String, FoundListing>>>);

/// The effect of a renewal besides the files that a command needs.
#[derive(Clone, Debug, Default)]
pub struct Renewed {
    /// The branch or tag.
    pub revision: String,
    /// The commit of the revision in the cache so far, if any.
    pub previous: Option<String>,
    /// Further files that the cache has of the old commit and that the new commit also has.
    pub others: Vec<NeededFile>,
    /// Names of the files that the new commit no longer has.
    pub gone: Vec<String>,
}

impl HubSettings {
    /// The same settings, except that branches and tags in the cache are asked for again.
    ///
    /// # Errors
    /// When the program stays off the network.
    pub fn renewing(mut self) -> Result<Self> {
        if let Some(who) = self.offline {
            return Err(usage(format!(
                "refreshing asks the hub what has changed, but {who} keeps the program off the network: leave one of the two out"
            )));
        }
        self.renewal = Some(Renewal::default());
        Ok(self)
    }
}

impl HubRepo {
    /// Asks the hub for the commit and the files of the revision, or reuses its earlier answer in
    /// this run.
    pub(super) fn find_again(&self, renewal: &Renewal) -> Result<FoundListing> {
        let key = format!("{} {}", self.id, self.revision);
        let mut known = renewal.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let answer = self.ask(&self.revision);
        let (commit, listing) = answer.map_err(|trouble| self.question().explain(&trouble))?;
        let found = (commit, Arc::new(listing));
        known.insert(key, found.clone());
        Ok(found)
    }

    /// The effect of the renewal besides the files in `needed`; `None` if no renewal was asked for.
    /// All files of the branch in the cache are renewed: otherwise a run off the network would lose
    /// the files that the command does not name.
    ///
    /// # Errors
    /// When the hub refuses or cannot be reached.
    pub(in crate::io) fn renewed(&self, needed: &[NeededFile]) -> Result<Option<Renewed>> {
        if self.settings.renewal.is_none() {
            return Ok(None);
        }
        let mut renewed = Renewed {
            revision: self.revision.clone(),
            previous: self.cache.commit_of(&self.revision),
            ..Renewed::default()
        };
        let previous = renewed.previous.iter();
        let cached = previous.flat_map(|commit| self.cache.files(commit));
        for name in cached.filter(|name| FileName::checked(name).is_ok()) {
            if needed.iter().any(|file| file.name == name) {
                continue;
            }
            if self.listing()?.files.contains_key(&name) {
                renewed.others.push(self.know(&name)?)
            } else {
                renewed.gone.push(name)
            }
        }
        Ok(Some(renewed))
    }

    /// Makes this commit the one that the revision stands for from now on.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub(in crate::io) fn settle(&self) -> Result<()> {
        let written = self.cache.set_commit_of(&self.revision, &self.commit);
        written.map_err(|error| self.question().explain_disk(&error))
    }
}
