//! A token is sent to the hub and nowhere else. The program runs with a token that can be
//! recognised, in runs that succeed and runs that fail, and all its output and files are searched
//! for the token.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use super::common::fixture;
use super::server::{Fault, Request};
use super::*;

/// Part of every secret here, and of nothing else.
const MARK: &str = "hf_Zq7marked";

/// The program with secrets in all places where users have them.
fn run(scratch: &Scratch, endpoint: &str, arguments: &[&str]) -> Output {
    let home = scratch.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("token"), format!("{MARK}_of_the_file\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneactor"));
    command
        .args(arguments)
        .current_dir(scratch.path())
        .env_clear()
        .env("HF_HOME", &home)
        .env("HF_ENDPOINT", endpoint)
        .env("RUST_BACKTRACE", "full")
        .env("RUST_LOG", "trace")
        .env("OMP_NUM_THREADS", "1")
        .env("ONEACTOR_DEVICE", "cpu");
    if !scratch.path().join("by-file").exists() {
        command.env("HF_TOKEN", format!("{MARK}_of_the_variable"));
    }
    command.output().unwrap()
}

/// Checks that no output and no file contains the mark, except the token's own file.
fn assert_silent(scratch: &Scratch, output: &Output) -> String {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!said.contains(MARK), "{said}");
    assert!(output.status.signal().is_none(), "{said}");
    let mut open = vec![scratch.path().to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.display().to_string().contains(MARK), "{path:?}");
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if path.is_file() && !path.ends_with("home/token") {
                let content = std::fs::read(&path).unwrap();
                let mut windows = content.windows(MARK.len());
                assert!(!windows.any(|part| part == MARK.as_bytes()), "{path:?}");
            }
        }
    }
    said
}

fn shows_secret(request: &&Request) -> bool {
    let mut values = request.headers.values();
    request.path.contains(MARK) || values.any(|value| value.contains(MARK))
}

/// A hub with the tiny SD 1.5 of the fixtures, which accepts the tokens of this file.
fn hub() -> FakeHub {
    let mut files = Vec::new();
    super::moved::files_of(&fixture("sd15"), "", &mut files);
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .filter(|(name, _)| !name.starts_with("expected/"))
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let hub = FakeHub::start();
    hub.add(ID, &files);
    hub.change(ID, |repository| repository.gated = true);
    hub
}

const DRAW: [&str; 18] = [
    "generate-base",
    "--model",
    ID,
    "-p",
    "a hobbit",
    "--subject",
    "hobbit",
    "-o",
    "out",
    "--num-images",
    "2",
    "--steps",
    "1",
    "-W",
    "64",
    "-H",
    "64",
    "--verbose",
];

