//! The hub's cache on disk, in the layout of Python's `huggingface_hub`:
//! `models--org--name/{refs/<revision>, snapshots/<commit>/<file> -> ../../blobs/<etag>}`,
//! `.no_exist/<commit>/<file>` for files that a commit is known not to have, and
//! `.locks/models--org--name/<etag>.lock` beside the repositories.
//!
//! Unfinished downloads are in `models--org--name/.partial/<etag>/`, a folder that Python ignores.
//! A file enters `blobs` and `snapshots` only when it is complete and checked.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::Repo;

use super::address::FileName;

/// One repository in the cache. Nothing here uses the network.
#[derive(Clone, Debug)]
pub(super) struct CachedRepo {
    root: PathBuf,
    locks: PathBuf,
}

impl CachedRepo {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        let name = folder_name(id);
        Self {
            root: cache.join(&name),
            locks: cache.join(".locks").join(&name),
        }
    }

    /// Whether any snapshot of the repository is in the cache.
    pub(super) fn is_present(&self) -> bool {
        fs::read_dir(self.root.join("snapshots")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The commit of `revision` when the hub was last asked.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers the commit of `revision`.
    pub(super) fn set_commit_of(&self, revision: &str, commit: &str) -> io::Result<()> {
        if is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        create_parent(&path)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&temporary, commit)?;
        fs::rename(&temporary, &path)
    }

    /// The revisions that the cache knows by name.
    pub(super) fn revisions(&self) -> Vec<String> {
        files_under(&self.root.join("refs"))
    }

    /// The path of the complete file `name` of `commit`.
    pub(super) fn file(&self, commit: &str, name: FileName) -> Option<PathBuf> {
        let path = self.place_of(commit, name);
        path.is_file().then_some(path)
    }

    /// The path at which the file `name` of `commit` appears when it is complete.
    pub(super) fn place_of(&self, commit: &str, name: FileName) -> PathBuf {
        self.snapshot(commit).join(name.as_str())
    }

    /// All complete files of `commit`.
    pub(super) fn files(&self, commit: &str) -> Vec<String> {
        files_under(&self.snapshot(commit))
    }

    /// Whether `commit` is known to have no file `name`.
    pub(super) fn is_absent(&self, commit: &str, name: FileName) -> bool {
        self.absence(commit, name).is_file()
    }

    /// Remembers that `commit` has no file `name`. A failure is ignored: it only costs another
    /// request.
    pub(super) fn set_absent(&self, commit: &str, name: FileName) {
        let path = self.absence(commit, name);
        if create_parent(&path).is_ok() {
            File::create(path).ok();
        }
    }

    /// The path for the content with this etag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The folder of the unfinished download for `etag`.
    pub(super) fn staging(&self, etag: &str) -> PathBuf {
        self.root.join(".partial").join(etag)
    }

    /// Removes the unfinished download for `etag`.
    pub(super) fn clear_staging(&self, etag: &str) {
        fs::remove_dir_all(self.staging(etag)).ok();
        fs::remove_dir(self.root.join(".partial")).ok();
    }

    /// The lock that Python also takes before it fetches the content with this etag.
    pub(super) fn open_lock(&self, etag: &str) -> io::Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
    }

    /// Moves a complete file to its path among the blobs.
    pub(super) fn store(&self, complete: &Path, etag: &str) -> io::Result<()> {
        let blob = self.blob(etag);
        create_parent(&blob)?;
        fs::rename(complete, blob)
    }

    /// Links the blob `etag` as the file `name` of `commit`. If links are not possible, the blob
    /// itself is moved to that path, as in Python.
    pub(super) fn link(&self, commit: &str, name: FileName, etag: &str) -> io::Result<PathBuf> {
        let path = self.place_of(commit, name);
        create_parent(&path)?;
        if path.is_symlink() {
            fs::remove_file(&path)?;
        }
        let mut target = PathBuf::from("../..");
        target.extend(name.as_str().split('/').skip(1).map(|_| ".."));
        target.extend(["blobs", etag]);
        if symlink(&target, &path).is_err() && !path.is_file() {
            fs::rename(self.blob(etag), &path)?;
        }
        Ok(path)
    }

    /// Bytes that any process, including Python's, has of the unfinished content `etag`.
    pub(super) fn bytes_under_way(&self, etag: &str) -> u64 {
        let theirs = self.leftovers(etag).into_iter().map(|(_, length)| length);
        self.bytes_staged(etag) + theirs.sum::<u64>()
    }

    /// Bytes of the unfinished content `etag` that this program fetched.
    pub(super) fn bytes_staged(&self, etag: &str) -> u64 {
        let folder = self.staging(etag);
        let names = files_under(&folder).into_iter();
        names
            .filter_map(|name| Some(folder.join(name).metadata().ok()?.len()))
            .sum()
    }

    /// Unfinished files of Python for the content `etag`, with their lengths.
    pub(super) fn leftovers(&self, etag: &str) -> Vec<(PathBuf, u64)> {
        let blobs = self.root.join("blobs");
        let started = format!("{etag}.");
        let names = files_under(&blobs).into_iter();
        names
            .filter(|name| name.starts_with(&started) && name.ends_with(".incomplete"))
            .filter_map(|name| {
                let path = blobs.join(name);
                let length = path.metadata().ok()?.len();
                Some((path, length))
            })
            .collect()
    }

    /// The folder of the files of `commit`.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    fn absence(&self, commit: &str, name: FileName) -> PathBuf {
        let folder = self.root.join(".no_exist").join(commit);
        folder.join(name.as_str())
    }
}

/// The folder of a repository in the cache.
pub(super) fn folder_name(id: &str) -> String {
    Repo::model(id.to_owned()).folder_name()
}

/// Whether `text` is a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// How deep a model's folders are followed. Without a limit, links to folders could lead in a
/// circle.
const DEPTH: usize = 4;

/// The files below `folder` as sorted relative paths with slashes. Broken links are left out.
pub(in crate::io) fn files_under(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = entry.path();
            if path.is_dir() {
                if prefix.matches('/').count() + 1 >= DEPTH {
                    continue;
                }
                open.push((path, format!("{prefix}{name}/")));
            } else if path.is_file() {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    found.sort();
    found
}
