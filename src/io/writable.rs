//! Checks that files can be written before anything is computed for them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use super::atomic::{create, temporary_path};
use crate::error::{Error, ErrorKind as Kind, usage};

/// Creates a folder and all missing parent folders.
///
/// # Errors
/// When the folder cannot be created.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| {
        Error::new(
            Kind::Usage,
            format!("creating the folder {}", path.display()),
        )
    })
}

/// Checks that a folder exists or can be created. Nothing is written to a folder that exists,
/// because the run may have nothing to write.
///
/// # Errors
/// When a file is in the way, a name is too long, or the nearest existing parent refuses new files.
pub fn check_folder(folder: &Path) -> Result<()> {
    let there = nearest(folder)?;
    if folder.is_dir() {
        Ok(())
    } else {
        try_to_write(&there)
    }
}

/// Checks that files can be written under these names, in folders that exist or can be created.
///
/// # Errors
/// As [`check_folder`], and when a folder has the name of a file.
pub fn check_files(files: &[PathBuf]) -> Result<()> {
    let mut known: HashMap<&Path, PathBuf> = HashMap::new();
    for file in files {
        if file.is_dir() && !file.is_symlink() {
            return Err(usage(format!(
                "{} is a folder, but a file of that name is to be written: choose another name or folder",
                file.display()
            )));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        if !known.contains_key(folder) {
            let there = nearest(folder)?;
            try_to_write(&there)?;
            known.insert(folder, there);
        }
        // An incomplete file has a longer, temporary name.
        let temporary = temporary_path(file)?;
        let name = temporary.file_name().unwrap_or_default();
        check_name(&temporary, &known[folder].join(name))?;
    }
    Ok(())
}

/// Checks that new files can be written in a folder that exists or can be created.
///
/// # Errors
/// As [`check_folder`].
pub fn check_new_files(folder: &Path) -> Result<()> {
    try_to_write(&nearest(folder)?)
}

/// The nearest existing folder among a folder and its parents.
fn nearest(folder: &Path) -> Result<PathBuf> {
    let folder = if folder == Path::new("") {
        Path::new(".")
    } else {
        folder
    };
    let refused = |place: &Path, error: &io::Error| {
        usage(format!(
            "{} cannot be used as a folder: {error}: choose another",
            place.display()
        ))
    };
    let whole = std::path::absolute(folder).map_err(|error| refused(folder, &error))?;
    for place in whole.ancestors() {
        match fs::metadata(place) {
            Ok(metadata) if metadata.is_dir() => {
                let missing = whole.strip_prefix(place).unwrap_or(&whole);
                for name in missing {
                    check_name(folder, &place.join(name))?;
                }
                return Ok(place.to_owned());
            }
            Ok(_) if place == whole => {
                return Err(usage(format!(
                    "{} is a file, expected a folder: choose another folder, or move the file away",
                    folder.display()
                )));
            }
            Ok(_) => {
                return Err(usage(format!(
                    "{} cannot be a folder, because {} is a file: choose another folder, or move the file away",
                    folder.display(),
                    place.display()
                )));
            }
            Err(error) if error.kind() == ErrorKind::NotFound && place.is_symlink() => {
                return Err(usage(format!(
                    "{} cannot be a folder, because {} is a link that leads nowhere: choose another folder, or remove \
                     the link",
                    folder.display(),
                    place.display()
                )));
            }
            // A file in its place is found at its parent.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                return Err(too_long(folder));
            }
            Err(error) => return Err(refused(place, &error)),
        }
    }
    Err(refused(folder, &ErrorKind::NotFound.into()))
}

/// Checks that the system accepts a name in an existing folder; `shown` is the path in the message.
fn check_name(shown: &Path, path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::InvalidFilename => Err(too_long(shown)),
        _ => Ok(()),
    }
}

fn too_long(path: &Path) -> anyhow::Error {
    usage(format!(
        "{}: the name is too long for this disk: choose a shorter one",
        path.display()
    ))
}

/// Writes an empty file into an existing folder and removes it: only the system knows about
/// permissions, read-only disks and quotas.
fn try_to_write(folder: &Path) -> Result<()> {
    static TRIALS: AtomicUsize = AtomicUsize::new(0);
    let number = TRIALS.fetch_add(1, Ordering::Relaxed);
    let trial = temporary_path(&folder.join(format!("trial-{number}")))?;
    create(&trial)
        .and_then(|_| fs::remove_file(&trial))
        .map_err(|error| {
            usage(format!(
                "nothing can be written in {}: {error}: choose another folder",
                folder.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_in_the_way_is_named_and_nothing_is_left() -> Result<()> {
        let root = std::env::temp_dir().join(format!("oneactor-writable-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("folder/inner"))?;
        fs::write(root.join("file"), "")?;
        symlink("nowhere", root.join("link"))?;
        symlink("folder", root.join("good"))?;
        let long = "x".repeat(300);
        let refused = [
            ("file", "is a file"),
            ("file/a/b", "is a file"),
            ("link/a", "leads nowhere"),
            (&*long, "too long"),
            (&*format!("a/b/{long}/c"), "too long"),
            (&*"a/".repeat(3000), "too long"),
        ];
        for (folder, why) in refused {
            let folder = root.join(folder);
            for found in [
                check_folder(&folder),
                check_files(&[folder.join("grid.png")]),
            ] {
                let error = found.expect_err(why).to_string();
                assert!(error.contains(why), "{error}");
            }
        }
        for folder in ["folder", "good", "good/new/newer", "new"] {
            let folder = root.join(folder);
            check_folder(&folder)?;
            check_files(&[folder.join("a.png"), folder.join("b/c.png")])?;
        }
        let in_the_way = check_files(&[root.join("folder/inner")]);
        let error = in_the_way.expect_err("a folder").to_string();
        assert!(error.contains("is a folder"), "{error}");
        // Linux allows 255 bytes, and the temporary name is longer.
        let page = root.join(format!("{}.html", "x".repeat(250)));
        let error = check_files(&[page]).expect_err("its temporary name");
        assert!(error.to_string().contains("too long"), "{error}");
        assert_eq!(fs::read_dir(&root)?.count(), 4);
        assert_eq!(fs::read_dir(root.join("folder"))?.count(), 1);
        Ok(fs::remove_dir_all(&root)?)
    }
}
