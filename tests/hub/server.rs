//! A hub on this machine: the part of the protocol that a download needs, and faults on demand.
//!
//! Files kept outside git are answered with a redirect to a second host (127.0.0.2), as the real
//! hub redirects to a content network.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::answer::Answer;

/// The commit of a new repository.
pub const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// Whether the second host got the request.
    pub cdn: bool,
}

impl Request {
    /// The first byte of the requested range.
    pub fn range_start(&self) -> Option<u64> {
        let range = self.headers.get("range")?.strip_prefix("bytes=")?;
        range.split('-').next()?.parse().ok()
    }

    /// Whether the request was for the headers only.
    fn is_probe(&self) -> bool {
        self.method == "HEAD"
            || self
                .headers
                .get("range")
                .is_some_and(|range| range == "bytes=0-0")
    }
}

/// A fault in the content of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The same, without a Content-Length that would reveal the cut.
    CutUnnoticed(usize),
    /// The range is ignored: the whole file is sent.
    WholeFile,
    /// One byte is wrong.
    Damage,
    /// After so many bytes nothing more is sent, and the connection stays open.
    Silence(usize),
    /// More bytes follow without end after the body, although its length was announced.
    Endless,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    pub commit: String,
    /// Names of the commit besides `main`.
    pub branches: Vec<String>,
    /// Whether requests are redirected to an address in which nothing is encoded.
    pub raw_location: bool,
    pub gated: bool,
    /// The licence that the card names.
    pub licence: Option<&'static str>,
    /// Sent instead of the right etag in answers with content.
    pub etag: Option<String>,
}

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    renamed: BTreeMap<String, String>,
    requests: Vec<Request>,
    /// Faults of the next answers with a file's content, in order.
    faults: BTreeMap<String, Vec<Fault>>,
    down: bool,
    /// Also opens gated repositories, like [`GOOD_TOKEN`].
    accepted: Option<String>,
    /// A status and an address that answer every request.
    only_answer: Option<(u16, Option<String>)>,
}

/// The hub.
#[derive(Clone)]
pub struct FakeHub {
    state: Arc<Mutex<State>>,
    /// A prefix of every path of the hub, as a mirror may have it.
    prefix: &'static str,
    pub endpoint: String,
    pub cdn: String,
}

/// The token that opens gated repositories.
pub const GOOD_TOKEN: &str = "hf_good";

impl FakeHub {
    /// Starts a hub without repositories. Its threads end with the process.
    pub fn start() -> Self {
        Self::start_below("")
    }

