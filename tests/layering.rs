//! Levels of the source tree: a file names only lower levels, or its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. Each entry is what a path below `src` begins with.
const LEVELS: [&[&str]; 9] = [
    &["error", "device", "io", "libtorch", "signals", "streams"],
    &["models", "schedulers", "tokenizer"],
    &["sdxl"],
    &["oneactor", "measures", "baselines"],
    &["cli", "config"],
    &["progress"],
    &["run"],
    &["commands"],
    &["main", "lib"],
];

fn level_of(module: &str) -> Option<usize> {
    LEVELS.iter().position(|names| names.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Modules named by `crate::x` or `oneactor::x` in code, comments left out.
fn modules_named(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for part in line.split("crate::").skip(1) {
            let inner = part.strip_prefix('{').unwrap_or(part);
            names.push(
                inner
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect(),
            );
        }
    }
    names
}

#[test]
fn a_file_names_only_lower_levels() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "found only {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let relative = file
            .strip_prefix(&src)
            .expect("below src")
            .with_extension("");
        let own = relative
            .components()
            .next()
            .and_then(|c| c.as_os_str().to_str())
            .unwrap_or_default()
            .to_string();
        let Some(level) = level_of(&own) else {
            wrong.push(format!("{own} has no level: add it to tests/layering.rs"));
            continue;
        };
        for named in modules_named(&fs::read_to_string(&file).expect("source files are text")) {
            if level_of(&named).is_some_and(|other| other > level) {
                wrong.push(format!(
                    "{} names {named}, which is above it",
                    relative.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
