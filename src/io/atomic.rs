//! Files that appear under their final name only when they are complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Writes a file as a whole or not at all: `write` fills a temporary file in the same folder,
/// which is then flushed to the disk and renamed to `path`.
///
/// # Errors
/// When the folder can not be written, the disk is full or `write` fails. The temporary file is
/// removed and whatever stood at `path` before is untouched.
pub fn write_atomically<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let temporary = temporary_path(path)?;
    let value = fill(&temporary, write)
        .and_then(|value| {
            fs::rename(&temporary, path)?;
            Ok(value)
        })
        .inspect_err(|_| {
            // The reason for the failure matters more than a leftover that could not be removed.
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(value)
}

/// Writes `bytes` as a whole or not at all, see [`write_atomically`].
///
/// # Errors
/// As [`write_atomically`].
pub fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |file| {
        std::io::Write::write_all(file, bytes)?;
        Ok(())
    })
}

fn fill<T>(temporary: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let mut file = File::create(temporary)?;
    let value = write(&mut file)?;
    file.sync_all()?;
    Ok(value)
}

/// A hidden name beside `path`; it holds the process number, so that two runs do not meet in it.
fn temporary_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        bail!("{} does not name a file", path.display());
    };
    let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_finished_file_replaces_the_old_one_and_leaves_nothing_else() -> Result<()> {
        let folder = folder("replaces")?;
        let path = folder.join("a.txt");
        write_bytes_atomically(&path, b"old")?;
        write_bytes_atomically(&path, b"new")?;
        assert_eq!(fs::read(&path)?, b"new");
        assert_eq!(fs::read_dir(&folder)?.count(), 1);
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
        assert_eq!(fs::read_dir(&folder)?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_bytes_atomically(Path::new("/nowhere/at/all.txt"), b"")
            .expect_err("the folder is missing");
        assert!(format!("{error:#}").contains("/nowhere/at/all.txt"));
    }

    fn folder(name: &str) -> Result<PathBuf> {
        let folder =
            std::env::temp_dir().join(format!("oneactor-atomic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}
