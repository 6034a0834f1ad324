//! Words that were private to this project stay out of its text: the usual word is in the second
//! column of [`WORDS`].

use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files without any of the words. Add a folder as soon as it is clean.
const CLEAN: [&str; 8] = [
    "README.md",
    "src",
    "configs/GUIDE.md",
    "configs/HOWTO.md",
    "tests",
    "scripts",
    "prompts",
    "findings",
];

/// This file, which has to name the words, and CLIP's vocabulary.
const EXEMPT: [&str; 2] = ["tests/english.rs", "src/io/clip/merges.txt"];

/// Words that have one meaning only, in lower case, and what to write instead.
const WORDS: [(&str, &str); 9] = [
    ("can not", "cannot"),
    ("goes on", "continues"),
    ("go on with", "continue with"),
    ("go on from", "continue from"),
    ("worked out", "calculated"),
    ("that is none", "that does not exist, or that is not one"),
    ("told of", "reported"),
    ("tells of", "describes, or reports"),
    ("in vain", "without result"),
];

/// Endings of files that hold text. Other files are pictures and weights.
const TEXT: [&str; 12] = [
    "cpp", "json", "md", "mjs", "py", "rs", "sbatch", "sh", "toml", "tsv", "txt", "yaml",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text files below `path`, which is below the root. Hidden folders and what tools generate are left out.
fn text_files(path: &Path, names: &mut Vec<String>) {
    let full = root().join(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') || matches!(&*name, "target" | "__pycache__" | "node_modules") {
        return;
    }
    if full.is_dir() {
        for entry in fs::read_dir(&full).expect("the folder can be read") {
            text_files(
                &path.join(entry.expect("the folder can be read").file_name()),
                names,
            );
        }
        return;
    }
    let ending = path.extension();
    let is_text = ending.is_some_and(|ending| TEXT.iter().any(|text| ending == *text));
    let name = path.to_string_lossy().into_owned();
    if is_text && !EXEMPT.contains(&&*name) {
        names.push(name);
    }
}

/// A line in lower case without the marks of a comment, so that it continues the line before.
/// Names of functions become words.
fn plain(line: &str) -> String {
    line.trim()
        .trim_start_matches(['/', '#', '!', '*', '-', ' '])
        .to_lowercase()
        .replace('_', " ")
}

/// Whether `text` has the word between two characters that are not letters.
fn has(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        ![before, after].iter().flatten().any(|c| c.is_alphabetic())
    })
}

/// One message for each line that has a word, or that begins a word which the next line ends.
fn found(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(plain).collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let next = lines.get(i + 1).map_or("", String::as_str);
        let both = format!("{line} {next}");
        for (word, usual) in WORDS {
            if has(line, word) || (has(&both, word) && !has(next, word)) {
                found.push(format!("{name}:{}: \"{word}\", write: {usual}", i + 1));
            }
        }
    }
    found
}

#[test]
fn text_has_none_of_the_banned_words() {
    let mut names = Vec::new();
    CLEAN
        .iter()
        .for_each(|path| text_files(Path::new(path), &mut names));
    assert!(names.len() > 200, "only {} files", names.len());
    let mut wrong = Vec::new();
    for name in names {
        let text = fs::read_to_string(root().join(&name)).expect("the file is text");
        wrong.extend(found(&name, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_banned_word_is_found_with_its_line_also_across_two_lines() {
    let text = "// a file that can\n// not be read\nfn it_goes_on() {}\nscan notes\n# Goes on.\n";
    assert_eq!(
        found("a.rs", text),
        [
            "a.rs:1: \"can not\", write: cannot",
            "a.rs:3: \"goes on\", write: continues",
            "a.rs:5: \"goes on\", write: continues",
        ]
    );
}
