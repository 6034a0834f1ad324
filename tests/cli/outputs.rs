//! Results that cannot be written: a full disk or a closed pipe behind stdout and stderr, and a
//! limit on the size of files.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::{BASE, Run, copy, folder, folder_with_actor, names, oneactor, program};

/// A file in which every write fails with "no space left on device".
fn full_disk() -> File {
    let full = File::options().write(true).open("/dev/full");
    full.expect("Linux has /dev/full")
}

fn command(folder: &Path, line: &str) -> Command {
    program(folder, line.split_whitespace())
}

/// Writes a model's folder in the form of the hub's cache.
fn fill_cache(folder: &Path) {
    let repository = folder.join("hub/hub/models--some--model");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/toy");
    copy(&toy, &repository.join("snapshots").join(commit));
    fs::create_dir_all(repository.join("refs")).expect("the folder is writable");
    fs::write(repository.join("refs/main"), commit).expect("the folder is writable");
}

/// A folder in which every line of [`LINES`] has something to print.
fn folder_for_all(name: &str) -> std::path::PathBuf {
    let folder = folder_with_actor(name);
    let sample = "sample --no-actor --model toy -p robot --num-images 2 --steps 1";
    oneactor(&folder, &format!("{sample} -o plain")).exits_with(0);
    for shard in ["1/2", "2/2"] {
        oneactor(&folder, &format!("{sample} -o parts --shard {shard}")).exits_with(0);
    }
    let story = json!({
        "title": "x", "model": "toy", "characters": {"robot": {"actor": "robot"}},
        "scenes": [{"prompt": "a [robot]"}], "drawing": {"steps": 1},
    });
    fs::write(folder.join("story.json"), story.to_string()).expect("the folder is writable");
    fill_cache(&folder);
    folder
}

/// One line for each command that prints results, and for each output format.
const LINES: [&str; 24] = [
    "generate-base --model toy -p robot --subject robot --num-images 2 --steps 1 -o new",
    "tune robot --target 0 --max-steps 1 --overwrite",
    "sample --no-actor --model toy -p robot --steps 1 -o new-sample",
    "sample --no-actor --model toy -p robot --steps 1 -o json --format json",
    "sample --no-actor --model toy -p robot --steps 1 -o planned --dry-run",
    "sample --no-actor --model toy -p robot --steps 1 -o planned --dry-run --format json",
    "story story.json -o book",
    "sweep robot -p robot --eta-2 0,1 --steps 1 -o swept",
    "ablate robot -p robot --steps 1 --num-images 1 --overwrite",
    "evaluate plain --model toy --metrics clip_t",
    "evaluate plain --model toy --metrics clip_t --format json",
    "evaluate plain --model toy --metrics clip_t --format csv",
    "merge parts",
    "gallery plain",
    "fetch some/model",
    "fetch some/model --dry-run --format json",
    "doctor",
    "inspect plain/0000-0.png",
    "inspect robot --format json",
    "schema sample",
    "completions bash",
    "man pages",
    "--version",
    "sample --help",
];

#[test]
fn results_that_are_lost_on_a_full_disk_are_an_error_in_every_command() {
    let folder = folder_for_all("full-disk");
    for line in LINES {
        let run = command(&folder, line).stdout(full_disk()).output();
        let run = Run::of(run.expect("the program starts")).exits_with(1);
        let said = "standard output cannot be written: No space left on device";
        assert_eq!(
            run.stderr.matches(said).count(),
            1,
            "{line}: {}",
            run.stderr
        );
    }
    // The files are written all the same.
    for file in [
        "new/base.json",
        "new-sample/grid.png",
        "book/index.html",
        "pages/oneactor.1",
    ] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    // Another failure keeps its own exit code.
    let run = command(
        &folder,
        "evaluate plain --model toy --metrics clip_t --fail-below clip_t=2",
    )
    .stdout(full_disk())
    .output();
    let run = Run::of(run.expect("the program starts")).exits_with(6);
    run.says("clip_t: found")
        .says("standard output cannot be written");
}

