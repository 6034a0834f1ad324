//! The hub's answer to the request for a repository's files at a revision.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::address::FileName;
use super::cache::is_commit;
use super::licence::LicenceFields;
use super::trouble::Trouble;
use super::verify::is_sha256;

/// The files that a repository has.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) files: BTreeMap<String, RemoteFile>,
    /// Whether anyone may fetch the files.
    pub(super) open: bool,
    /// The licence fields in the repository's card.
    card: LicenceFields,
    /// Why only the files in the cache are known, if the hub could not be asked.
    pub(super) unasked: Option<String>,
}

/// Facts about a file from the hub.
#[derive(Clone, Debug, Default)]
pub(super) struct RemoteFile {
    /// Length in bytes.
    pub(super) size: Option<u64>,
    /// SHA-256 in hexadecimal, for files kept outside git.
    pub(super) sha256: Option<String>,
    /// The name of the file's content among the blobs.
    pub(super) etag: Option<String>,
}

impl Listing {
    /// The files in the cache, if the hub was not asked for `reason`.
    pub(super) fn of_cache(names: Vec<String>, reason: String) -> Self {
        let files = names.into_iter().map(|name| (name, RemoteFile::default()));
        Self {
            files: files.collect(),
            open: false,
            card: LicenceFields::default(),
            unasked: Some(reason),
        }
    }

    /// The commit and the files in the hub's answer.
    pub(super) fn read(answer: impl Read) -> Result<(String, Self), Trouble> {
        let info: Info = serde_json::from_reader(answer.take(LARGEST)).map_err(|error| {
            match error.io_error_kind() {
                // The connection broke; another try may succeed.
                Some(_) => Trouble::Cut(error.to_string()),
                None => Trouble::Strange(format!("the list of its files cannot be read: {error}")),
            }
        })?;
        if !is_commit(&info.sha) {
            return Err(Trouble::Strange(format!("commit `{}`", info.sha)));
        }
        if let Some(wrong) = info
            .siblings
            .iter()
            .find(|file| leads_elsewhere(&file.rfilename))
        {
            let name = &wrong.rfilename;
            return Err(Trouble::Strange(format!(
                "a file named `{name}`, which would lie outside of its folder"
            )));
        }
        // Other names that git allows but no address or path can hold, such as one with a
        // backslash, are left out.
        let usable = info.siblings.into_iter();
        let usable = usable.filter(|file| FileName::checked(&file.rfilename).is_ok());
        let listing = Self {
            open: !info.private && matches!(info.gated, None | Some(Gated::Flag(false))),
            files: usable.map(Sibling::read).collect(),
            card: info.card_data.unwrap_or_default(),
            unasked: None,
        };
        Ok((info.sha, listing))
    }

    /// What the hub said about the licence, if anything.
    pub(super) fn licence(&self) -> Option<LicenceFields> {
        (!self.card.is_empty()).then(|| self.card.clone())
    }
}

/// The largest size of the answer in bytes, enough for a million files.
const LARGEST: u64 = 256 << 20;

/// Whether a file with this name would be outside the folder of its commit. git allows no such
/// name.
fn leads_elsewhere(name: &str) -> bool {
    name.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// The part of the hub's answer that is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    sha: String,
    #[serde(default)]
    private: bool,
    gated: Option<Gated>,
    card_data: Option<LicenceFields>,
    siblings: Vec<Sibling>,
}

/// `false`, or the way access is granted (`auto`, `manual`).
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `gated` to be true, false or a word")]
enum Gated {
    Flag(bool),
    #[allow(dead_code, reason = "any word means that it is gated")]
    Way(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

impl Sibling {
    fn read(self) -> (String, RemoteFile) {
        let sha256 = self
            .lfs
            .and_then(|lfs| lfs.sha256)
            .filter(|hash| is_sha256(hash));
        let etag = sha256.clone().or(self.blob_id.filter(|id| is_commit(id)));
        let file = RemoteFile {
            size: self.size,
            sha256,
            etag,
        };
        (self.rfilename, file)
    }
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}
