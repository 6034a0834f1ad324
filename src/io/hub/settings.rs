//! Settings for the hub: its address, the cache, the token, and how long to wait and retry.
//!
//! The environment variables are those that Python's `huggingface_hub` reads, with the same
//! precedence, so that both share one cache and one token. The proxy is the exception, because ureq
//! chooses it: it takes the first of `ALL_PROXY`, `HTTPS_PROXY` and `HTTP_PROXY` (or their
//! lower-case forms) and does not support `NO_PROXY`.

use std::cell::RefCell;
use std::env::VarError;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::endpoint::{Endpoint, PUBLIC_ENDPOINT};
use super::renewal::Renewal;
use crate::error::usage;
use crate::io::text;
use crate::streams::tell;

/// A token of the hub. `Debug` and messages do not show its value.
#[derive(Clone)]
pub struct HubToken {
    value: String,
    origin: String,
}

impl HubToken {
    /// The token `value`, which was read from `origin` (the name of a variable or the path of a
    /// file).
    pub fn new(value: impl Into<String>, origin: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            origin: origin.into(),
        }
    }

    /// The token's secret value.
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// Where the token was read.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Debug for HubToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}

/// The output on stderr while files are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubReport {
    /// Nothing.
    Quiet,
    /// One line for each file.
    Lines,
    /// A line and a moving bar for each file.
    Bars,
}

impl HubReport {
    /// Writes a line to stderr, unless quiet.
    pub(crate) fn notice(self, line: &str) {
        if self != HubReport::Quiet {
            tell(line);
        }
    }
}

/// How often and how long a download is tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The number of failures in a row, without a byte arriving, after which a file is given up.
    pub tries: u32,
    /// Wait after the first failure; it doubles with each further failure.
    pub wait: Duration,
    /// The longest time without data on an open connection.
    pub stall: Duration,
    /// The longest wait for another process that has locked a file and makes no progress.
    pub lock: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            wait: Duration::from_secs(1),
            stall: Duration::from_secs(60),
            lock: Duration::from_secs(60),
        }
    }
}

/// All settings for access to the hub.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Folder of the cache, shared with Python (it contains `models--org--name/…`).
    pub cache: PathBuf,
    /// Address of the hub.
    pub endpoint: Endpoint,
    /// The token, if there is one.
    pub token: Option<HubToken>,
    /// What asked to stay off the network (`--offline` or a variable's name), if anything.
    pub offline: Option<&'static str>,
    /// The output while files are fetched.
    pub report: HubReport,
    /// How often and how long a download is tried.
    pub patience: Patience,
    /// Set if branches and tags in the cache are asked for again.
    pub renewal: Option<Renewal>,
}

impl HubSettings {
    /// The public hub without a token and without output, with its cache in the folder `cache`.
    pub fn new(cache: impl AsRef<Path>) -> Self {
        let cache = cache.as_ref();
        Self {
            cache: std::path::absolute(cache).unwrap_or_else(|_| cache.to_path_buf()),
            endpoint: PUBLIC_ENDPOINT.to_owned().into(),
            token: None,
            offline: None,
            report: HubReport::Quiet,
            patience: Patience::default(),
            renewal: None,
        }
    }

    /// Reads the environment of this process. `offline` is the flag.
    ///
    /// # Errors
    /// When a variable has an invalid value, or no home folder is known.
    pub fn from_env(offline: bool) -> Result<Self> {
        let unreadable = RefCell::new(None);
        let lookup = |name: &str| match std::env::var(name) {
            Err(VarError::NotUnicode(_)) if name.starts_with("HF_") => {
                unreadable.replace(Some(name.to_owned()));
                None
            }
            value => value.ok(),
        };
        let settings = Self::from_lookup(offline, std::io::stderr().is_terminal(), &lookup)?;
        match unreadable.into_inner() {
            None => Ok(settings),
            // The value is not shown, because it may be a token.
            Some(name) => Err(usage(format!(
                "{name}: found bytes that are not UTF-8, expected text"
            ))),
        }
    }

    /// As [`HubSettings::from_env`], but variables are read through `lookup`, and `terminal` says
    /// whether stderr is a terminal.
    ///
    /// # Errors
    /// As [`HubSettings::from_env`].
    pub fn from_lookup(
        offline: bool,
        terminal: bool,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let on = |name: &str| set(name).is_some_and(|value| is_true(&value));
        let home = lookup("HOME").or_else(|| lookup("USERPROFILE"));
        let folder = |text: String| expand_home(&text, home.as_deref());

        let hf_home = match (set("HF_HOME"), set("XDG_CACHE_HOME"), &home) {
            (Some(path), _, _) => Some(folder(path)),
            (None, Some(path), _) => Some(folder(path).join("huggingface")),
            (None, None, Some(home)) => Some(Path::new(home).join(".cache/huggingface")),
            (None, None, None) => None,
        };
        let cache = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .map(folder)
            .or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let Some(cache) = cache else {
            return Err(usage(
                "no folder for the hub's cache: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set; set HF_HOME",
            ));
        };

        let mut settings = Self::new(cache);
        if let Some(endpoint) = set("HF_ENDPOINT") {
            settings.endpoint = Endpoint::checked(&endpoint)?;
        }
        if !on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            let file = set("HF_TOKEN_PATH")
                .map(folder)
                .or_else(|| Some(hf_home?.join("token")));
            settings.token = find_token(set("HF_TOKEN"), file.as_deref())?;
        }
        settings.offline = if offline {
            Some("the option offline")
        } else {
            ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .into_iter()
                .find(|name| on(name))
        };
        settings.report = if terminal && !on("HF_HUB_DISABLE_PROGRESS_BARS") {
            HubReport::Bars
        } else {
            HubReport::Lines
        };
        Ok(settings)
    }

    /// The same settings without output.
    pub fn quiet(mut self) -> Self {
        self.report = HubReport::Quiet;
        self
    }

    /// The settings as pairs of name and value, for a report. The token's value is not included.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let token = self.token.as_ref();
        vec![
            ("cache", self.cache.display().to_string()),
            ("endpoint", self.endpoint.to_string()),
            (
                "token",
                token.map_or("none".to_owned(), |token| {
                    format!("yes, from {}", token.origin)
                }),
            ),
            (
                "offline",
                self.offline
                    .map_or("no".to_owned(), |who| format!("yes, {who}")),
            ),
        ]
    }
}

/// `1`, `on`, `yes` and `true` in any case, as in Python's `huggingface_hub`.
fn is_true(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "1" | "on" | "yes" | "true"
    )
}

fn expand_home(text: &str, home: Option<&str>) -> PathBuf {
    match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            PathBuf::from(format!("{home}{rest}"))
        }
        _ => PathBuf::from(text),
    }
}

/// The token from the variable, otherwise from the file. A blank token counts as none.
fn find_token(variable: Option<String>, file: Option<&Path>) -> Result<Option<HubToken>> {
    let (text, origin) = match (variable, file) {
        (Some(text), _) => (text, "HF_TOKEN".to_owned()),
        (None, Some(file)) => match text::read(file) {
            Ok(text) => (text, file.display().to_string()),
            Err(_) => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(usage(format!(
            "the token from {origin} contains a blank or a character that no token has: copy it again"
        )));
    }
    Ok(Some(HubToken::new(text, origin)))
}
