//! JPEGs, whole and damaged, compared with Pillow (`scripts/parity/expected_jpegs.py`): whole files
//! are read, and every file that Pillow refuses is refused. Files with a stretch of zeros in their
//! data are refused too, although Pillow reads them.

use std::fs;
use std::path::Path;

use crate::bars::JPEG;
use crate::common::{Expected, fixture, json};
use image::RgbImage;
use oneactor::pictures::photo::{Transparency, decode, read_picture};
use serde::Deserialize;

fn is_refused(bytes: &[u8]) -> bool {
    decode(Path::new("x.jpg"), bytes, Transparency::Dropped).is_err()
}

/// Bytes up to the end of the picture. Any bytes may follow.
fn end_of_picture(bytes: &[u8]) -> usize {
    let marker = bytes.windows(2).rposition(|pair| pair == [0xff, 0xd9]);
    marker.expect("the picture has an end") + 2
}

#[test]
fn whole_files_of_every_kind_are_read() {
    let files = Expected::read("jpegs/pixels.safetensors").below("");
    assert_eq!(files.len(), 14);
    for (name, wanted) in &files {
        let path = fixture(&format!("jpegs/{name}"));
        let found: RgbImage = read_picture(&path, Transparency::Dropped)
            .expect(name)
            .picture;
        let wanted = Vec::<u8>::try_from(wanted.flatten(0, -1)).expect("levels are bytes");
        assert_eq!(found.as_raw().len(), wanted.len(), "{name}");
        let gaps = found.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b));
        let gap = gaps.max().expect("pictures have pixels");
        println!("{name}: within {gap}");
        assert!(gap <= JPEG, "{name}: {gap}");
    }
}

#[test]
fn files_that_are_cut_off_anywhere_are_refused() {
    let mut cuts = 0;
    for name in Expected::read("jpegs/pixels.safetensors").below("").keys() {
        let bytes = fs::read(fixture(&format!("jpegs/{name}"))).expect("fixtures are readable");
        let end = end_of_picture(&bytes);
        // Every length near the end, where only a few bytes are missing.
        for length in (0..end - 64).step_by(23).chain(end - 64..end) {
            assert!(
                is_refused(&bytes[..length]),
                "{name}: {length} of {end} bytes"
            );
            cuts += 1;
        }
        assert!(!is_refused(&bytes[..end]), "{name}: whole");
    }
    println!("{cuts} files that are cut off");
}

/// A file with one piece replaced by another.
#[derive(Deserialize)]
struct Damaged {
    file: String,
    start: usize,
    length: usize,
    new: String,
    hole: bool,
    refused: bool,
}

#[test]
fn files_that_pillow_refuses_and_files_with_stretches_of_zeros_are_refused() {
    let cases: Vec<Damaged> = json("jpegs/damaged.json");
    assert!(cases.len() > 1000, "found {} cases", cases.len());
    let (mut counts, mut wrong) = ([0; 4], Vec::new());
    for case in cases {
        let path = fixture(&format!("jpegs/{}", case.file));
        let mut bytes = fs::read(path).expect("fixtures are readable");
        let digits: Vec<char> = case.new.chars().collect();
        let digits = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        let new = digits.map(|byte| u8::from_str_radix(&byte, 16).expect("hexadecimal"));
        bytes.splice(case.start..case.start + case.length, new);
        let found = is_refused(&bytes);
        counts[usize::from(case.refused) * 2 + usize::from(found)] += 1;
        let is_flat = case.file == "flat.jpg"; // its data are zeros
        if !found && (case.refused || (case.hole && !is_flat)) {
            wrong.push(format!("{} {}+{}", case.file, case.start, case.length));
        }
    }
    let [both_take, refused_here, refused_there, both_refuse] = counts;
    println!("both take {both_take}, both refuse {both_refuse}, refused here alone {refused_here}");
    assert_eq!(refused_there, 0, "{wrong:?}");
    assert!(wrong.is_empty(), "taken: {wrong:?}");
}
