//! What the hub was asked for, and the messages for the user if a request fails.

use std::io::{Error as IoError, ErrorKind as Io};

use super::address;
use super::settings::HubSettings;
use super::trouble::Trouble;
use crate::error::model;

/// What the hub was asked for when the request failed.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) settings: &'a HubSettings,
    pub(super) id: &'a str,
    pub(super) revision: &'a str,
    /// A file, or `None` for the list of files.
    pub(super) file: Option<&'a str>,
}

impl Question<'_> {
    /// The message for the user, with what to do.
    pub(super) fn explain(self, trouble: &Trouble) -> anyhow::Error {
        let Question { settings, id, .. } = self;
        let page = format!("{}/{id}", settings.endpoint);
        let what = self
            .file
            .map_or_else(|| id.to_owned(), |file| format!("{file} of {id}"));
        model(match trouble {
            Trouble::Refused(status, code) => {
                return self.explain_refusal(*status, code.as_deref(), &page);
            }
            Trouble::Cut(cause) => format!(
                "cannot reach {} for {what}: {cause}; check the network (and HTTPS_PROXY), give a local folder as the model, use the option offline with a filled cache, or try the model toy, which needs no download",
                settings.endpoint
            ),
            Trouble::Held => format!(
                "{what} is locked by another process that makes no progress: wait for it or end it, then run the same command again (cache {})",
                settings.cache.display()
            ),
            Trouble::Disk(error) => return self.explain_disk(error),
            Trouble::Useless | Trouble::Strange(_) => format!(
                "{} gave a strange answer for {what}: {}; check that HF_ENDPOINT names a hub, and that no proxy or login page of the network is in between",
                settings.endpoint,
                trouble.cause()
            ),
        })
    }

    fn explain_refusal(self, status: u16, code: Option<&str>, page: &str) -> anyhow::Error {
        let Question {
            settings,
            id,
            revision,
            ..
        } = self;
        let token = settings.token.as_ref();
        let given = token.map_or("no token was given".to_owned(), |token| {
            format!("the token from {} was given", token.origin())
        });
        model(match (status, code, token) {
            (401 | 403, Some("GatedRepo"), _) => format!(
                "{id} is gated and {given}: accept its licence at {page}, then set HF_TOKEN to a token of that account that may read gated repositories"
            ),
            (401, None, Some(token)) => format!(
                "the token from {} is refused by {} (status 401) for {id}: renew it, or unset it if the repository is public; a gated repository also needs its licence accepted at {page}",
                token.origin(),
                settings.endpoint
            ),
            (401 | 403, _, _) => format!(
                "{id} is not a folder here and not open on the hub (status {status}; {given}): either there is no repository of this name, or it is private or gated; check the spelling, or accept its licence at {page} and set HF_TOKEN"
            ),
            (404, Some("RevisionNotFound"), _) => format!(
                "{id} has no revision `{revision}`: see {page}/commits/main, or leave the revision out"
            ),
            (404, _, _) if self.file.is_some() && code != Some("RepoNotFound") => format!(
                "{id} has no file {} at revision {revision} (see {})",
                self.file.unwrap_or_default(),
                address::of_page(page, "tree", revision, None)
            ),
            (404, _, _) => format!(
                "there is no folder {id} here and no repository {id} at {} ({given}): check the spelling",
                settings.endpoint
            ),
            (429, _, _) => format!(
                "{} refused because there were too many requests (status 429; {given}): wait some minutes and run the same command again; a token (HF_TOKEN) raises the limit",
                settings.endpoint
            ),
            _ => format!(
                "{} answered with status {status} for {id}{}: run the same command again later; what was fetched is kept",
                settings.endpoint,
                self.file
                    .map_or_else(String::new, |file| format!(", {file}"))
            ),
        })
    }

    /// The error for a failure to read or write the cache.
    pub(super) fn explain_disk(self, error: &IoError) -> anyhow::Error {
        let what = self.file.unwrap_or(self.id);
        let cache = self.settings.cache.display();
        model(match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => format!(
                "no space left for {what} in the cache {cache}: free some space, or set HF_HOME to a larger disk, and run the same command again; what was fetched is kept"
            ),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => format!(
                "cannot write {what} to the cache {cache}: {error}; set HF_HOME to a folder that you may write to"
            ),
            _ => format!("cannot write {what} to the cache {cache}: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(trouble: Trouble) -> String {
        let settings = HubSettings::new("/somewhere/hub");
        let question = Question {
            settings: &settings,
            id: "org/name",
            revision: "main",
            file: Some("unet/config.json"),
        };
        question.explain(&trouble).to_string()
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_connection() {
        const ENOSPC: i32 = 28;
        let full = Trouble::from(IoError::from_raw_os_error(ENOSPC));
        assert!(!full.may_pass());
        let message = said(full);
        assert!(
            message.contains("no space left for unet/config.json"),
            "{message}"
        );
        assert!(message.contains("HF_HOME"), "{message}");

        const ECONNRESET: i32 = 104;
        let reset = Trouble::from(IoError::from_raw_os_error(ECONNRESET));
        assert!(reset.may_pass());
    }

    #[test]
    fn every_refusal_is_one_line_with_a_way_out() {
        for (status, code) in [
            (401, None),
            (401, Some("GatedRepo")),
            (403, None),
            (404, None),
            (404, Some("RevisionNotFound")),
            (429, None),
            (503, None),
        ] {
            let message = said(Trouble::Refused(status, code.map(str::to_owned)));
            assert!(
                !message.contains('\n') && message.contains("org/name") | message.contains("429"),
                "{message}"
            );
        }
    }
}