    /// Starts a hub that answers only below the path `prefix`.
    pub fn start_below(prefix: &'static str) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let cdn = TcpListener::bind("127.0.0.2:0").expect("a free port");
        let address = |listener: &TcpListener| {
            format!("http://{}", listener.local_addr().expect("it is bound"))
        };
        let this = Self {
            state: Arc::default(),
            prefix,
            endpoint: address(&hub) + prefix,
            cdn: address(&cdn),
        };
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let this = this.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let this = this.clone();
                    // In some tests the caller closes the connection.
                    thread::spawn(move || this.serve(stream, is_cdn).ok());
                }
            });
        }
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds this")
    }

    /// Adds or replaces a repository.
    pub fn add(&self, id: &str, files: &[(&str, &[u8])]) {
        let files = files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
            .collect();
        let repository = Repository {
            files,
            commit: COMMIT.to_owned(),
            branches: Vec::new(),
            raw_location: false,
            gated: false,
            licence: None,
            etag: None,
        };
        self.state().repositories.insert(id.to_owned(), repository);
    }

    /// Changes a repository.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Repository)) {
        change(self.state().repositories.get_mut(id).expect("it was added"));
    }

    /// Makes `old` another name of `new`.
    pub fn rename(&self, old: &str, new: &str) {
        self.state().renamed.insert(old.to_owned(), new.to_owned());
    }

    /// Sets the faults of the next answers with the content of `file`.
    pub fn fail(&self, file: &str, faults: &[Fault]) {
        self.state().faults.insert(file.to_owned(), faults.to_vec());
    }

    /// Accepts this token too.
    pub fn accept(&self, token: &str) {
        self.state().accepted = Some(token.to_owned());
    }

    /// Answers every request with this status, and redirects to this address.
    pub fn answer_all_with(&self, status: u16, location: Option<&str>) {
        self.state().only_answer = Some((status, location.map(str::to_owned)));
    }

    /// From now on closes every connection at once.
    pub fn go_down(&self) {
        self.state().down = true;
    }

    /// All requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// The requests for content since the last call, without those for headers only.
    pub fn take_downloads(&self) -> Vec<Request> {
        let mut requests = self.take_requests();
        requests.retain(|request| {
            !request.is_probe() && (request.cdn || !request.path.starts_with("/api/"))
        });
        // A redirected request is counted once, at its final address.
        let ends: Vec<Request> = requests
            .iter()
            .filter(|request| request.cdn)
            .cloned()
            .collect();
        requests.retain(|request| !request.cdn && !is_large(&request.path));
        requests.extend(ends);
        requests
    }

    fn serve(&self, stream: TcpStream, cdn: bool) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let request = Request {
            method,
            path,
            headers,
            cdn,
        };
        let down = self.state().down;
        if down {
            return Ok(());
        }
        self.state().requests.push(request.clone());
        let mut answer = Answer {
            stream,
            head: request.method == "HEAD",
        };
        if cdn {
            let (_, name) = request.path.split_once("/blob/").unwrap_or_default();
            let name = decoded(name.split('?').next().unwrap_or_default());
            return self.content(&mut answer, &request, &name, &[]);
        }
        self.route(&mut answer, &request)
    }

    fn route(&self, answer: &mut Answer, request: &Request) -> std::io::Result<()> {
        if let Some((status, location)) = self.state().only_answer.clone() {
            let location = location.as_deref().map(|address| ("location", address));
            return answer.status(status, location.as_slice());
        }
        let path = request.path.split('?').next().unwrap_or_default();
        let Some(path) = path.strip_prefix(self.prefix) else {
            return answer.status(404, &[]);
        };
        let is_list = path.strip_prefix("/api/models/");
        let parts: Vec<&str> = is_list.unwrap_or(&path[1..]).splitn(5, '/').collect();
        let [owner, name, _, revision, ref rest @ ..] = parts[..] else {
            return answer.status(404, &[]);
        };
        let id = format!("{owner}/{name}");
        let renamed = self.state().renamed.get(&id).cloned();
        if let Some(new) = renamed {
            let target = request.path.replacen(&id, &new, 1);
            return answer.status(307, &[("location", &target)]);
        }
        let Some(repository) = self.state().repositories.get(&id).cloned() else {
            // The hub hides from strangers what exists.
            let status = if request.headers.contains_key("authorization") {
                404
            } else {
                401
            };
            return answer.status(status, &[("x-error-code", "RepoNotFound")]);
        };
        let token = request.headers.get("authorization");
        let accepted = self.state().accepted.clone();
        let is_good = token.is_some_and(|token| {
            let token = token.strip_prefix("Bearer ");
            token == Some(GOOD_TOKEN) || token.is_some() && token == accepted.as_deref()
        });
        if token.is_some() && !is_good {
            return answer.status(401, &[]);
        }
        let revision = decoded(revision);
        let names = ["main", COMMIT, &repository.commit];
        if !names.contains(&&*revision) && !repository.branches.contains(&revision) {
            return answer.status(404, &[("x-error-code", "RevisionNotFound")]);
        }
        if is_list.is_some() {
            let body = listing(&id, &repository).to_string();
            return answer.body(
                200,
                &[("content-type", "application/json")],
                body.as_bytes(),
            );
        }
        if repository.gated && !is_good {
            return answer.status(401, &[("x-error-code", "GatedRepo")]);
        }
        let file = decoded(&rest.join("/"));
        let commit = ("x-repo-commit", repository.commit.as_str());
        let Some(bytes) = repository.files.get(&file) else {
            return answer.status(404, &[("x-error-code", "EntryNotFound"), commit]);
        };
        let own = repository.etag.clone();
        let etag = format!("\"{}\"", own.unwrap_or_else(|| etag(&file, bytes)));
        if !is_large(&file) {
            return self.content(
                answer,
                request,
                &format!("{id}/{file}"),
                &[("etag", &etag), commit],
            );
        }
        let path = if repository.raw_location {
            file.clone()
        } else {
            utf8_percent_encode(&file, ODD).to_string()
        };
        let location = format!("{}/blob/{id}/{path}?Signature=secret", self.cdn);
        let size = bytes.len().to_string();
        answer.status(
            302,
            &[
                ("location", &location),
                ("x-linked-etag", &etag),
                ("x-linked-size", &size),
                commit,
            ],
        )
    }

    /// Sends the content of `owner/name/file`, with the next fault.
    fn content(
        &self,
        answer: &mut Answer,
        request: &Request,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<()> {
        let parts: Vec<&str> = path.splitn(3, '/').collect();
        let [owner, name, file] = parts[..] else {
            return answer.status(404, &[]);
        };
        let id = format!("{owner}/{name}");
        let mut state = self.state();
        let Some(mut bytes) = state.repositories[&id].files.get(file).cloned() else {
            return answer.status(404, &[]);
        };
        let due = state
            .faults
            .get_mut(file)
            .filter(|faults| !faults.is_empty());
        let fault = match due {
            Some(faults) if !request.is_probe() => Some(faults.remove(0)),
            _ => None,
        };
        drop(state);

        let start = request
            .range_start()
            .filter(|_| fault != Some(Fault::WholeFile));
        let total = bytes.len();
        if start.is_some_and(|start| start as usize >= total) {
            return answer.status(416, &[("content-range", &format!("bytes */{total}"))]);
        }
        let end = if request.is_probe() && request.method != "HEAD" {
            1
        } else {
            total
        };
        if fault == Some(Fault::Damage) {
            bytes[total / 2] ^= 1;
        }
        let first = start.unwrap_or(0) as usize;
        let body = &bytes[first..end];
        let range = format!("bytes {first}-{}/{total}", end - 1);
        let mut headers = headers.to_vec();
        headers.push(("accept-ranges", "bytes"));
        let status = if start.is_some() {
            headers.push(("content-range", &range));
            206
        } else {
            200
        };
        match fault {
            Some(Fault::Cut(length)) => {
                answer.head(status, &headers, Some(body.len()))?;
                answer.stream.write_all(&body[..length])
            }
            Some(Fault::CutUnnoticed(length)) => {
                answer.head(status, &headers, None)?;
                answer.stream.write_all(&body[..length])
            }
            Some(Fault::Silence(length)) => {
                answer.head(status, &headers, Some(body.len()))?;
                answer.stream.write_all(&body[..length])?;
                thread::sleep(Duration::from_secs(30));
                Ok(())
            }
            Some(Fault::Endless) => {
                // `Content-Range` has the length.
                answer.head(status, &headers, None)?;
                answer.stream.write_all(body)?;
                while answer.stream.write_all(&[0; 65536]).is_ok() {}
                Ok(())
            }
            _ => answer.body(status, &headers, body),
        }
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Characters that are encoded in an address of the second host.
const ODD: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'_')
    .remove(b'-');

/// The hub's JSON about a repository.
fn listing(id: &str, repository: &Repository) -> serde_json::Value {
    let siblings: Vec<serde_json::Value> = repository
        .files
        .iter()
        .map(|(name, bytes)| {
            let mut sibling = serde_json::json!({
                "rfilename": name, "size": bytes.len(), "blobId": &sha256(bytes)[..40],
            });
            if is_large(name) {
                sibling["lfs"] = serde_json::json!({
                    "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134,
                });
            }
            sibling
        })
        .collect();
    let gated = if repository.gated {
        serde_json::json!("auto")
    } else {
        serde_json::json!(false)
    };
    serde_json::json!({
        "id": id, "sha": repository.commit, "private": false, "gated": gated,
        "siblings": siblings, "tags": [], "downloads": 0,
        "cardData": repository.licence.map(|name| serde_json::json!({"license": name, "tags": ["x"]})),
    })
}

/// Whether the hub keeps such a file outside git.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

fn etag(name: &str, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if is_large(name) {
        hash
    } else {
        hash[..40].to_owned()
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
