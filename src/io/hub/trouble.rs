//! The kinds of failure with the hub and the cache, sorted by what can be done about them.

use std::io::{Error as IoError, ErrorKind as Io};

/// A failure, sorted by what can be done about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection could not be made or broke: worth another try.
    Cut(String),
    /// The hub answered with an error status, and perhaps an `X-Error-Code`.
    Refused(u16, Option<String>),
    /// What an earlier try left on disk cannot be used.
    Useless,
    /// Another process has locked the file.
    Held,
    /// Reading or writing the cache failed.
    Disk(IoError),
    /// The answer is not one that a hub gives.
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
            // The text begins with the address, which may be signed, so that part is removed.
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

/// Sockets and disks report the same type of error. Broken sockets give one of these kinds, disks
/// do not.
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
            Trouble::Useless => "what was fetched before cannot be used".to_owned(),
            Trouble::Held => "another process has locked the file".to_owned(),
            Trouble::Disk(error) => error.to_string(),
        }
    }
}
