//! Fetches the content of one file over HTTP, from the address that the hub gives.
//!
//! Redirects are followed one by one, and the token is sent to the hub alone.

use std::fs::{self, OpenOptions};
use std::io::{Error as IoError, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ureq::{Agent, AgentBuilder, Response};

use super::trouble::Trouble;

/// The largest number of redirects that are followed.
const MOST_REDIRECTS: usize = 10;

/// The number of bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// The address of a file and the token for it.
pub(super) struct Download {
    /// The file's address on the hub.
    pub(super) url: String,
    /// The token, which is sent to the hub alone.
    pub(super) token: Option<String>,
}

/// Receives the progress of a transfer.
pub(super) trait TransferProgress {
    /// The length in bytes of the whole file and of the part that is there already.
    fn begin(&mut self, size: u64, so_far: u64);
    /// This many more bytes have arrived.
    fn arrived(&mut self, bytes: u64);
    /// Whether nobody waits for the transfer any more. Nothing more may then be written.
    fn is_abandoned(&self) -> bool;
}

/// An HTTP agent that takes the proxy from the environment and names this program.
pub(super) fn agent() -> AgentBuilder {
    ureq::builder()
        .try_proxy_from_env(true)
        .user_agent(concat!("oneactor/", env!("CARGO_PKG_VERSION")))
}

impl Download {
    /// Appends the missing part to the `.part` in `blobs`, or begins one. When the file is
    /// complete, the ending is removed from its name. The name is the etag that the hub gives.
    ///
    /// # Errors
    /// When the hub or the disk refuses, the connection breaks, or the `.part` belongs to another
    /// file.
    pub(super) fn fetch(
        &self,
        blobs: &Path,
        progress: &mut impl TransferProgress,
    ) -> Result<(), Trouble> {
        let there = part_in(blobs);
        let start = match &there {
            Some(part) => part.metadata()?.len(),
            None => 0,
        };
        let (response, etag) = self.answer(start)?;
        let complete = blobs.join(etag);
        let part = complete.with_extension("part");
        if there.is_some_and(|there| there != part) {
            return Err(Trouble::Useless);
        }
        let size = whole_size(&response)?;
        fs::create_dir_all(blobs)?;
        // An answer that ignores the requested range begins with the first byte.
        let start = if is_part_from(&response, start)? {
            start
        } else {
            0
        };
        let mut file = OpenOptions::new().append(true).create(true).open(&part)?;
        file.set_len(start)?;
        progress.begin(size, start);
        let mut so_far = start;
        let mut reader = response.into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if progress.is_abandoned() {
                return Err(IoError::from(ErrorKind::Interrupted).into());
            }
            so_far += count as u64;
            // Without this check an endless answer would fill the disk.
            if so_far > size {
                return Err(Trouble::Useless);
            }
            file.write_all(&buffer[..count])?;
            progress.arrived(count as u64);
        }
        if file.metadata()?.len() < size {
            return Err(IoError::from(ErrorKind::UnexpectedEof).into());
        }
        fs::rename(part, complete)?;
        Ok(())
    }

    /// The answer with the content from byte `start` on, and the etag of the whole file.
    fn answer(&self, start: u64) -> Result<(Response, String), Trouble> {
        let agent = agent().redirects(0).build();
        let hub = Host::of(&agent, &self.url)?;
        let (mut url, mut etag) = (self.url.clone(), None);
        for _ in 0..MOST_REDIRECTS {
            let mut request = agent.get(&url).set("range", &format!("bytes={start}-"));
            let is_hub = Host::of(&agent, &url)? == hub;
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.set("authorization", &format!("Bearer {token}"));
            }
            let response = request.call()?;
            let is_redirect = (300..400).contains(&response.status());
            if is_hub && etag.is_none() {
                etag = etag_of(&response, is_redirect)?;
            }
            if !is_redirect {
                let etag = etag.ok_or_else(|| missing("etag"))?;
                return Ok((response, etag));
            }
            let location = response.header("location");
            let location = location.ok_or_else(|| missing("location"))?;
            let here = agent.get(&url).request_url()?;
            let next = here.as_url().join(location);
            let next = next.map_err(|_| invalid("location"))?;
            // A request over HTTPS is not redirected to plain HTTP.
            if here.scheme() == "https" && next.scheme() != "https" {
                return Err(invalid("location"));
            }
            url = next.to_string();
        }
        Err(invalid("location"))
    }
}

fn missing(header: &str) -> Trouble {
    Trouble::Strange(format!("header {header} is missing or not plain ASCII"))
}

fn invalid(header: &str) -> Trouble {
    Trouble::Strange(format!("header {header} is invalid"))
}

/// Scheme, host name and port, which together decide whether the token is sent.
#[derive(PartialEq)]
struct Host(String, String, Option<u16>);

impl Host {
    fn of(agent: &Agent, url: &str) -> Result<Self, Trouble> {
        let url = agent.get(url).request_url()?;
        Ok(Host(
            url.scheme().to_owned(),
            url.host().to_owned(),
            url.port(),
        ))
    }
}

/// The file's own etag; for a file at another address this is `x-linked-etag`. Redirects inside the
/// hub, for example from a repository's old name, give none. The etag becomes the name of a file.
fn etag_of(response: &Response, is_redirect: bool) -> Result<Option<String>, Trouble> {
    let own = || response.header("etag").filter(|_| !is_redirect);
    let Some(etag) = response.header("x-linked-etag").or_else(own) else {
        return Ok(None);
    };
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !etag.is_empty() && etag.bytes().all(is_plain) {
        Ok(Some(etag.to_owned()))
    } else {
        Err(invalid("etag"))
    }
}

/// Whether the answer is the file from byte `start` on.
fn is_part_from(response: &Response, start: u64) -> Result<bool, Trouble> {
    if response.status() != 206 {
        return Ok(false);
    }
    let range = response.header("content-range").unwrap_or_default();
    if range.starts_with(&format!("bytes {start}-")) {
        Ok(true)
    } else {
        Err(Trouble::Useless)
    }
}

/// Length of the whole file: the number after the slash in `Content-Range`.
fn whole_size(response: &Response) -> Result<u64, Trouble> {
    const NAME: &str = "content-range";
    let range = response.header(NAME).map(str::to_owned);
    if let Some(range) = range {
        let total = range.rsplit('/').next().and_then(|text| text.parse().ok());
        return total.ok_or_else(|| invalid(NAME));
    }
    let length = response.header("content-length");
    let length = length.and_then(|text| text.parse().ok());
    length.ok_or_else(|| missing(NAME))
}

/// The unfinished file; there is at most one.
fn part_in(blobs: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(blobs).ok()?.flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|ending| ending == "part"))
}
