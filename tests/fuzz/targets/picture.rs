//! A picture: the texts of a PNG, the pixels of a PNG or JPEG, and the record that `sample --from`
//! and `inspect` read.

#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use oneactor::pictures::photo::{Transparency, decode};
use oneactor::pictures::png::png_text;
use oneactor::records::picture_record::{KEYWORD, PictureRecord};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(texts) = png_text(Cursor::new(bytes)) {
        let _ = PictureRecord::of_texts(texts, "fuzz.png");
    }
    for transparency in [Transparency::OnWhite, Transparency::Dropped] {
        if let Ok(picture) = decode(Path::new("fuzz.png"), bytes, transparency) {
            assert!(picture.width() > 0 && picture.height() > 0);
        }
    }
    // A text that is not in a PNG chunk is read as if it were: mutations cannot make a valid
    // checksum.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let texts = vec![(KEYWORD.to_owned(), text.to_owned())];
        if let Ok(record) = PictureRecord::of_texts(texts, "fuzz.png") {
            let _ = record.subjects();
        }
    }
});
