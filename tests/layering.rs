//! Levels of the source tree: a file names only files of lower levels or of its own, and no two
//! files need each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The lowest level first. Each entry is the beginning of a path below `src`.
const LEVELS: [&[&str]; 9] = [
    &[
        "error", "device", "io", "libtorch", "pictures", "signals", "streams", "wording",
    ],
    &["models", "schedulers", "tokenizer"],
    &["backbone"],
    &["method", "measures", "baselines"],
    &["cli", "config", "pages", "records"],
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

/// Modules named by `crate::x` or `oneactor::x` in code, without comments.
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

/// The name of a flag in a string of this line: two hyphens before a letter.
fn flag_in(line: &str) -> Option<&str> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return None;
    }
    // Lines of a string that continues have no quote of their own.
    let text = &line[code.find('"').map_or(0, |at| at + line.len() - code.len())..];
    let (at, _) = text.match_indices("--").find(|(at, _)| {
        let after = text[at + 2..].chars().next();
        let before = text[..*at].chars().next_back();
        after.is_some_and(|c| c.is_ascii_lowercase()) && before.is_none_or(|c| !c.is_alphanumeric())
    })?;
    Some(&text[at..])
}

/// Below `config`, nothing knows how the user gave a setting: as a flag, a key or a variable. So messages there
/// name the setting in words. Whole commands to copy (`oneactor fetch …`) are fine everywhere.
#[test]
fn messages_below_the_configuration_name_no_flags() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let config = level_of("config").expect("a level");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).expect("below src");
        let own = relative.with_extension("");
        let own = own.iter().next().and_then(|part| part.to_str());
        if own.and_then(level_of).is_none_or(|level| level >= config) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("source files are text");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()) {
            let is_command = line.contains("`oneactor ") || line.contains("format!(\" --");
            if let Some(flag) = flag_in(line).filter(|_| !is_command) {
                wrong.push(format!("{}:{number}: {flag}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(flag_in("    \"try --dtype fp32\"").is_some());
    assert!(flag_in("    let n = n--m; // no flag").is_none());
}

#[test]
fn the_page_on_the_sources_has_the_same_levels() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/README.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let levels: Vec<Vec<&str>> = rows
        .map(|row| {
            let names = row.split('|').nth(1).unwrap_or_default();
            names.split('`').skip(1).step_by(2).collect()
        })
        .collect();
    assert_eq!(levels, LEVELS.map(<[&str]>::to_vec));
}

/// The module path of a source file below the crate: `["io", "hub"]` for `src/io/hub.rs`.
fn module_of(relative: &Path) -> Vec<String> {
    let path = relative.with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    parts
        .filter(|part| part != "mod" && part != "lib")
        .collect()
}

/// Full paths, from the crate on, of the names in the `use` lines of a file: `a::{b, c::d}` has two
/// names. Lines in tests and re-exports (`pub use`) are left out.
fn names_used(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut names = Vec::new();
    for item in code.split("\nuse ").skip(1) {
        let item = item.split(';').next().unwrap_or_default();
        for name in written_out(&item.replace(char::is_whitespace, "")) {
            let mut path: Vec<String> = name.split("::").map(str::to_owned).collect();
            let mut from = module.to_vec();
            match path[0].as_str() {
                "crate" => from.clear(),
                "super" => {}
                _ => path.insert(0, "self".to_owned()),
            }
            let steps = path.iter().take_while(|part| *part == "super").count();
            from.truncate(from.len().saturating_sub(steps));
            from.extend(path.drain(steps.max(1)..));
            names.push(from);
        }
    }
    names
}

/// `a::{b,c::{d,e}}` as `a::b`, `a::c::d` and `a::c::e`.
fn written_out(item: &str) -> Vec<String> {
    let Some((start, group)) = item.split_once('{') else {
        return vec![item.to_owned()];
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for sign in group.chars() {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if sign == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(sign);
        }
    }
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts
        .flat_map(|part| written_out(part))
        .map(|part| format!("{start}{part}"))
        .collect()
}

#[test]
fn groups_of_names_are_expanded() {
    assert_eq!(
        written_out("a::{b,c::{d,e}}"),
        ["a::b", "a::c::d", "a::c::e"]
    );
    let module = ["io".to_owned(), "hub".to_owned()];
    let text = "//! x\nuse super::text;\nuse fetch::{A, B};\nuse crate::error::usage;\npub use known::C;\n";
    let names: Vec<String> = names_used(text, &module)
        .iter()
        .map(|name| name.join("::"))
        .collect();
    assert_eq!(
        names,
        [
            "io::text",
            "io::hub::fetch::A",
            "io::hub::fetch::B",
            "error::usage"
        ]
    );
}

#[test]
fn files_do_not_depend_on_each_other_in_a_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let modules: BTreeMap<Vec<String>, &PathBuf> = files
        .iter()
        .map(|file| (module_of(file.strip_prefix(&src).expect("below src")), file))
        .collect();
    let mut needs: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = BTreeMap::new();
    for (module, file) in &modules {
        let text = fs::read_to_string(file).expect("source files are text");
        for name in names_used(&text, module) {
            let of_file = (1..=name.len())
                .rev()
                .find_map(|length| modules.get_key_value(&name[..length]));
            // A module needs the modules inside it.
            if let Some((other, _)) = of_file.filter(|(other, _)| !other.starts_with(module)) {
                needs.entry(module).or_default().insert(other);
            }
        }
    }
    assert!(
        needs.len() > 100,
        "found the dependencies of {} files only",
        needs.len()
    );
    // Files that need no remaining file, or that no remaining file needs, are removed until nothing
    // changes; only circles remain.
    loop {
        let before = needs.len();
        let needed: BTreeSet<&Vec<String>> = needs.values().flatten().copied().collect();
        needs.retain(|module, others| !others.is_empty() && needed.contains(module));
        let left: BTreeSet<&Vec<String>> = needs.keys().copied().collect();
        needs
            .values_mut()
            .for_each(|others| others.retain(|other| left.contains(other)));
        if needs.len() == before {
            break;
        }
    }
    let circles: Vec<String> = needs
        .iter()
        .map(|(module, others)| {
            let others: Vec<String> = others.iter().map(|other| other.join("::")).collect();
            format!("{} needs {}", module.join("::"), others.join(", "))
        })
        .collect();
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}
