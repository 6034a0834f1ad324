//! Names of files that are not UTF-8. Text output has the bytes unchanged, JSON output refuses the
//! name, and nothing panics.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

use crate::{Run, copy, folder_with_actor, names, oneactor, program};

/// "café" in Latin-1.
fn raw() -> &'static OsStr {
    OsStr::from_bytes(b"caf\xe9")
}

/// The name as messages show it.
const SHOWN: &str = "caf\\xE9";

/// Runs a line in which every `RAW` is replaced by the name.
fn output(folder: &Path, line: &str) -> Output {
    let argument = |word: &str| {
        let mut parts = word.split("RAW");
        let mut argument = OsString::from(parts.next().unwrap_or_default());
        for part in parts {
            argument.push(raw());
            argument.push(part);
        }
        argument
    };
    let arguments: Vec<OsString> = line.split_whitespace().map(argument).collect();
    let output = program(folder, arguments).output();
    output.expect("the program starts")
}

#[test]
fn names_that_would_be_recorded_are_refused_before_any_work() {
    let folder = folder_with_actor("raw-recorded");
    copy(&folder.join("robot"), &folder.join(raw()));
    fs::write(folder.join("story.json"), "{}").expect("the folder is writable");
    fs::write(folder.join("batch.json"), "{}").expect("the folder is writable");
    let before = names(&folder);
    for (line, flag) in [
        (
            "generate-base --model toy -p robot --subject robot -o RAW/x",
            "--output-dir",
        ),
        ("tune RAW --target 0", "DIR"),
        ("tune robot --target-image RAW.png", "--target-image"),
        ("sample RAW -p robot", "DIR|actor.safetensors"),
        ("sample robot -p robot -o RAW/x", "--output-dir"),
        ("sample robot --prompts-file RAW.txt", "--prompts-file"),
        ("sample --from RAW/base/00.png", "--from"),
        (
            "sample robot -p robot --control-image RAW --controlnet x",
            "--control-image",
        ),
        ("sample robot -p robot --offsets RAW", "--offsets"),
        ("story RAW.json -o book", "STORY.json"),
        ("story story.json -o RAW/x", "--output-dir"),
        ("sweep RAW -p robot --eta-2 0,1", "DIR|actor.safetensors"),
        ("ablate RAW -p robot", "DIR"),
        ("gallery RAW", "DIR"),
        ("gallery robot -o RAW.html", "--output"),
        ("inspect RAW/base/00.png --format json", "FILE"),
        (
            "evaluate RAW/base/00.png --model toy --format json",
            "OUT|PICTURE",
        ),
        (
            "evaluate RAW/base/00.png --model toy --report a.html",
            "OUT|PICTURE",
        ),
        (
            "evaluate RAW/base/00.png --model toy --config batch.json",
            "OUT|PICTURE",
        ),
        ("merge RAW --format json", "OUT"),
    ] {
        let run = Run::of(output(&folder, line))
            .exits_with(2)
            .writes_nothing();
        let message = format!("error: {flag}: found \"{SHOWN}");
        assert!(run.stderr.starts_with(&message), "{line}: {}", run.stderr);
        assert!(
            run.stderr.contains("expected UTF-8"),
            "{line}: {}",
            run.stderr
        );
    }
    assert_eq!(names(&folder), before);
    // Only paths may be other bytes than UTF-8: prompts and names of models are refused.
    for line in [
        "sample robot -p RAW",
        "sample robot -p robot -m RAW",
        "fetch RAW",
    ] {
        Run::of(output(&folder, line))
            .exits_with(2)
            .says(&format!("found \"{SHOWN}\", expected UTF-8"))
            .writes_nothing();
    }
}

#[test]
fn text_and_tables_hold_the_bytes_of_a_name() {
    let folder = folder_with_actor("raw-text");
    fs::create_dir(folder.join(raw())).expect("names may be bytes here");
    let picture = folder.join(raw()).join("a.png");
    fs::copy(folder.join("robot/base/01.png"), picture).expect("the picture is there");
    let shown = b"caf\xe9/a.png";
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|found| found == part);

    let inspected = output(&folder, "inspect RAW/a.png");
    assert_eq!(inspected.status.code(), Some(0));
    assert!(inspected.stdout.starts_with(b"caf\xe9/a.png\n"));
    let csv = output(
        &folder,
        "evaluate RAW/a.png --model toy --metrics clip_t --format csv",
    );
    assert_eq!(
        csv.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&csv.stderr)
    );
    assert!(has(&csv.stdout, &[b"picture,", &shown[..], b","].concat()));
    let table = output(
        &folder,
        "evaluate RAW/a.png --model toy --metrics clip_t --verbose",
    );
    Run::of(table).exits_with(0);
    let pages = output(&folder, "man RAW/pages");
    assert_eq!(pages.status.code(), Some(0));
    for line in pages
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        assert!(folder.join(OsStr::from_bytes(line)).is_file(), "{line:?}");
    }
    // A relative path inside such a folder does not contain its name.
    copy(&folder.join("robot"), &folder.join(raw()).join("robot"));
    let inside = folder.join(raw());
    for line in [
        "sample robot -p robot --steps 1 -o out --format json",
        "evaluate out --model toy --metrics clip_t --format json",
        "gallery out --format json",
    ] {
        oneactor(&inside, line).exits_with(0);
    }
    // Parts are merged there too.
    for shard in ["1/2", "2/2"] {
        let line =
            format!("sample robot -p robot --num-images 2 --steps 1 -o parts --shard {shard}");
        oneactor(&inside, &line).exits_with(0);
    }
    let merged = output(&folder, "merge RAW/parts");
    assert_eq!(merged.status.code(), Some(0));
    assert!(merged.stdout.starts_with(b"caf\xe9/parts/manifest.jsonl\n"));
}

#[test]
fn variables_that_are_not_utf_8_are_named() {
    let folder = folder_with_actor("raw-variables");
    for (name, line, message) in [
        (
            "ONEACTOR_OUTPUT_DIR",
            "sample robot -p robot",
            "--output-dir: found \"caf\\xE9\"",
        ),
        (
            "ONEACTOR_SCHEDULER",
            "sample robot -p robot",
            "ONEACTOR_SCHEDULER",
        ),
        (
            "HF_HOME",
            "generate-base -m a/b -p robot --subject robot -o x",
            "HF_HOME: found bytes that are not UTF-8",
        ),
        (
            "HF_TOKEN",
            "fetch a/b",
            "HF_TOKEN: found bytes that are not UTF-8",
        ),
    ] {
        let run = program(&folder, line.split_whitespace())
            .env(name, raw())
            .output();
        Run::of(run.expect("the program starts"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
}
