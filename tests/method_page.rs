//! Every path, item and key in `src/method/README.md`, which maps the paper to the code, exists in
//! the sources.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "src/method/README.md";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The texts between backticks, in order.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of all rows of tables whose last heading is this one.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let cells: Vec<&str> = line
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        if !line.starts_with('|') {
            inside = false;
        } else if cells.last() == Some(&heading) {
            inside = true;
        } else if inside && !line.starts_with("| ---") {
            found.push(cells);
        }
    }
    found
}

/// Whether `text` has the word after one of these prefixes.
fn declares(text: &str, beginnings: &[&str], name: &str) -> bool {
    beginnings.iter().any(|beginning| {
        let wanted = format!("{beginning}{name}");
        text.match_indices(&wanted).any(|(at, found)| {
            let next = text[at + found.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
}

/// Whether a source file declares an item: `Type::function`, or a function, type or constant by
/// itself.
fn has_item(text: &str, item: &str) -> bool {
    const OWN: [&str; 6] = ["fn ", "struct ", "enum ", "trait ", "const ", "def "];
    match item.split_once("::") {
        None => declares(text, &OWN, item),
        Some((owner, function)) => text
            .split("\nimpl")
            .skip(1)
            .filter(|block| {
                let head = block.split('{').next().unwrap_or_default();
                declares(head, &[" "], owner)
            })
            .any(|block| {
                let end = block.find("\n}").unwrap_or(block.len());
                declares(&block[..end], &["fn "], function)
            }),
    }
}

#[test]
fn every_path_and_item_of_the_page_is_in_the_sources() {
    let page = read(&root().join(PAGE));
    let rows = rows(&page, "code");
    assert!(
        rows.len() > 35,
        "the page has only {} rows of code",
        rows.len()
    );
    let mut wrong = Vec::new();
    for cells in rows {
        let code = cells.last().expect("a row has cells");
        let mut file: Option<(&str, String)> = None;
        for name in quoted(code) {
            if name.contains('/') {
                let path = root().join(name);
                match fs::read_to_string(&path) {
                    Ok(text) => file = Some((name, text)),
                    Err(error) => wrong.push(format!("{name}: {error}")),
                }
            } else {
                match &file {
                    Some((path, text)) if !has_item(text, name) => {
                        wrong.push(format!("{path} has no {name}"));
                    }
                    Some(_) => {}
                    None => wrong.push(format!("{name} follows no path: {code}")),
                }
            }
        }
        if file.is_none() {
            wrong.push(format!("no path in \"{code}\""));
        }
    }
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn paths_outside_of_the_tables_and_links_exist() {
    let page = read(&root().join(PAGE));
    let places = quoted(&page).into_iter().filter(|name| name.contains('/'));
    let missing: Vec<&str> = places.filter(|name| !root().join(name).exists()).collect();
    assert!(missing.is_empty(), "{PAGE} names {missing:?}");
    let folder = root().join("src/method");
    for link in page.split("](").skip(1) {
        let target = link.split([')', '#']).next().unwrap_or_default();
        assert!(folder.join(target).exists(), "{PAGE} links to {target}");
    }
}

#[test]
fn every_key_of_the_page_is_a_flag() {
    let page = read(&root().join(PAGE));
    let mut flags = String::new();
    for entry in fs::read_dir(root().join("src/cli")).expect("src/cli is readable") {
        flags += &read(&entry.expect("src/cli is readable").path());
    }
    flags += &read(&root().join("src/cli.rs"));
    let keys: Vec<&str> = rows(&page, "key")
        .iter()
        .flat_map(|cells| quoted(cells.last().expect("a row has cells")))
        .filter(|name| !name.contains('-'))
        .collect();
    assert!(keys.len() > 10, "the page has only {} keys", keys.len());
    let missing: Vec<&&str> = keys
        .iter()
        .filter(|key| !declares(&flags, &["pub "], key))
        .collect();
    assert!(
        missing.is_empty(),
        "{PAGE} names {missing:?}, which are not flags"
    );
}

#[test]
fn items_that_are_not_declared_are_not_found() {
    let text = "struct Head;\nimpl Guidance for Head {\n    fn step_by(&self) {}\n}\nfn alone() {}\nimpl<'a> Tuner<'a> {\n    fn learn() {}\n}\n";
    for there in ["Head", "alone", "Head::step_by", "Tuner::learn"] {
        assert!(has_item(text, there), "{there}");
    }
    for missing in [
        "Hea",
        "Head::step",
        "Head::alone",
        "Head::learn",
        "Tuner::step_by",
        "Tail",
    ] {
        assert!(!has_item(text, missing), "{missing}");
    }
}
