//! Makes sure that one process at a time works in a folder, or several that share its work.
//!
//! The lock is an operating system lock (`flock`) on a hidden file in the folder, so it ends with
//! its process in any case. The file tells others which process works in the folder, and is removed
//! at the end. Without the lock the file means nothing: one left by a killed process is reused by
//! the next.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, runtime};

/// The lock file for everybody who works in a folder.
const NAME: &str = ".oneactor.lock";

/// How often opening the lock file is tried again if another process has just removed it.
const MOST_TRIES: usize = 100;

/// How a folder is shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sharing<'a> {
    /// Not shared.
    Alone,
    /// Shared with the other parts of a job. Each part, here with this name, is done by one
    /// process.
    Part(&'a str),
}

/// What other processes are told about the process that works in a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    command: String,
    process: u32,
    /// The name of its machine, if it is known.
    host: Option<String>,
}

/// A lock on a folder, held until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    files: Vec<LockFile>,
    /// Folders that were created for the lock, innermost first. Those that are still empty at the
    /// end are removed.
    created: Vec<PathBuf>,
    has_locks: bool,
}

impl FolderLock {
    /// Locks `folder` for this process and its `command`, and creates the folder if it is missing.
    /// A folder that cannot be written to is not locked: writing there gives its own error.
    ///
    /// # Errors
    /// When another process works there, or the folder cannot be created.
    pub fn take(folder: &Path, sharing: Sharing, command: &str) -> Result<Self> {
        Self::take_by(folder, sharing, command, |file, is_shared| {
            if is_shared {
                file.try_lock_shared()
            } else {
                file.try_lock()
            }
        })
    }

    /// As [`take`](Self::take), with the system's lock function as an argument.
    fn take_by(
        folder: &Path,
        sharing: Sharing,
        command: &str,
        try_lock: impl Fn(&File, bool) -> Result<(), TryLockError>,
    ) -> Result<Self> {
        let ancestors = folder.ancestors().filter(|path| *path != Path::new(""));
        let missing = ancestors.take_while(|path| !path.exists());
        let mut lock = Self {
            files: Vec::new(),
            created: missing.map(Path::to_owned).collect(),
            has_locks: true,
        };
        fs::create_dir_all(folder).with_context(|| {
            let doing = format!("creating the folder {}", folder.display());
            Error::new(ErrorKind::Usage, doing)
        })?;
        let names = match sharing {
            Sharing::Alone => vec![(NAME.to_owned(), false)],
            Sharing::Part(part) => vec![
                (NAME.to_owned(), true),
                (format!(".oneactor-{part}.lock"), false),
            ],
        };
        for (name, is_shared) in names {
            let path = folder.join(name);
            match LockFile::take(&path, is_shared, &try_lock)? {
                LockResult::Held(mut file) => {
                    file.tell(command);
                    lock.files.push(file);
                }
                LockResult::ByAnother(holder) => {
                    return Err(in_use(folder, sharing, is_shared, holder));
                }
                LockResult::NotWritable => {}
                LockResult::NoLocks => lock.has_locks = false,
            }
        }
        Ok(lock)
    }

    /// Whether the file system supports locks.
    pub fn has_locks(&self) -> bool {
        self.has_locks
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // The lock file for everybody is released last.
        while let Some(file) = self.files.pop() {
            file.release();
        }
        for folder in &self.created {
            // Folders that are not empty stay.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn in_use(
    folder: &Path,
    sharing: Sharing,
    is_shared: bool,
    holder: Option<Holder>,
) -> anyhow::Error {
    let who = match holder {
        Some(Holder {
            command,
            process,
            host,
        }) => {
            let host = host.map_or_else(String::new, |host| format!(" on {host}"));
            format!("`oneactor {command}` (process {process}{host})")
        }
        None => "another process".to_owned(),
    };
    let what = match sharing {
        Sharing::Part(part) if !is_shared => format!("does part {part} in it"),
        _ => "works in it".to_owned(),
    };
    runtime(format!(
        "the folder {} is in use: {who} {what}; wait until it has ended, or choose another folder",
        folder.display()
    ))
}

/// A file with a lock.
#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    file: File,
    is_shared: bool,
}

/// The result of an attempt to lock.
enum LockResult {
    Held(LockFile),
    ByAnother(Option<Holder>),
    NotWritable,
    NoLocks,
}

impl LockFile {
    fn take(
        path: &Path,
        is_shared: bool,
        try_lock: &impl Fn(&File, bool) -> Result<(), TryLockError>,
    ) -> Result<LockResult> {
        for _ in 0..MOST_TRIES {
            let mut file = match open(path) {
                Ok(file) => file,
                // Another process created the folder, left it empty and has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if is_no_permission(&error) => return Ok(LockResult::NotWritable),
                Err(error) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            };
            match try_lock(&file, is_shared) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Ok(LockResult::ByAnother(read_holder(&mut file)));
                }
                Err(TryLockError::Error(_)) => {
                    let _ = fs::remove_file(path);
                    return Ok(LockResult::NoLocks);
                }
            }
            let (path, file) = (path.to_owned(), file);
            let taken = Self {
                path,
                file,
                is_shared,
            };
            // The previous holder may have removed the file after it was opened here.
            if taken.is_in_place() {
                return Ok(LockResult::Held(taken));
            }
        }
        Err(runtime(format!(
            "locking {}: other processes keep starting and ending in this folder: try again",
            path.display()
        )))
    }

    fn is_in_place(&self) -> bool {
        let id = |found: fs::Metadata| (found.dev(), found.ino());
        let here = self.file.metadata().map(id).ok();
        here.is_some() && here == fs::symlink_metadata(&self.path).map(id).ok()
    }

    /// Writes who works here into the file, for others to read. A failure is ignored: the lock
    /// holds anyway.
    fn tell(&mut self, command: &str) {
        let holder = Holder {
            command: command.to_owned(),
            process: std::process::id(),
            host: host(),
        };
        let line = serde_json::to_string(&holder).unwrap_or_default();
        let _ = if self.is_shared {
            self.file.seek(SeekFrom::End(0)).map(drop)
        } else {
            self.file.set_len(0)
        };
        let _ = self.file.write_all(format!("{line}\n").as_bytes());
    }

    /// Ends the lock and removes the file, unless others share it.
    fn release(self) {
        let is_last = !self.is_shared
            || (self.file.unlock().is_ok() && self.file.try_lock().is_ok() && self.is_in_place());
        if is_last {
            // A file that could not be removed means nothing without the lock.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the file and creates it if it is missing. A link that somebody has put there is not
/// followed.
fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW);
    let written = options
        .clone()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    match written {
        // The file belongs to somebody else but is readable, which is enough for a lock.
        Err(error) if is_no_permission(&error) && path.exists() => options.open(path),
        written => written,
    }
}

