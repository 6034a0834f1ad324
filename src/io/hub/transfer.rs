//! Fetches one file so that it ends up complete and checked in the cache, or not at all.
//!
//! [`Download`] makes a single transfer into a staging folder and never touches the cache itself:
//! - a broken connection is continued here, at the length of the `.part` file;
//! - the content may belong to another file, so size and SHA-256 are checked here before the file is
//!   linked into the snapshot;
//! - a `.part` that is already complete would be refused for ever (status 416), so this is handled;
//! - there is no read timeout, so each transfer runs in a thread of its own, and the time without
//!   data is measured;
//! - files that anyone may fetch are fetched without the token.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::address::{self, FileName};
use super::cache::{CachedRepo, files_under, folder_name};
use super::fetch::Download;
use super::leftover;
use super::meter::Meter;
use super::question::Question;
use super::settings::HubSettings;
use super::trouble::Trouble;
use super::verify::{self, human_size};
use crate::error::model;
use crate::signals;
use anyhow::Result;

/// Time between two checks of a waiting loop.
const GLANCE: Duration = Duration::from_millis(100);
/// How often damaged content is thrown away and fetched again.
const DAMAGED: u32 = 2;

/// A file to be fetched, and what is known about it.
pub(super) struct Order<'a> {
    pub(super) settings: &'a HubSettings,
    pub(super) cache: &'a CachedRepo,
    pub(super) id: &'a str,
    pub(super) commit: &'a str,
    pub(super) name: FileName<'a>,
    /// Length in bytes.
    pub(super) size: Option<u64>,
    /// SHA-256 in hexadecimal, for files that the hub keeps outside git.
    pub(super) sha256: Option<&'a str>,
    /// Name among the blobs: the SHA-256 or git's own hash.
    pub(super) etag: Option<&'a str>,
    /// Whether anyone may fetch from the repository.
    pub(super) open: bool,
}

