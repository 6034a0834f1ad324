//! The folders of a run. No two of its jobs write into the same folder, and no other process writes there while the
//! run does.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::SystemTime;

use anyhow::Result;

use super::session::Session;
use crate::config::{Planned, Writes};
use crate::error::{runtime, usage};
use crate::io::folder_lock::{FolderLock, Sharing};
use crate::io::real_path::RealPlace;

/// Refuses jobs that would write into the folder of an earlier job, also where the two name it differently. Such jobs
/// would take each other's files for their own or overwrite them.
pub(crate) fn apart<J: Writes>(jobs: Vec<Planned<J>>) -> Vec<Planned<J>> {
    let mut taken: Vec<(RealPlace, PathBuf, usize)> = Vec::new();
    let one = |(number, Planned { job, place }): (usize, Planned<J>)| {
        let job = job.and_then(|job| {
            for folder in job.own_folders() {
                let here = RealPlace::of(&folder);
                if let Some((_, known, other)) =
                    taken.iter().find(|(known, ..)| known.is_same(&here))
                {
                    return Err(in_two_places(&folder, known, *other == number));
                }
                taken.push((here, folder, number));
            }
            Ok(job)
        });
        Planned { job, place }
    };
    jobs.into_iter().enumerate().map(one).collect()
}

fn in_two_places(folder: &Path, known: &Path, is_one_job: bool) -> anyhow::Error {
    let (folder, shown) = (folder.display(), known.display());
    if is_one_job {
        return usage(format!(
            "{folder} and {shown} are the same folder, and this job would write two different sets of files with the \
             same names into it: remove the link, or choose another folder"
        ));
    }
    let other = if folder.to_string() == shown.to_string() {
        String::new()
    } else {
        format!(", which names it {shown}")
    };
    usage(format!(
        "{folder} is the folder of an earlier job too{other}: give each job its own"
    ))
}

/// The most locks that a run holds for jobs that have not started. Each lock is an open file, and a process may have
/// about a thousand open files.
const MOST_LOCKS: usize = 256;

/// The folders that this process has locked.
#[derive(Default)]
pub(crate) struct Claims {
    held: RefCell<Vec<(RealPlace, Weak<FolderLock>)>>,
    /// The output folders of the jobs so far. No other job may write into them.
    own: RefCell<Vec<RealPlace>>,
}

/// The locks on the folders of a job; dropping it releases them.
#[derive(Default)]
pub(crate) struct Claim {
    locks: Vec<Rc<FolderLock>>,
    /// Folders that are unlocked until the job starts, each with the time of its last change.
    let_go: Vec<(PathBuf, Option<SystemTime>)>,
    is_part: bool,
}

impl Claims {
    /// Locks the folders of a job. Call this before the contents of the folders are checked. A dry run locks nothing.
    ///
    /// # Errors
    /// When another process has locked a folder, or a folder cannot be created.
    pub fn take<J: Writes>(&self, session: &Session, job: &J) -> Result<Claim> {
        let mut claim = Claim {
            is_part: job.shares_its_folder() && !session.shard().is_whole(),
            ..Claim::default()
        };
        if session.dry_run {
            return Ok(claim);
        }
        for folder in job.locked_folders() {
            let lock = self.lock(session, &folder, claim.is_part)?;
            // Locks are released from the front: inner folders first. Releasing also removes folders left empty.
            claim.locks.insert(0, lock);
        }
        // On a disk that ignores case, `A` and `a` are the same folder. That shows only once the folder exists.
        for folder in job.own_folders() {
            let here = RealPlace::of(&folder);
            let mut own = self.own.borrow_mut();
            if own.iter().any(|known| known.is_same(&here)) {
                return Err(in_two_places(&folder, &folder, false));
            }
            own.push(here);
        }
        Ok(claim)
    }

    /// Releases the locks of a claim until its job starts, if the run holds more than [`MOST_LOCKS`].
    pub fn rest(&self, claim: &mut Claim, folders: Vec<PathBuf>) {
        let held = self.held.borrow();
        let held = held.iter().filter(|(_, lock)| lock.strong_count() > 0);
        if claim.locks.is_empty() || held.count() <= MOST_LOCKS {
            return;
        }
        claim.locks.clear();
        let changed = |folder: PathBuf| {
            let time = changed(&folder);
            (folder, time)
        };
        claim.let_go = folders.into_iter().map(changed).collect();
    }

    /// Locks the folders of a claim again after [`Claims::rest`].
    ///
    /// # Errors
    /// As [`Claims::take`], and when a folder has changed since [`Claims::rest`].
    pub fn renew(&self, session: &Session, claim: &mut Claim) -> Result<()> {
        for (folder, time) in std::mem::take(&mut claim.let_go) {
            let is_changed = changed(&folder) != time;
            let lock = self.lock(session, &folder, claim.is_part)?;
            claim.locks.push(lock);
            if is_changed {
                return Err(runtime(format!(
                    "the folder {} has changed since this job was checked: start it again",
                    folder.display()
                )));
            }
        }
        Ok(())
    }

    /// The lock of a folder, shared by all jobs of this process.
    fn lock(&self, session: &Session, folder: &Path, is_part: bool) -> Result<Rc<FolderLock>> {
        let mut held = self.held.borrow_mut();
        let here = RealPlace::of(folder);
        let known = held.iter().find(|(place, _)| place.is_same(&here));
        if let Some(lock) = known.and_then(|(_, lock)| lock.upgrade()) {
            return Ok(lock);
        }
        let lock = Rc::new(lock_folder(session, folder, is_part)?);
        held.retain(|(_, lock)| lock.strong_count() > 0);
        // The place is computed again because the folder may not have existed before.
        held.push((RealPlace::of(folder), Rc::downgrade(&lock)));
        Ok(lock)
    }
}

/// The time at which a file was last created, renamed or removed in a folder.
fn changed(folder: &Path) -> Option<SystemTime> {
    fs::metadata(folder).and_then(|found| found.modified()).ok()
}

/// Locks a folder for this process alone or, if it `is_part`, for its part of the work beside the other parts.
///
/// # Errors
/// When another process has locked the folder, or the folder cannot be created.
pub(crate) fn lock_folder(session: &Session, folder: &Path, is_part: bool) -> Result<FolderLock> {
    let part = session.shard().label();
    let sharing = if is_part {
        Sharing::Part(&part)
    } else {
        Sharing::Alone
    };
    let lock = FolderLock::take(folder, sharing, session.command())?;
    if !lock.has_locks() {
        session.reporter.note(&format!(
            "{}: this file system has no locks: make sure that no other process writes into this folder",
            folder.display()
        ));
    }
    Ok(lock)
}
