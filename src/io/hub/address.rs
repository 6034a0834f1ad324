//! The addresses of a hub's files, lists and pages, and the names that may be part of them.
//!
//! The addresses are those that `hf_hub_url` and `HfApi.model_info` of Python's `huggingface_hub`
//! build.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that Python's `quote(text, safe="")` encodes.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The characters that Python's `quote(text)` encodes.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// The name of a file in a repository, with slashes. Appended to a folder, it names a file inside
/// that folder, and an address with it leads to that file alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileName<'a>(&'a str);

impl<'a> FileName<'a> {
    /// The name, or what is wrong with it. Encoded forms such as `%2e%2e` are plain names, because
    /// they are encoded once more.
    pub(super) fn checked(name: &'a str) -> Result<Self, &'static str> {
        if name.split('/').any(str::is_empty) {
            return Err("a part between slashes is empty");
        }
        if name.split('/').any(|part| part == "." || part == "..") {
            return Err("it has a part `.` or `..`");
        }
        // URLs treat `\` like `/`, so `a\..\b` would leave the repository.
        if name.contains('\\') {
            return Err("it has a backslash");
        }
        if name.contains(char::is_control) {
            return Err("it has a control character");
        }
        Ok(Self(name))
    }

    /// The name as it was given.
    pub(super) fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether `text` can name a branch, a tag or a commit, by the rules of `git check-ref-format`.
///
/// A leading `-` is refused too, because it is a misplaced flag.
pub(super) fn is_revision(text: &str) -> bool {
    let is_allowed = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.chars().all(is_allowed)
        && text.split('/').all(is_part)
        && !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
}

/// The address of a file's content. `endpoint` does not end with a slash.
pub(super) fn of_file(endpoint: &str, id: &str, revision: &str, name: FileName) -> String {
    format!(
        "{endpoint}/{id}/resolve/{}/{}",
        utf8_percent_encode(revision, SEGMENT),
        utf8_percent_encode(name.0, PATH)
    )
}

/// The address of the list of a repository's files.
pub(super) fn of_list(endpoint: &str, id: &str, revision: &str) -> String {
    format!(
        "{endpoint}/api/models/{id}/revision/{}",
        utf8_percent_encode(revision, SEGMENT)
    )
}

/// The page of a revision (`kind` is `tree`) or of a file in it (`kind` is `blob`), for messages.
pub(super) fn of_page(page: &str, kind: &str, revision: &str, file: Option<FileName>) -> String {
    let revision = utf8_percent_encode(revision, SEGMENT);
    let file = file.map_or_else(String::new, |name| {
        format!("/{}", utf8_percent_encode(name.0, PATH))
    });
    format!("{page}/{kind}/{revision}{file}")
}
