//! `gallery`: a page of the pictures in folders, with prompts, seeds, settings and the commands that draw them again.

mod actors;
mod folder;
mod scope;

use anyhow::Result;
use serde_json::json;

use crate::cli::GalleryFlags;
use crate::config::GalleryJob;
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::io::writable::create_folder;
use crate::pages::gallery::{self, Folder, GalleryPage, Readable};
use crate::progress::PICTURES;
use crate::records::{BaseFolder, SceneFolder};
use crate::run::session::Session;
use crate::wording::counted;

use scope::Scope;

/// Writes the page; a dry run only reads the pictures. What cannot be read is warned of and left out.
///
/// # Errors
/// When the folders hold no readable picture of this program, or the page cannot be written.
pub fn run(flags: &GalleryFlags) -> Result<()> {
    let session = Session::start("gallery", &flags.run.run())?;
    let job = GalleryJob::check(flags)?;
    let scope = Scope::of(&job.folders, &session.reporter);
    let folders = read_folders(&job, &scope);
    if folders.is_empty() {
        return Err(no_picture(&job));
    }
    for folder in &folders {
        session.reporter.detail(&folder.path.display().to_string());
        for note in &folder.notes {
            session
                .reporter
                .warn(&format!("{}: {note}", folder.path.display()));
        }
    }
    let pictures: usize = folders.iter().map(|folder| folder.pictures.len()).sum();
    session
        .reporter
        .start("reading pictures", pictures, PICTURES);
    let readable: Readable = &|result| scope.readable(result);
    let GalleryPage { html, pictures } = gallery::write(&folders, readable, &mut || {
        session.reporter.advance("");
        session.signals.check()
    })?;
    session.reporter.finish();
    if pictures == 0 {
        return Err(no_picture(&job));
    }
    let facts = json!({"pictures": pictures, "bytes": html.len()});
    if session.dry_run {
        session.reporter.note(&format!(
            "the page would have {}",
            counted(pictures, "picture", "pictures")
        ));
        session.list(&job.page, "page", "planned", facts);
        return Ok(());
    }
    if let Some(folder) = job.page.parent() {
        create_folder(folder)?;
    }
    write_bytes_atomically(&job.page, html.as_bytes())?;
    session.wrote(&job.page, "page", facts);
    Ok(())
}

/// The folders with pictures, each once.
fn read_folders(job: &GalleryJob, scope: &Scope) -> Vec<Folder> {
    let mut folders = Vec::new();
    for path in &job.folders {
        for found in folder::below(path, scope) {
            // A folder may be named twice, or lie below another folder that is named.
            if folders.iter().all(|other: &Folder| !other.is_at(&found)) {
                folders.extend(Folder::read(&found, scope));
            }
        }
    }
    folders
}

fn no_picture(job: &GalleryJob) -> anyhow::Error {
    let (what, place) = match &job.folders[..] {
        [only] => (
            format!("{} holds", only.display()),
            "in it or in a folder below it",
        ),
        _ => ("the folders hold".to_owned(), "in them or below them"),
    };
    usage(format!(
        "{what} no picture of this program: expected {} or {} {place}, and pictures that can be read",
        SceneFolder::MANIFEST,
        BaseFolder::RECORD
    ))
}
