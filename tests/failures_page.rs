//! The page `configs/FAILURES.md` quotes only messages that the program has, and names all its exit
//! codes.

use std::fs;
use std::path::{Path, PathBuf};

use oneactor::error::ErrorKind;

const PAGE: &str = "configs/FAILURES.md";
/// The test does not search for shorter pieces of a message: they could stand anywhere.
const TELLING: usize = 10;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All sources as one text, with strings joined that continue on the next line.
fn sources() -> String {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") {
                *text += &fs::read_to_string(&path).expect("source files are text");
            }
        }
    }
    let mut text = String::new();
    collect(&root().join("src"), &mut text);
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    let whole = parts.fold(first, |whole, part| whole + part.trim_start());
    whole.replace("\\\"", "\"")
}

/// The quoted messages in the first cells of tables, and the message at the beginning of a line.
fn messages(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in page.lines() {
        let (cell, most) = match line.strip_prefix("| ") {
            Some(row) => (row.split(" | ").next().unwrap_or_default(), usize::MAX),
            None if line.starts_with('`') => (line, 1),
            None => continue,
        };
        let quoted = cell.split('`').skip(1).step_by(2).take(most);
        found.extend(quoted.filter(|text| text.contains(' ')));
    }
    found
}

#[test]
fn every_message_of_the_page_is_one_of_the_program() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let sources = sources();
    let messages = messages(&page);
    assert!(
        messages.len() > 40,
        "found only {} messages",
        messages.len()
    );
    let mut wrong = Vec::new();
    for message in messages {
        let pieces: Vec<&str> = message
            .split('…')
            .filter(|piece| piece.len() >= TELLING)
            .collect();
        if pieces.is_empty() {
            wrong.push(format!("no piece to search for in \"{message}\""));
        }
        for piece in pieces {
            if !sources.contains(piece) {
                wrong.push(format!("no source has \"{piece}\" (of \"{message}\")"));
            }
        }
    }
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn every_exit_code_has_a_row() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let codes: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .collect();
    for kind in [
        ErrorKind::Runtime,
        ErrorKind::Usage,
        ErrorKind::Model,
        ErrorKind::Device,
        ErrorKind::Partial,
        ErrorKind::Quality,
        ErrorKind::Interrupt,
        ErrorKind::Terminate,
    ] {
        let code = kind.exit_code().to_string();
        assert!(
            codes.contains(&code.as_str()),
            "{PAGE} has no row for exit code {code}"
        );
    }
}
