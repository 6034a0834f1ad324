//! Facts about a repository's files before they are fetched, and their licence.

use std::path::PathBuf;

use super::address::{self, FileName};
use super::leftover;
use super::licence::{Licence, LicenceFields};
use super::{HubRepo, checked};
use crate::io::needed_file::NeededFile;
use crate::io::text;

impl HubRepo {
    /// The repository's id, `owner/name`.
    pub(in crate::io) fn id(&self) -> &str {
        &self.id
    }

    /// Facts about the file `name`. The hub is asked only if the file is not in the cache.
    ///
    /// # Errors
    /// When the hub refuses or cannot be reached.
    pub(in crate::io) fn know(&self, name: &str) -> anyhow::Result<NeededFile> {
        let file_name = checked(name)?;
        let path = self.cache.place_of(&self.commit, file_name);
        if let Some(here) = self.cache.file(&self.commit, file_name) {
            let bytes = here.metadata().map_or(0, |data| data.len());
            return Ok(NeededFile {
                name: name.to_owned(),
                path: Some(path),
                bytes: Some(bytes),
                missing: Some(0),
            });
        }
        let listing = self.listing()?;
        let Some(file) = listing.files.get(name) else {
            return Err(self.lacks(name, listing));
        };
        let arrived = leftover::head_start(&self.cache, file);
        // The cache may have the same content for another commit.
        let stored = file.etag.as_deref().map(|etag| self.cache.blob(etag));
        let missing = if stored.is_some_and(|blob| blob.is_file()) {
            Some(0)
        } else {
            file.size.map(|size| size.saturating_sub(arrived))
        };
        Ok(NeededFile {
            name: name.to_owned(),
            path: Some(path),
            bytes: file.size,
            missing,
        })
    }

    /// The folder of the repository's files in the cache.
    pub(in crate::io) fn folder(&self) -> PathBuf {
        self.cache.snapshot(&self.commit)
    }

    /// Names of the known files that contain the text of the licence.
    pub(in crate::io) fn licence_files(&self) -> Vec<String> {
        let names = match self.listing.get() {
            Some(listing) => listing.files.keys().cloned().collect(),
            None => self.cached_names(),
        };
        let is_licence = |name: &String| {
            let name = name.to_uppercase();
            let stem = name.strip_suffix(".MD").or(name.strip_suffix(".TXT"));
            let stem = stem.unwrap_or(&name);
            stem.starts_with("LICENSE") || stem.starts_with("LICENCE")
        };
        let mut names: Vec<String> = names;
        names.retain(|name| is_licence(name) && !name.contains('/'));
        names
    }

    /// The repository's licence, from the hub if it was asked, otherwise from the README in the
    /// cache.
    pub(in crate::io) fn licence(&self) -> Licence {
        let told = self.listing.get().and_then(|listing| listing.licence());
        let fields = told.unwrap_or_else(|| {
            let readme = FileName::checked("README.md").ok();
            let readme = readme.and_then(|name| self.cache.file(&self.commit, name));
            let text = readme.and_then(|path| text::read(&path).ok());
            LicenceFields::of_readme(&text.unwrap_or_default())
        });
        let page = format!("{}/{}", self.settings.endpoint, self.id);
        let file = self.licence_files().into_iter().next();
        let file = file.as_deref().map(FileName::checked).and_then(Result::ok);
        let link = file.map(|file| address::of_page(&page, "blob", &self.commit, Some(file)));
        fields.licence(link, &page)
    }
}
