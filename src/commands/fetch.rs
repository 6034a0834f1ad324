//! `fetch`: downloads into the cache the files of a model that the other commands would read.

mod parts;
mod refresh;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::FetchFlags;
use crate::config::{Planned, Writes};
use crate::error::usage;
use crate::io::hub::{HubSettings, human_size};
use crate::io::model_files::{ModelFiles, NeededFile, TOY};
use crate::io::writable::check_new_files;
use crate::run::jobs::work_off;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
use crate::wording::counted;
use parts::{Finder, RepoFlag, RepoPart, wanted};

/// Fetches what the flags name, one repository after the other.
///
/// # Errors
/// See `work_off`.
pub fn run(flags: &FetchFlags) -> Result<()> {
    let session = Session::start("fetch", &flags.run.run())?;
    if let (Some(revision), [_, _, ..]) = (&flags.revision, &flags.models[..]) {
        return Err(usage(format!(
            "--revision {revision}: found {} models, expected one, because a revision belongs to one repository: fetch \
             each model alone",
            flags.models.len()
        )));
    }
    if !flags.file.is_empty() && flags.models.len() > 1 {
        return Err(usage(format!(
            "--file: found {} models, expected one, because a file belongs to one repository: fetch the files of each \
             model alone",
            flags.models.len()
        )));
    }
    if flags.ip_adapter.is_none() && flags.is_typed("image_encoder") {
        return Err(usage(
            "--image-encoder has no effect without --ip-adapter: add --ip-adapter, or leave it out",
        ));
    }
    let quiet = session.reporter.is_quiet();
    let finder = Finder {
        flags,
        quiet,
        renewing: renewing(flags, quiet)?,
    };
    let wanted = wanted(flags, finder.adapted()?);
    let several = wanted.len() > 1;
    let planned = wanted.into_iter().map(|wanted| Planned {
        place: several.then(|| wanted.title()),
        job: Ok(wanted),
    });
    let planned = planned.collect();
    let prepare = |_: &Session, wanted| {
        let parts = finder.find(&wanted)?;
        parts.iter().try_for_each(RepoPart::check_cache)?;
        Ok(Fetching { parts })
    };
    work_off(&session, planned, prepare, execute)
}

/// The hub's settings for `--refresh`.
fn renewing(flags: &FetchFlags, quiet: bool) -> Result<Option<HubSettings>> {
    if flags.refresh != Some(true) {
        return Ok(None);
    }
    let settings = HubSettings::from_env(flags.offline == Some(true))?;
    let settings = if quiet { settings.quiet() } else { settings };
    settings.renewing().map(Some)
}

