//! Words that were private to this project stay out of its text: the usual word is in the second
//! column of [`WORDS`]. Lines of prose in Markdown pages are short enough to read in a terminal.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the project's text is.
const PLACES: [&str; 7] = [
    "README.md",
    "configs",
    "findings",
    "prompts",
    "scripts",
    "src",
    "tests",
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

/// The most characters of a line of prose in a Markdown page.
const LONGEST_LINE: usize = 100;

/// The most lines of `README.md`.
const LONGEST_README: usize = 120;

/// The numbers and lengths of lines of prose that are too long. Code blocks, rows of tables and lines
/// without a space, such as an address, cannot be wrapped.
fn too_long(page: &str) -> Vec<(usize, usize)> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (i, line) in page.lines().enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        let words = line.trim_start_matches(['-', ' ']);
        let is_fixed = is_code || is_fence || line.starts_with('|') || !words.contains(' ');
        let length = line.chars().count();
        if !is_fixed && length > LONGEST_LINE {
            found.push((i + 1, length));
        }
    }
    found
}

fn all_text_files() -> Vec<String> {
    let mut names = Vec::new();
    PLACES
        .iter()
        .for_each(|path| text_files(Path::new(path), &mut names));
    names
}

#[test]
fn lines_of_prose_in_pages_are_short() {
    let mut names = all_text_files();
    names.retain(|name| name.ends_with(".md"));
    assert!(names.len() > 15, "only {} pages", names.len());
    let mut wrong = Vec::new();
    for name in names {
        let page = fs::read_to_string(root().join(&name)).expect("the file is text");
        for (line, length) in too_long(&page) {
            wrong.push(format!(
                "{name}:{line}: {length} characters, write at most {LONGEST_LINE}"
            ));
        }
        if name == "README.md" && page.lines().count() > LONGEST_README {
            wrong.push(format!("{name} has more than {LONGEST_README} lines"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_prose_has_to_be_wrapped() {
    let words = "word ".repeat(LONGEST_LINE / 5 + 1);
    let address = format!("https://{}", "a".repeat(LONGEST_LINE));
    let page = format!(
        "é{}\n{words}\n```\n{words}\n```\n| {words} |\n- {address}\n- {words}\n",
        &words[..99]
    );
    assert_eq!(too_long(&page), [(2, words.len()), (8, words.len() + 2)]);
}

#[test]
fn text_has_none_of_the_banned_words() {
    let names = all_text_files();
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
