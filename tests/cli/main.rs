//! The program as its users run it: flags and files in; files, messages and exit codes out. Nearly
//! all tests run the embedded toy model, with few steps.

mod bad_input;
mod batches;
#[path = "../common/mod.rs"]
mod common;
mod config_files;
mod consistory;
mod control;
mod control_elsewhere;
mod crops;
mod damaged;
mod distances;
mod dry_run_checks;
mod dry_runs;
mod environment;
mod evaluate;
mod experiments;
mod folders;
mod gallery;
mod help_files;
mod interruption;
mod ip_adapter;
mod key_tables;
mod left_out;
mod leftovers;
mod locks;
mod loras;
mod masks;
mod memory;
mod memory_needed;
mod methods;
mod outputs;
mod outside;
mod pickles;
mod previews;
mod processes;
mod prompts;
mod raw_names;
mod redraws;
mod report;
mod settings;
mod several;
mod shards;
mod shortcuts;
mod stable_diffusion;
mod stories;
mod styles;
mod target_image;
mod text_files;
mod tokenizers;
mod whole_job;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A finished run of the program.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code; a failure shows the program's output.
    #[track_caller]
    fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that a message is on stderr.
    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "{text:?} is not in {}",
            self.stderr
        );
        self
    }

    /// Checks that the program listed no file as written.
    #[track_caller]
    fn writes_nothing(self) -> Self {
        assert_eq!(self.stdout, "");
        self
    }

    fn paths(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// The program, in `folder`, with a clean environment.
fn program<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(folder: &Path, arguments: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneactor"));
    command.args(arguments).current_dir(folder);
    for (name, _) in std::env::vars() {
        if name.starts_with("ONEACTOR_") || name.starts_with("HF_") {
            command.env_remove(name);
        }
    }
    command
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HOME", folder.join("hub"))
        .env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs the program with arguments separated by spaces; `'…'` keeps spaces inside one argument.
fn oneactor(folder: &Path, line: &str) -> Run {
    let arguments = line
        .split('\'')
        .enumerate()
        .flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        });
    Run::of(
        program(folder, arguments)
            .output()
            .expect("the program starts"),
    )
}

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

const BASE: &str =
    "generate-base --model toy -p 'a robot' --subject robot --num-images 3 --steps 4";

/// An empty folder for one test, with a folder `robot` inside: three base images and an actor.
fn folder_with_actor(name: &str) -> PathBuf {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let shared = folder("shared");
        oneactor(&shared, &format!("{BASE} -o robot")).exits_with(0);
        oneactor(&shared, "tune robot --target 1 --max-steps 3").exits_with(0);
        // The checkpoint is four times as large as all other files together, and would be copied
        // for each test.
        for ending in ["safetensors", "json"] {
            fs::remove_file(shared.join(format!("robot/tune.checkpoint.{ending}")))
                .expect("a tuning that could continue leaves its checkpoint");
        }
        shared
    });
    let folder = folder(name);
    copy(&shared.join("robot"), &folder.join("robot"));
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the target folder is writable");
    for entry in fs::read_dir(from).expect("the folder is readable") {
        let entry = entry.expect("the folder is readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

/// The names in a folder, sorted, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is readable");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry
            .expect("the folder is readable")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// A JSON file.
fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&text(path)).expect("the file is JSON")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pixels of a PNG.
fn pixels(path: &Path) -> Vec<u8> {
    image::open(path)
        .expect("the picture is readable")
        .into_rgb8()
        .into_raw()
}
