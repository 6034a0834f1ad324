//! An HTTP answer, one to a connection.

use std::io::{Read, Write};
use std::net::TcpStream;

/// What an answer is written to.
pub struct Answer {
    pub stream: TcpStream,
    /// Whether only the headers were asked for.
    pub head: bool,
}

impl Answer {
    /// The headers; without a length the body ends with the connection.
    pub fn head(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        length: Option<usize>,
    ) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {status} Whatever\r\nconnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(length) = length {
            text += &format!("content-length: {length}\r\n");
        }
        self.stream.write_all((text + "\r\n").as_bytes())
    }

    /// A whole answer.
    pub fn body(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<()> {
        self.head(status, headers, Some(body.len()))?;
        if !self.head {
            self.stream.write_all(body)?;
        }
        self.stream.flush()?;
        // Wait for the caller to have read it all, or the rest is lost in a reset.
        self.stream.shutdown(std::net::Shutdown::Write)?;
        self.stream.read(&mut [0; 64]).map(|_| ())
    }

    /// An answer without a body.
    pub fn status(&mut self, status: u16, headers: &[(&str, &str)]) -> std::io::Result<()> {
        self.body(status, headers, b"")
    }
}
