//! An HTTP answer; each connection gets one.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Where an answer is written to.
pub struct Answer {
    pub stream: TcpStream,
    /// Whether the request asked only for the headers.
    pub head: bool,
}

impl Answer {
    /// Writes the headers; without a length, the end of the connection ends the body.
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

    /// Writes a whole answer.
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
        // Wait until the caller has read everything; a reset of the connection would lose the rest.
        self.stream.shutdown(std::net::Shutdown::Write)?;
        self.stream.read(&mut [0; 64]).map(|_| ())
    }

    /// Writes an answer without a body.
    pub fn status(&mut self, status: u16, headers: &[(&str, &str)]) -> std::io::Result<()> {
        self.body(status, headers, b"")
    }
}