#[test]
fn a_reader_that_has_gone_is_no_error_in_any_command() {
    let folder = folder_for_all("closed-pipe");
    for line in LINES {
        let (reader, writer) = io::pipe().expect("there are pipes");
        drop(reader);
        let run = command(&folder, line).stdout(writer).output();
        let run = Run::of(run.expect("the program starts")).exits_with(0);
        assert!(
            !run.stderr.contains("standard output"),
            "{line}: {}",
            run.stderr
        );
    }
}

#[test]
fn messages_that_nobody_can_read_stop_nothing() {
    let folder = folder("full-stderr");
    let sample = "sample --no-actor --model toy -p robot --steps 1 -o";
    for (line, code) in [
        (format!("{sample} a --verbose"), 0),
        (format!("{sample} b --steps 0"), 2),
        ("sample nowhere -p robot".to_owned(), 2),
        ("sample --no-such-flag".to_owned(), 2),
    ] {
        let run = command(&folder, &line)
            .stderr(full_disk())
            .stdout(Stdio::piped())
            .output();
        Run::of(run.expect("the program starts")).exits_with(code);
    }
    assert!(folder.join("a/0000-0.png").is_file());
}

/// Runs the program with a limit of so many KiB on the size of a file.
fn limited(folder: &Path, kib: usize, line: &str) -> Run {
    let mut limited = Command::new("bash");
    limited
        .args(["-c", &format!("ulimit -f {kib}; exec \"$@\""), "bash"])
        .arg(env!("CARGO_BIN_EXE_oneactor"))
        .args(line.split_whitespace())
        .current_dir(folder);
    for (name, value) in command(folder, line).get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    Run::of(limited.output().expect("bash is there"))
}

/// The temporary files in and below a folder.
fn leftovers(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(folder) {
        if folder.join(&name).is_dir() {
            found.extend(leftovers(&folder.join(&name)))
        } else {
            found.extend(name.ends_with(".part").then_some(name))
        }
    }
    found
}

#[test]
fn a_file_that_may_not_grow_is_named_and_leaves_no_part_behind() {
    let folder = folder_with_actor("file-size");
    let tiny = "sample --no-actor --model toy -p robot --num-images 12 --steps 1 -W 16 -H 16";
    // Each of the tiny pictures fits; their list does not.
    let cases = [
        (
            1,
            format!("{tiny} -o pictures"),
            "writing pictures/0000-0.png",
        ),
        (2, format!("{tiny} -o list"), "writing list/manifest.jsonl"),
        (
            1,
            format!("{BASE} -o base").replace("'a robot'", "robot"),
            "00.safetensors",
        ),
        (
            2,
            "tune robot --target 0 --max-steps 1 --overwrite".to_owned(),
            "tune.checkpoint.safetensors",
        ),
        (1, "man pages".to_owned(), "writing pages/oneactor"),
    ];
    for (kib, line, message) in cases {
        let run = limited(&folder, kib, &line).exits_with(1);
        run.says(message).says("File too large");
        assert_eq!(leftovers(&folder), [""; 0], "{line}");
    }
    // Finished files are kept, and the same command continues.
    assert!(folder.join("list/0001-1.png").is_file());
    oneactor(&folder, &format!("{tiny} -o list"))
        .exits_with(0)
        .says("images are there already");
    let path = folder.join("schema.json");
    let run = program(&folder, ["schema", "sample"])
        .stdout(File::create(&path).expect("the folder is writable"))
        .status();
    assert!(run.is_ok_and(|status| status.success()));
    let whole = fs::metadata(&path).expect("it was written").len();
    let mut shell = Command::new("bash");
    let script = "ulimit -f 1; exec \"$0\" schema sample >schema.json";
    let run = shell
        .args(["-c", script, env!("CARGO_BIN_EXE_oneactor")])
        .current_dir(&folder)
        .output();
    Run::of(run.expect("bash is there"))
        .exits_with(1)
        .says("standard output cannot be written: File too large");
    assert!(fs::metadata(&path).expect("it is there").len() < whole);
}