/// Writes into no folder of its own: the cache of the hub allows several writers.
impl Writes for RepoFlag<'_> {
    fn own_folders(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// The repositories and files that one name on the command line stands for.
struct Fetching {
    parts: Vec<RepoPart>,
}

impl Prepared for Fetching {
    const JOBS: &str = "downloads";

    fn only_reads(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<PathBuf> {
        let needed = self.parts.iter().flat_map(|part| &part.needed);
        needed.filter_map(|file| file.path.clone()).collect()
    }

    fn settings(&self) -> Value {
        let name = |part: &RepoPart| (part.files.name().to_owned(), json!(part.files.revision()));
        Value::Object(self.parts.iter().map(name).collect())
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        self.parts.iter().for_each(|part| {
            let Some(repository) = part.files.repository() else {
                return tell_of_local(session, &part.files);
            };
            for file in &part.needed {
                let status = match file.missing {
                    Some(0) => "present",
                    _ => "planned",
                };
                part.list(session, repository, file, status);
            }
            let missing = sum(&part.needed, |file| file.missing);
            let large = match missing {
                0 => "all are in the cache".to_owned(),
                bytes => format!("{} still to be fetched", human_size(bytes)),
            };
            session
                .reporter
                .note(&format!("{}; {large}", part.summary(repository)));
            part.tell_renewal(session, repository, false);
            part.tell_licence(session, repository, "planned", 0);
        });
        Ok(())
    }
}

fn sum(files: &[NeededFile], bytes: impl Fn(&NeededFile) -> Option<u64>) -> u64 {
    files.iter().filter_map(bytes).sum()
}

impl RepoPart {
    /// Refuses a cache in which no files can be created, if files are still to be fetched.
    fn check_cache(&self) -> Result<()> {
        match self.files.cache_folder() {
            Some(folder) if sum(&self.needed, |file| file.missing) > 0 => {
                check_new_files(&folder).context("the cache of the hub (HF_HOME sets its place)")
            }
            _ => Ok(()),
        }
    }

    fn list(&self, session: &Session, repository: &str, file: &NeededFile, status: &str) {
        let facts = json!({
            "repository": repository,
            "revision": self.files.revision(),
            "name": file.name,
            "bytes": file.bytes,
        });
        let path = file
            .path
            .as_deref()
            .expect("a repository's files have paths");
        session.list(path, "file", status, facts);
    }

    fn summary(&self, repository: &str) -> String {
        format!(
            "{repository} at {}: {}, {}",
            self.files.revision().unwrap_or_default(),
            counted(self.needed.len(), "file", "files"),
            human_size(sum(&self.needed, |file| file.bytes))
        )
    }

    /// Reports the licence as a note and, with `--format json`, all facts about the model as an object.
    fn tell_licence(&self, session: &Session, repository: &str, status: &str, fetched: u64) {
        let Some((texts, licence)) = self.files.licence() else {
            return;
        };
        let text = self.needed.iter().find(|file| texts.contains(&file.name));
        let text = text.and_then(|file| file.path.as_deref());
        let name = licence.name.as_deref();
        let here = text
            .filter(|path| path.is_file())
            .map_or_else(String::new, |path| {
                format!(", and in the file {}", path.display())
            });
        session.reporter.note(&match name {
            Some(name) => format!(
                "licence of {repository}: {name}; the full text is at {}{here}",
                licence.link
            ),
            None => format!(
                "the repository {repository} does not name its licence: look at {}{here}",
                licence.link
            ),
        });
        session.list_object(
            "model",
            status,
            json!({
                "path": self.files.cache_folder(),
                "repository": repository,
                "revision": self.files.revision(),
                "previous_revision": self.previous(),
                "files": self.needed.len(),
                "bytes": sum(&self.needed, |file| file.bytes),
                "fetched_bytes": fetched,
                "licence": {"name": name, "link": licence.link, "path": text},
            }),
        );
    }
}

fn tell_of_local(session: &Session, files: &ModelFiles) {
    let name = files.name();
    session.reporter.note(&match name {
        TOY => format!("{name} is inside this program: there is nothing to fetch"),
        _ if files.single_file().is_some() => {
            format!("{name} is a file on this machine: there is nothing to fetch")
        }
        _ => format!("{name} is a folder on this machine: there is nothing to fetch"),
    });
}

fn execute(session: &Session, fetching: Fetching) -> Result<()> {
    for part in &fetching.parts {
        let Some(repository) = part.files.repository() else {
            tell_of_local(session, &part.files);
            continue;
        };
        let mut fetched = 0;
        for file in &part.needed {
            session.signals.check()?;
            let path = file.path.as_deref();
            let is_here = path.is_some_and(Path::is_file);
            part.files.path_of(&file.name)?;
            fetched += file.missing.or(file.bytes).unwrap_or(0);
            let status = if is_here { "present" } else { "fetched" };
            part.list(session, repository, file, status);
        }
        session.reporter.note(&format!(
            "{}, of which {} were fetched now; all are in the cache",
            part.summary(repository),
            human_size(fetched)
        ));
        fetched += part.fetch_others(session)?;
        part.tell_licence(session, repository, "fetched", fetched);
    }
    // A renewed branch points to the new commit only after all files are fetched: until then the old files are used.
    for part in &fetching.parts {
        if let (Some(repository), Some(_)) = (part.files.repository(), &part.renewed) {
            part.files.settle()?;
            part.tell_renewal(session, repository, true);
        }
    }
    Ok(())
}
