//! Running the program as its users run it, and reading what it wrote.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A finished run of the program.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code; a failure shows the program's output.
    #[track_caller]
    pub fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that a message is on stderr.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "{text:?} is not in {}",
            self.stderr
        );
        self
    }

    /// Checks that the program listed no file as written.
    #[track_caller]
    pub fn writes_nothing(self) -> Self {
        assert_eq!(self.stdout, "");
        self
    }

    pub fn paths(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// The program, in `folder`, with a clean environment.
pub fn program<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(folder: &Path, arguments: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneactor"));
    command.args(arguments).current_dir(folder);
    for (name, _) in std::env::vars() {
        if name.starts_with("ONEACTOR_") || name.starts_with("HF_") {
            command.env_remove(name);
        }
    }
    command
        .env("OMP_NUM_THREADS", "1")
        // The expected results are those of a CPU, also where there is a GPU.
        .env("ONEACTOR_DEVICE", "cpu")
        .env("HF_HOME", folder.join("hub"))
        .env("HF_HUB_OFFLINE", "1");
    command
}

/// Arguments separated by spaces; `'…'` keeps spaces inside one argument.
pub fn arguments(line: &str) -> impl Iterator<Item = &str> {
    line.split('\'')
        .enumerate()
        .flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        })
}

/// An empty folder for one test of a suite.
pub fn folder(suite: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{suite}-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

pub fn copy(from: &Path, to: &Path) {
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
pub fn names(folder: &Path) -> Vec<String> {
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
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&text(path)).expect("the file is JSON")
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pixels of a PNG.
pub fn pixels(path: &Path) -> Vec<u8> {
    image::open(path)
        .expect("the picture is readable")
        .into_rgb8()
        .into_raw()
}
