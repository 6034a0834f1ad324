//! `fetch --refresh`: renews the other files of a branch in the cache, and reports what has changed.

use anyhow::Result;

use super::parts::RepoPart;
use crate::io::hub::{Renewed, human_size};
use crate::io::model_files::NeededFile;
use crate::run::session::Session;
use crate::wording::counted;

impl RepoPart {
    /// Other files of the branch that the cache has. They are fetched too, but not listed.
    fn others(&self) -> &[NeededFile] {
        self.renewed.as_ref().map_or(&[], |renewed| &renewed.others)
    }

    /// Fetches the other files of the branch. Returns the number of bytes that were fetched.
    ///
    /// # Errors
    /// When the hub, the network or the disk fails, or a signal asks the program to stop.
    pub(super) fn fetch_others(&self, session: &Session) -> Result<u64> {
        let mut fetched = 0;
        for file in self.others() {
            session.signals.check()?;
            self.files.path_of(&file.name)?;
            fetched += file.missing.or(file.bytes).unwrap_or(0);
        }
        Ok(fetched)
    }

    /// The commit that the cache had before the renewal.
    pub(super) fn previous(&self) -> Option<&str> {
        self.renewed.as_ref()?.previous.as_deref()
    }

    /// Reports the commit of the branch and whether it has changed; `done` is false in a dry run.
    pub(super) fn tell_renewal(&self, session: &Session, repository: &str, done: bool) {
        let Some(renewed) = &self.renewed else {
            return;
        };
        let commit = self.files.revision().unwrap_or_default();
        let Renewed {
            revision, previous, ..
        } = renewed;
        let branch = format!("{revision} of {repository}");
        let reporter = &session.reporter;
        reporter.note(&match previous.as_deref() {
            None => format!("{branch} was not in the cache before; it is at {commit}"),
            Some(previous) if previous == commit => format!("{branch} is still at {commit}"),
            Some(previous) if done => format!("{branch} was renewed from {previous} to {commit}"),
            Some(previous) => format!("{branch} has moved from {previous} to {commit}"),
        });
        if previous.as_deref() == Some(commit) {
            return;
        }
        let missing: u64 = self.others().iter().filter_map(|file| file.missing).sum();
        match self.others().len() {
            0 => {}
            count => reporter.note(&format!(
                "the cache has {} of this branch, renewed too: {} {}",
                counted(count, "other file", "other files"),
                human_size(missing),
                if done { "fetched" } else { "to be fetched" }
            )),
        }
        if !renewed.gone.is_empty() {
            reporter.note(&format!(
                "{branch} no longer has {}",
                renewed.gone.join(", ")
            ));
        }
    }
}