#[test]
fn a_successful_run_writes_no_token_to_output_or_files() {
    for (by_file, token) in [
        (false, format!("{MARK}_of_the_variable")),
        (true, format!("{MARK}_of_the_file")),
    ] {
        let (hub, scratch) = (hub(), Scratch::new());
        hub.accept(&token);
        if by_file {
            std::fs::write(scratch.path().join("by-file"), "").unwrap();
        }
        let output = run(&scratch, &hub.endpoint, &DRAW);
        let said = assert_silent(&scratch, &output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let requests = hub.take_requests();
        assert!(requests.iter().any(|request| shows_secret(&request)));
        let mut elsewhere = requests.iter().filter(|request| request.cdn);
        assert!(!elsewhere.any(|request| shows_secret(&request)));
        // Commands that read those files again.
        for arguments in [
            &["inspect", "out/base/00.png", "out/base.safetensors"][..],
            &["inspect", "out/base/00.png", "--format", "json"],
            &[
                "tune",
                "out",
                "--target",
                "0",
                "--max-steps",
                "1",
                "--verbose",
            ],
            &[
                "sample", "out", "-p", "a [b]", "-o", "drawn", "--steps", "1", "--format", "json",
            ],
            &[
                "sample",
                "--from",
                "drawn/0000-0.png",
                "-o",
                "again",
                "--dry-run",
            ],
            &["doctor"],
            &["doctor", "--format", "json"],
        ] {
            let output = run(&scratch, &hub.endpoint, arguments);
            let said = assert_silent(&scratch, &output);
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_refusal_shows_no_token() {
    // 401 for an unknown token; 401 and 404 for a missing file or repository.
    for model in [ID, "org/nothing", "org/tiny-sdxl/", "toy-that-is-not"] {
        let (hub, scratch) = (hub(), Scratch::new());
        let mut arguments = DRAW;
        arguments[2] = model;
        let output = run(&scratch, &hub.endpoint, &arguments);
        let said = assert_silent(&scratch, &output);
        assert_eq!(output.status.code(), Some(3), "{said}");
    }
}

#[test]
fn a_status_of_any_kind_shows_no_token() {
    for status in [400, 403, 418, 451] {
        let (hub, scratch) = (hub(), Scratch::new());
        hub.answer_all_with(status, None);
        let output = run(&scratch, &hub.endpoint, &DRAW);
        let said = assert_silent(&scratch, &output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(&status.to_string()), "{said}");
    }
}

#[test]
fn a_redirect_of_the_list_to_another_host_carries_no_token() {
    let (hub, scratch) = (hub(), Scratch::new());
    hub.accept(&format!("{MARK}_of_the_variable"));
    let elsewhere = format!("{}/blob/elsewhere?Signature=secret", hub.cdn);
    hub.answer_all_with(302, Some(&elsewhere));
    let output = run(&scratch, &hub.endpoint, &DRAW);
    let said = assert_silent(&scratch, &output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(!said.contains("Signature"), "{said}");
    let requests = hub.take_requests();
    let elsewhere: Vec<_> = requests.iter().filter(|request| request.cdn).collect();
    assert!(!elsewhere.is_empty(), "the redirect was followed");
    assert!(!elsewhere.iter().any(shows_secret), "{elsewhere:?}");
}

#[test]
fn a_damaged_download_and_a_cut_one_show_no_token() {
    let name = "unet/diffusion_pytorch_model.safetensors";
    for fault in [Fault::Damage, Fault::Cut(10), Fault::CutUnnoticed(10)] {
        let (hub, scratch) = (hub(), Scratch::new());
        hub.accept(&format!("{MARK}_of_the_variable"));
        // Once only: the program repeats requests to a hub that keeps failing, which takes time.
        hub.fail(name, &[fault]);
        let output = run(&scratch, &hub.endpoint, &DRAW);
        let said = assert_silent(&scratch, &output);
        assert_eq!(output.status.code(), Some(0), "{said}");
    }
}

#[test]
fn a_password_in_the_address_of_a_hub_or_a_proxy_is_not_shown() {
    let (hub, scratch) = (hub(), Scratch::new());
    let with_password = hub
        .endpoint
        .replace("http://", &format!("http://me:{MARK}@"));
    for endpoint in [
        with_password.clone(),
        // No server listens there.
        format!("http://me:{MARK}@127.0.0.1:1"),
        format!("{}?token={MARK}", hub.endpoint),
        format!("me:{MARK}@127.0.0.1"),
    ] {
        for arguments in [&DRAW[..], &["doctor"]] {
            // The program asks an unreachable host again after some seconds; its list is requested
            // once.
            let output = run(&scratch, &endpoint, arguments);
            let said = assert_silent(&scratch, &output);
            let is_report = arguments[0] == "doctor";
            assert_eq!(output.status.code() == Some(0), is_report, "{said}");
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .args(DRAW)
        .current_dir(scratch.path())
        .env_clear()
        .env("HF_HOME", scratch.path().join("home"))
        .env("HF_ENDPOINT", "http://hub.invalid")
        .env("ALL_PROXY", format!("http://me:{MARK}@127.0.0.1:1"))
        .output()
        .unwrap();
    let said = assert_silent(&scratch, &output);
    assert_eq!(output.status.code(), Some(3), "{said}");
}

#[test]
fn an_invalid_token_is_named_only_by_its_origin() {
    let scratch = Scratch::new();
    let output = Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .args(DRAW)
        .current_dir(scratch.path())
        .env_clear()
        .env("HF_HOME", scratch.path().join("home"))
        .env("HF_TOKEN", format!("{MARK} with a blank"))
        .output()
        .unwrap();
    let said = assert_silent(&scratch, &output);
    assert!(
        said.contains("the token from HF_TOKEN contains a blank"),
        "{said}"
    );
}

/// Every user of the machine can see the command lines of all processes. So no flag takes a token,
/// and no process is started that could be given one.
#[test]
fn no_token_is_part_of_a_command_line() {
    let help = |command: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_oneactor"))
            .args([command, &["--help"]].concat())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands = help(&[]);
    for command in [
        "generate-base",
        "tune",
        "sample",
        "story",
        "sweep",
        "ablate",
        "evaluate",
        "fetch",
        "doctor",
    ] {
        assert!(commands.contains(command), "{commands}");
        let flags = help(&[command]);
        assert!(
            flags.contains("--help") && !flags.contains("--token"),
            "{flags}"
        );
    }
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for start in [
                    "process::Command",
                    "Command::new(\"",
                    "execv",
                    "posix_spawn",
                ] {
                    // clap's builder is called Command too, and takes a name that is not a program.
                    let mut uses = text.match_indices(start);
                    assert!(
                        uses.all(|(at, _)| text[..at].ends_with("clap::")),
                        "{} starts a process: {start}",
                        path.display()
                    );
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "the sources were found");
}
