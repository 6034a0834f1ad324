//! The folders of `gallery` and its page, checked.

use std::path::PathBuf;

use anyhow::Result;

use super::check;
use crate::cli::GalleryFlags;
use crate::error::usage;

/// The default name of the page.
const PAGE: &str = "gallery.html";

/// A checked job of `gallery`.
#[derive(Clone, Debug, PartialEq)]
pub struct GalleryJob {
    /// Folders that exist.
    pub folders: Vec<PathBuf>,
    /// The page.
    pub page: PathBuf,
}

impl GalleryJob {
    /// Checks the flags and fills in the page's name.
    ///
    /// # Errors
    /// Names the flag or folder, the value found and the value expected.
    pub fn check(flags: &GalleryFlags) -> Result<Self> {
        for folder in &flags.folders {
            if !folder.is_dir() {
                let found = if folder.exists() {
                    "is not a folder"
                } else {
                    "does not exist"
                };
                return Err(usage(format!(
                    "{} {found}, expected a folder with pictures of this program",
                    folder.display()
                )));
            }
        }
        let page = match (&flags.output, &flags.folders[..]) {
            (Some(page), _) => page.clone(),
            (None, [folder]) => folder.join(PAGE),
            (None, folders) => {
                return Err(usage(format!(
                    "--output is missing: it is needed with {} folders, for instance --output {PAGE}",
                    folders.len()
                )));
            }
        };
        check::page("--output", &page)?;
        Ok(Self {
            folders: flags.folders.clone(),
            page,
        })
    }
}