impl Order<'_> {
    /// Fetches the file, unless another process has done so meanwhile, and returns its path.
    ///
    /// # Errors
    /// When the hub, the network or the disk refuses; see [`Question::explain`].
    pub(super) fn fetch(&self) -> Result<PathBuf> {
        // If a hub gives no hashes, any name that belongs to this file alone will do.
        let key = self.etag.map_or_else(
            || format!("{}-{}", self.commit, self.name.as_str().replace('/', "--")),
            str::to_owned,
        );
        let _lock = self.lock(&key)?;
        if let Some(path) = self.cache.file(self.commit, self.name) {
            return Ok(path);
        }
        if let Some(etag) = self.etag {
            let blob = self.cache.blob(etag);
            if blob.is_file() && verify::check(&blob, self.size, None).is_ok() {
                // Another program has finished the file meanwhile.
                self.cache.clear_staging(&key);
                return self.link(etag);
            }
        }
        let complete = self.transfer(&key)?;
        // The file's name is the etag that the hub gave with it.
        let etag = complete
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or(&key)
            .to_owned();
        self.cache
            .store(&complete, &etag)
            .map_err(|error| self.question().explain_disk(&error))?;
        let path = self.link(&etag)?;
        self.cache.clear_staging(&key);
        Ok(path)
    }

    /// Tries until a complete and checked file is in the staging folder, and returns its path.
    fn transfer(&self, key: &str) -> Result<PathBuf> {
        let patience = self.settings.patience;
        let staging = self.cache.staging(key);
        let blobs = staging.join(folder_name(self.id)).join("blobs");
        let mut with_token = !self.open;
        let mut size = self.size;
        let mut failures = 0;
        let mut discards = Discards {
            is_leftover: self.take_up_leftover(&blobs, key),
            damaged: 0,
        };
        self.announce(&blobs);
        // An empty file has no byte range that could be asked for.
        if size == Some(0) {
            self.create_empty(&blobs, key)?;
        }
        loop {
            match self.complete_in(&blobs, size) {
                Ok(Some(complete)) => return Ok(complete),
                Err(found) if !self.discard(&staging, &found, &mut discards) => {
                    return Err(self.damaged(&found, discards.damaged));
                }
                Ok(None) | Err(_) => {}
            }
            let before = length_so_far(&blobs);
            let trouble = match self.attempt(&blobs, with_token) {
                Ok(announced) => {
                    size = size.or(Some(announced));
                    continue;
                }
                Err(Silence::Broken(trouble)) => trouble,
                Err(Silence::Stalled) => return Err(self.stalled(&blobs)),
                Err(Silence::Stopped(error)) => return Err(error),
            };
            match trouble {
                Trouble::Refused(401 | 403, _) if !with_token && self.settings.token.is_some() => {
                    with_token = true;
                }
                Trouble::Useless | Trouble::Refused(416, _)
                    if self.discard(&staging, &trouble.cause(), &mut discards) => {}
                trouble if trouble.may_pass() => {
                    let so_far = length_so_far(&blobs);
                    failures = if so_far > before { 1 } else { failures + 1 };
                    if failures > patience.tries {
                        return Err(self.given_up(&trouble, so_far, failures));
                    }
                    self.settings.report.notice(&format!(
                        "{}: {}; trying again at {}",
                        self.name,
                        trouble.cause(),
                        human_size(so_far)
                    ));
                    pause(patience.wait * (1 << (failures - 1).min(5)))?;
                }
                trouble => return Err(self.question().explain(&trouble)),
            }
        }
    }

    fn create_empty(&self, blobs: &Path, key: &str) -> Result<()> {
        fs::create_dir_all(blobs)
            .and_then(|()| fs::write(blobs.join(key), b""))
            .map_err(|error| self.question().explain_disk(&error))
    }

    /// Begins with an unfinished file of Python's huggingface_hub. Only the SHA-256 at the end
    /// shows whether it was the beginning of the content, so without a SHA-256 nothing is taken.
    /// Nor does it replace a part that was fetched here.
    fn take_up_leftover(&self, blobs: &Path, key: &str) -> bool {
        let (Some(size), Some(_), 0) = (self.size, self.sha256, length_so_far(blobs)) else {
            return false;
        };
        let Some(length) = leftover::copy_longest(self.cache, key, size, blobs) else {
            return false;
        };
        self.settings.report.notice(&format!(
            "{}: continuing the download that Python's huggingface_hub left at {}",
            self.name,
            human_size(length)
        ));
        true
    }

    /// Throws away what was fetched so far, and returns whether another try is worthwhile.
    fn discard(&self, staging: &Path, found: &str, discards: &mut Discards) -> bool {
        fs::remove_dir_all(staging).ok();
        if std::mem::take(&mut discards.is_leftover) {
            self.settings.report.notice(&format!(
                "{}: what Python's huggingface_hub left is not its beginning ({found}); fetching the whole file",
                self.name
            ));
            return true;
        }
        discards.damaged += 1;
        discards.damaged <= DAMAGED
    }

    /// One transfer. Returns the length that was announced.
    fn attempt(&self, blobs: &Path, with_token: bool) -> Result<u64, Silence> {
        let token = self.settings.token.as_ref().filter(|_| with_token);
        let source = Download {
            url: address::of_file(
                self.settings.endpoint.address(),
                self.id,
                self.commit,
                self.name,
            ),
            token: token.map(|token| token.value().to_owned()),
        };
        let mut meter = Meter::new(self.settings.report, self.name.as_str());
        let (received, announced) = (meter.received.clone(), meter.announced.clone());
        let abandoned = meter.abandoned.clone();
        let bar = meter.bar.clone();
        let blobs = blobs.to_owned();
        let (done, result) = mpsc::channel::<Result<(), Trouble>>();
        thread::spawn(move || {
            // After a stall nobody receives the result any more, and it does not matter.
            done.send(source.fetch(&blobs, &mut meter)).ok();
        });
        let mut last = (0, Instant::now());
        let outcome = loop {
            match result.recv_timeout(GLANCE) {
                Ok(Ok(())) => break Ok(announced.load(Ordering::Relaxed)),
                Ok(Err(error)) => break Err(Silence::Broken(error)),
                Err(RecvTimeoutError::Disconnected) => {
                    let cause = "the answer made the download library fail".to_owned();
                    break Err(Silence::Broken(Trouble::Strange(cause)));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = signals::check() {
                break Err(Silence::Stopped(error));
            }
            let now = received.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > self.settings.patience.stall {
                break Err(Silence::Stalled);
            }
        };
        abandoned.store(true, Ordering::Relaxed);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        outcome
    }

    /// The complete and correct file in the staging folder, under its final name, or under that of
    /// a part that only has to be renamed. `Err` says what is wrong with a file.
    fn complete_in(&self, blobs: &Path, size: Option<u64>) -> Result<Option<PathBuf>, String> {
        for name in files_under(blobs) {
            let path = blobs.join(&name);
            let is_part = name.ends_with(".part");
            let length = path.metadata().map_or(0, |data| data.len());
            if name.ends_with(".lock") || is_part && size.is_none_or(|size| length < size) {
                continue;
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let hash = self.sha256.or(stem.filter(|stem| verify::is_sha256(stem)));
            return verify::check(&path, size, hash).map(|()| Some(path));
        }
        Ok(None)
    }

    /// Waits for other processes while they make progress, then locks the file.
    fn lock(&self, key: &str) -> Result<Option<fs::File>> {
        let file = self
            .cache
            .open_lock(key)
            .map_err(|error| self.question().explain_disk(&error))?;
        let mut last = (0, Instant::now());
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(fs::TryLockError::WouldBlock) => {}
                // The file system has no locks: continue without a lock, as Python does.
                Err(fs::TryLockError::Error(_)) => return Ok(None),
            }
            if !told {
                told = true;
                self.settings.report.notice(&format!(
                    "waiting for another process that fetches {} of {}",
                    self.name, self.id
                ));
            }
            let now = self.cache.bytes_under_way(key);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > self.settings.patience.lock {
                return Err(self.question().explain(&Trouble::Held));
            }
            pause(GLANCE)?;
        }
    }

    fn link(&self, etag: &str) -> Result<PathBuf> {
        self.cache
            .link(self.commit, self.name, etag)
            .map_err(|error| self.question().explain_disk(&error))
    }

    fn announce(&self, blobs: &Path) {
        let size = self
            .size
            .map_or_else(String::new, |size| format!(" ({})", human_size(size)));
        let from = match length_so_far(blobs) {
            0 => String::new(),
            length => format!(", from {} on", human_size(length)),
        };
        self.settings
            .report
            .notice(&format!("fetching {}{size}{from}", self.name));
    }

    fn question(&self) -> Question<'_> {
        Question {
            settings: self.settings,
            id: self.id,
            revision: self.commit,
            file: Some(self.name.as_str()),
        }
    }

    fn progress_text(&self, so_far: u64) -> String {
        let total = self
            .size
            .map_or_else(String::new, |size| format!(" of {}", human_size(size)));
        format!("{}{total}", human_size(so_far))
    }

    fn given_up(&self, trouble: &Trouble, so_far: u64, failures: u32) -> anyhow::Error {
        match trouble {
            Trouble::Cut(cause) if so_far > 0 => model(format!(
                "the download of {} of {} broke off at {}, and {failures} tries brought no more: {cause}; run the same command again to continue from there",
                self.name,
                self.id,
                self.progress_text(so_far)
            )),
            trouble => self.question().explain(trouble),
        }
    }

    fn stalled(&self, blobs: &Path) -> anyhow::Error {
        model(format!(
            "the download of {} of {} has stopped at {}, nothing came for {} s; run the same command again to continue from there",
            self.name,
            self.id,
            self.progress_text(length_so_far(blobs)),
            self.settings.patience.stall.as_secs()
        ))
    }

    fn damaged(&self, found: &str, times: u32) -> anyhow::Error {
        model(format!(
            "{} of {} arrived damaged {times} times: {found}; check whether a proxy or mirror in between ({}) changes files",
            self.name, self.id, self.settings.endpoint
        ))
    }
}

/// What was thrown away of a file so far.
struct Discards {
    /// Whether the content in the staging folder begins with a file that Python left. An error in
    /// it is then not the hub's.
    is_leftover: bool,
    damaged: u32,
}

/// Why a try ended without a file.
enum Silence {
    Broken(Trouble),
    Stalled,
    /// A signal asked to stop; the part that has arrived is kept.
    Stopped(anyhow::Error),
}

/// Sleeps, unless a signal asks to stop.
fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        signals::check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(GLANCE));
    }
}

/// Bytes of the unfinished file in the staging folder `blobs`.
fn length_so_far(blobs: &Path) -> u64 {
    files_under(blobs)
        .into_iter()
        .filter(|name| name.ends_with(".part"))
        .filter_map(|name| Some(blobs.join(name).metadata().ok()?.len()))
        .sum()
}
