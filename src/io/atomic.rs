//! Files that appear under their final name only when they are complete.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Writes a file completely or not at all: `write` fills a temporary file in the same folder, which
/// is then flushed to the disk and renamed to `path`.
///
/// # Errors
/// When the folder cannot be written, the disk is full or `write` fails. The temporary file is
/// removed, and an older file at `path` is not changed.
pub fn write_atomically<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let temporary = temporary_path(path)?;
    let value = fill(&temporary, write)
        .and_then(|value| {
            fs::rename(&temporary, path)?;
            Ok(value)
        })
        .inspect_err(|_| {
            // The reason for the failure matters more than a temporary file that could not be
            // removed.
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(value)
}

/// Writes `bytes` completely or not at all, see [`write_atomically`].
///
/// # Errors
/// As [`write_atomically`].
pub fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |file| {
        file.write_all(bytes)?;
        Ok(())
    })
}

/// As [`write_bytes_atomically`], for a file that is soon replaced. A reader finds the file
/// complete, but a crash of the machine may lose it, because nothing waits for the disk.
///
/// # Errors
/// As [`write_atomically`].
pub fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_path(path)?;
    create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("writing {}", path.display()))
}

/// A temporary file that has not changed for this long was left by a killed process.
const LEFT_AFTER: Duration = Duration::from_secs(3600);

/// Removes the temporary files that killed processes have left in `folder`. The process number in
/// the name does not tell whether the process still runs, because it may run on another machine or
/// in another container. But no process takes an hour to write a file.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if !is_temporary(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > LEFT_AFTER) {
            // A file that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file's name has the form that [`temporary_path`] gives.
fn is_temporary(name: &str) -> bool {
    let inner = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".part"));
    let process = inner.and_then(|inner| inner.rsplit_once('.'));
    process.is_some_and(|(_, process)| process.parse::<u32>().is_ok())
}

fn fill<T>(temporary: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let mut file = create(temporary)?;
    let value = write(&mut file)?;
    file.sync_all()?;
    Ok(value)
}

/// Creates a new file. A file left by a killed process with the same number is removed first.
/// Anything that somebody else put there, such as a link to another file, is not written to.
pub(super) fn create(temporary: &Path) -> std::io::Result<File> {
    let _ = fs::remove_file(temporary);
    File::create_new(temporary)
}

/// A hidden name beside `path`. It contains the process number, so that two runs use different
/// names.
pub(super) fn temporary_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        bail!("{} does not name a file", path.display());
    };
    let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Deref;
    use std::time::SystemTime;

    #[test]
    fn a_finished_file_replaces_the_old_one_and_leaves_nothing_else() -> Result<()> {
        let folder = folder("replaces")?;
        let path = folder.join("a.txt");
        write_bytes_atomically(&path, b"old")?;
        write_bytes_atomically(&path, b"new")?;
        assert_eq!(fs::read(&path)?, b"new");
        assert_eq!(fs::read_dir(&*folder)?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_temporary_one() -> Result<()> {
        let folder = folder("failure")?;
        let path = folder.join("a.txt");
        write_bytes_atomically(&path, b"old")?;
        let error = write_atomically(&path, |file| -> Result<()> {
            file.write_all(b"half of it")?;
            bail!("the disk is full")
        })
        .expect_err("the closure fails");
        assert!(format!("{error:#}").contains("a.txt: the disk is full"));
        assert_eq!(fs::read(&path)?, b"old");
        assert_eq!(fs::read_dir(&*folder)?.count(), 1);
        Ok(())
    }

    #[test]
    fn what_lies_under_the_temporary_name_is_not_written_to() -> Result<()> {
        let folder = folder("planted")?;
        let (path, precious) = (folder.join("a.png"), folder.join("precious"));
        fs::write(&precious, b"precious")?;
        for write in [write_bytes_atomically, replace_bytes] {
            std::os::unix::fs::symlink(&precious, temporary_path(&path)?)?;
            write(&path, b"new")?;
            assert_eq!(fs::read(&precious)?, b"precious");
            assert_eq!(fs::read(&path)?, b"new");
            assert!(!path.is_symlink());
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_bytes_atomically(Path::new("/nowhere/at/all.txt"), b"")
            .expect_err("the folder is missing");
        assert!(format!("{error:#}").contains("/nowhere/at/all.txt"));
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_nothing_else() -> Result<()> {
        let folder = folder("leftovers")?;
        let long_ago = SystemTime::now() - 2 * LEFT_AFTER;
        for (name, changed) in [
            (".a.png.7.part", long_ago),
            (".b.png.7.part", SystemTime::now()),
            (".c.part", long_ago),
            ("d.png.7.part", long_ago),
            ("e.png", long_ago),
        ] {
            File::create(folder.join(name))?.set_modified(changed)?;
        }
        remove_leftovers(&folder);
        let entries = fs::read_dir(&*folder)?.collect::<std::io::Result<Vec<_>>>()?;
        let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        names.sort();
        assert_eq!(names, [".b.png.7.part", ".c.part", "d.png.7.part", "e.png"]);
        assert!(is_temporary(
            &temporary_path(&folder.join("a.png"))?
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
        ));
        Ok(())
    }

    /// A folder that is removed at the end of its test.
    struct Scratch(PathBuf);

    impl Deref for Scratch {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Result<Scratch> {
        let folder =
            std::env::temp_dir().join(format!("oneactor-atomic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(Scratch(folder))
    }
}
