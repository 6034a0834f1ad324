//! Finds where a path leads, even if nothing exists there yet, so that two spellings of one folder
//! are recognised before the folder is created.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The number of links that may follow each other, as in Linux.
const MOST_LINKS: usize = 40;

/// The absolute path without links, `.` and `..`. Parts that do not exist yet count as plain
/// folders, because they would be created as such.
pub fn real_path(path: &Path) -> PathBuf {
    // Without a working folder there is no other spelling to compare with.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut links = MOST_LINKS;
    follow(PathBuf::new(), &absolute, &mut links)
}

/// The folder of `file`: `.` for a bare name.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// `real`, which contains no links, followed by the parts of `path`.
fn follow(mut real: PathBuf, path: &Path, links: &mut usize) -> PathBuf {
    for part in path.components() {
        match part {
            Component::Prefix(_) | Component::RootDir => real.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                real.pop();
            }
            Component::Normal(name) => {
                let next = real.join(name);
                real = match fs::read_link(&next) {
                    Ok(target) if *links > 0 => {
                        *links -= 1;
                        follow(real, &target, links)
                    }
                    _ => next,
                };
            }
        }
    }
    real
}

/// A file or folder that exists or may be created, to be compared with others.
#[derive(Clone, Debug)]
pub struct RealPlace {
    path: PathBuf,
    /// Device and inode of the existing file or folder.
    found: Option<(u64, u64)>,
}

impl RealPlace {
    /// Where `path` leads.
    pub fn of(path: &Path) -> Self {
        let found = fs::metadata(path).ok();
        Self {
            path: real_path(path),
            found: found.map(|found| (found.dev(), found.ino())),
        }
    }

    /// Whether `other`, which must have been made just now, is the same place. For a place that
    /// exists, this also holds if the file system ignores case or shows one folder in two places.
    /// Existence is checked again, because the inode of a removed folder is reused.
    pub fn is_same(&self, other: &RealPlace) -> bool {
        let is_one = self.found.is_some() && self.found == other.found;
        let is_there = || RealPlace::of(&self.path).found == self.found;
        (is_one && is_there()) || self.path == other.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;
    use std::os::unix::fs::symlink;

    #[test]
    fn spellings_of_one_folder_are_one_before_and_after_it_is_there() -> Result<()> {
        let root = std::env::temp_dir().join(format!("oneactor-real-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("a/b"))?;
        let root = root.canonicalize()?;
        symlink("a/b", root.join("link"))?;
        symlink("later", root.join("dangling"))?;
        symlink("loop", root.join("loop"))?;
        let real = |path: &str| real_path(&root.join(path));
        assert_eq!(real("a/./x/../new"), root.join("a/new"));
        assert_eq!(real("link/new"), root.join("a/b/new"));
        // The parent of the folder that a link leads to.
        assert_eq!(real("link/../new"), root.join("a/new"));
        assert_eq!(real("dangling/x"), root.join("later/x"));
        assert_eq!(real("loop"), root.join("loop"));
        assert_eq!(real("../../../../../../../.."), Path::new("/"));
        for path in ["a", "a/b", "link", "."] {
            assert_eq!(real(path), root.join(path).canonicalize()?, "{path}");
        }
        let place = |path: &str| RealPlace::of(&root.join(path));
        assert!(place("link").is_same(&place("a/b")) && place("dangling").is_same(&place("later")));
        assert!(!place("a").is_same(&place("A")));
        // As on a file system that ignores case: two names of one file.
        fs::write(root.join("page"), "")?;
        fs::hard_link(root.join("page"), root.join("Page"))?;
        assert!(place("page").is_same(&place("Page")));
        fs::remove_dir_all(&root)?;
        Ok(())
    }

    #[test]
    fn a_folder_that_has_the_number_of_one_that_is_gone_is_another() {
        let here = RealPlace::of(&std::env::temp_dir());
        let gone = RealPlace {
            path: PathBuf::from("/no/such/folder"),
            found: here.found,
        };
        assert!(!gone.is_same(&here));
        assert!(here.is_same(&here));
    }
}
