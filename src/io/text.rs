//! Text files in UTF-8, with or without the byte order mark that editors on Windows write at the
//! start.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of the file at `path`, without its byte order mark.
///
/// # Errors
/// As [`std::fs::read`] and [`decode`].
pub fn read(path: &Path) -> Result<String> {
    decode(std::fs::read(path)?)
}

/// Decodes the bytes of a file as text, without its byte order mark.
///
/// # Errors
/// When the bytes are not UTF-8; the message names UTF-16 if they look like it.
pub fn decode(mut bytes: Vec<u8>) -> Result<String> {
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    let wrong = |message: String| Error::new(ErrorKind::InvalidData, message);
    // UTF-16's byte order mark, or an ASCII character in UTF-16.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..] = bytes[..] {
        return Err(wrong(
            "found UTF-16 text, expected UTF-8: save the file as UTF-8".to_owned(),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(format!(
            "line {line}: found bytes that are not UTF-8, expected UTF-8 text"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_passed_over() -> Result<()> {
        assert_eq!(decode(b"\xef\xbb\xbfa\xc3\xa9".to_vec())?, "aé");
        assert_eq!(decode(b"a".to_vec())?, "a");
        assert_eq!(decode(b"".to_vec())?, "");
        assert_eq!(decode(b"\xef\xbb\xbf".to_vec())?, "");
        Ok(())
    }

    #[test]
    fn other_encodings_are_refused_by_name_or_with_the_line() {
        let message = |bytes: &[u8]| decode(bytes.to_vec()).expect_err("no UTF-8").to_string();
        for utf_16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"{\0}\0", b"\0{\0}"] {
            assert!(message(utf_16).contains("found UTF-16 text, expected UTF-8"));
        }
        assert!(message(b"a\nb\xe9").starts_with("line 2: found bytes that are not UTF-8"));
    }
}