fn is_no_permission(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Who holds a lock; if several do, the last that came.
fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(1 << 16).read_to_string(&mut text).ok()?;
    let last = text.lines().last()?;
    serde_json::from_str(last).ok()
}

/// The name of this machine, if Linux tells it.
fn host() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("oneactor-lock-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn refused(folder: &Path, sharing: Sharing) -> String {
        let error = FolderLock::take(folder, sharing, "tune").expect_err("it is in use");
        error.to_string()
    }

    #[test]
    fn a_folder_is_held_by_one_and_what_was_created_for_it_goes_again() -> Result<()> {
        let root = folder("alone");
        let place = root.join("a/b");
        let lock = FolderLock::take(&place, Sharing::Alone, "sample")?;
        let message = refused(&place, Sharing::Alone);
        let process = format!("`oneactor sample` (process {}", std::process::id());
        assert!(message.contains(&process), "{message}");
        assert!(refused(&place, Sharing::Part("1-of-2")).contains(&process));
        drop(lock);
        assert!(!root.exists());
        let lock = FolderLock::take(&place, Sharing::Alone, "sample")?;
        fs::write(place.join("picture"), "")?;
        drop(lock);
        assert_eq!(fs::read_dir(&place)?.count(), 1);
        fs::remove_dir_all(&root)?;
        Ok(())
    }

    #[test]
    fn parts_share_a_folder_and_each_is_done_once() -> Result<()> {
        let place = folder("parts");
        let take = |part| FolderLock::take(&place, Sharing::Part(part), "sample");
        let (first, second) = (take("1-of-2")?, take("2-of-2")?);
        assert!(refused(&place, Sharing::Alone).contains("works in it"));
        assert!(refused(&place, Sharing::Part("2-of-2")).contains("does part 2-of-2"));
        drop(first);
        let again = take("1-of-2")?;
        drop((second, again));
        assert_eq!(fs::read_dir(&place)?.count(), 0);
        fs::remove_dir(&place)?;
        Ok(())
    }

    #[test]
    fn what_a_killed_process_has_left_blocks_nobody_and_a_link_is_not_written_to() -> Result<()> {
        let place = folder("left");
        fs::create_dir_all(&place)?;
        fs::write(place.join(NAME), "{\"command\": \"tune\", \"process\": 1}")?;
        drop(FolderLock::take(&place, Sharing::Alone, "tune")?);
        assert_eq!(fs::read_dir(&place)?.count(), 0);
        fs::write(place.join("precious"), "precious")?;
        std::os::unix::fs::symlink("precious", place.join(NAME))?;
        FolderLock::take(&place, Sharing::Alone, "tune").expect_err("it is a link");
        assert_eq!(fs::read(place.join("precious"))?, b"precious");
        fs::remove_dir_all(&place)?;
        Ok(())
    }

    #[test]
    fn without_locks_the_work_continues() -> Result<()> {
        let place = folder("none");
        let no_locks = |_: &File, _| Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        let lock = FolderLock::take_by(&place, Sharing::Alone, "tune", no_locks)?;
        assert!(!lock.has_locks());
        assert_eq!(fs::read_dir(&place)?.count(), 0);
        drop(lock);
        assert!(!place.exists());
        Ok(())
    }
}
