//! What goes wrong with the hub and the cache, sorted by what can be done about it.

use std::io::{Error as IoError, ErrorKind as Io};

/// What went wrong, sorted by what can be done about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection could not be made or broke off: worth another try.
    Cut(String),
    /// The hub answered with a status that is not success, and perhaps its `X-Error-Code`.
    Refused(u16, Option<String>),
    /// What lies on disk from an earlier try is of no use.
    Useless,
    /// Another process holds the file.
    Held,
    /// Reading or writing the cache failed.
    Disk(IoError),
    /// The answer is not that of a hub.
    Strange(String),
}

impl From<ureq::Error> for Trouble {
    fn from(error: ureq::Error) -> Self {
        let text = error.to_string();
        match error.into_response() {
            Some(response) => Trouble::Refused(
                response.status(),
                response.header("x-error-code").map(str::to_owned),
            ),
            // The text opens with the address, which may be signed: that part stays here.
            None => Trouble::Cut(
                text.split_once(": ")
                    .map_or(text.as_str(), |(_, cause)| cause)
                    .to_owned(),
            ),
        }
    }
}

impl From<IoError> for Trouble {
    fn from(error: IoError) -> Self {
        if is_of_the_network(&error) {
            Trouble::Cut(error.to_string())
        } else {
            Trouble::Disk(error)
        }
    }
}

/// Socket and disk give one kind of error. A socket that breaks has one of these kinds, a disk has not.
fn is_of_the_network(error: &IoError) -> bool {
    matches!(
        error.kind(),
        Io::UnexpectedEof
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::ConnectionRefused
            | Io::NotConnected
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::BrokenPipe
            | Io::TimedOut
            | Io::WouldBlock
            | Io::Interrupted
            | Io::InvalidData
            | Io::Other
    )
}

impl Trouble {
    /// Whether the same request may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Trouble::Cut(_) => true,
            Trouble::Refused(status, _) => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    /// The cause in a few words.
    pub(super) fn cause(&self) -> String {
        match self {
            Trouble::Cut(cause) | Trouble::Strange(cause) => cause.clone(),
            Trouble::Refused(status, _) => format!("the hub answered with status {status}"),
            Trouble::Useless => "what was fetched before is of no use".to_owned(),
            Trouble::Held => "another process holds the file".to_owned(),
            Trouble::Disk(error) => error.to_string(),
        }
    }
}
