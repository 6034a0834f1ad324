//! `gallery`: a page of the pictures in folders, with prompts, seeds, settings and the commands that draw them again.

mod actors;
mod folder;
mod page;

use anyhow::Result;
use serde_json::json;

use super::session::Session;
use crate::cli::GalleryFlags;
use crate::config::GalleryJob;
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use folder::Folder;

/// Writes the page.
///
/// # Errors
/// When the folders hold no picture of this program, one can not be read, or the page not be written.
pub fn run(flags: &GalleryFlags) -> Result<()> {
    let session = Session::start("gallery", &flags.run())?;
    let job = GalleryJob::check(flags)?;
    let mut folders = Vec::new();
    for path in &job.folders {
        let before = folders.len();
        for found in folder::below(path)? {
            // One may be named twice, or lie below another that is named.
            if folders.iter().all(|other: &Folder| !other.is_at(&found)) {
                folders.extend(Folder::read(&found)?);
            }
        }
        if folders.len() == before && job.folders.len() == 1 {
            return Err(usage(format!(
                "{} holds no picture of this program: expected manifest.jsonl or base.json in it or in a folder below it",
                path.display()
            )));
        }
    }
    if folders.is_empty() {
        return Err(usage(
            "the folders hold no picture of this program: expected manifest.jsonl or base.json in them or below them",
        ));
    }
    for folder in &folders {
        for note in &folder.notes {
            session
                .reporter
                .warn(&format!("{}: {note}", folder.path.display()));
        }
    }
    let pictures: usize = folders.iter().map(|folder| folder.pictures.len()).sum();
    session.reporter.start("reading pictures", pictures);
    let html = page::html(&folders, &mut || {
        session.reporter.advance("");
        session.signals.check()
    })?;
    session.reporter.finish();
    write_bytes_atomically(&job.page, html.as_bytes())?;
    let facts = json!({"pictures": pictures, "bytes": html.len()});
    session.wrote(&job.page, "page", facts);
    Ok(())
}
