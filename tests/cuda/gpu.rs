//! Runs the program on the simulated GPU or on the CPU, and reads the report of the simulation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::common::program::{self, Run, arguments, program};

/// The folder with the simulated `libtorch_cuda.so`, or why there is none.
fn library() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fakecuda");
    if folder.join("libtorch_cuda.so").is_file() {
        return Ok(folder);
    }
    let reason = fs::read_to_string(folder.join("missing")).unwrap_or_else(|_| {
        panic!(
            "{} has no simulated GPU: run scripts/test.sh",
            folder.display()
        )
    });
    Err(reason.trim().to_owned())
}

/// The folder of the simulation; `None` if libtorch cannot be simulated, which is printed with the
/// name of the test.
pub fn library_for(test: &str) -> Option<PathBuf> {
    library()
        .map_err(|reason| {
            // The thread of a test has its full name, unless tests run one after the other.
            let thread = std::thread::current();
            let name = thread.name().filter(|name| name.contains("::"));
            // Unlike `eprintln!`, this is shown although the test passes.
            let _ = writeln!(
                std::io::stderr(),
                "skipped {}: {reason}",
                name.unwrap_or(test)
            );
        })
        .ok()
}

/// Puts the simulated library before the one that the program was linked with.
pub fn simulate(command: &mut Command, library: &Path) {
    let mut path = OsString::from(library);
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(before);
    }
    command.env("LD_LIBRARY_PATH", path);
}

/// What the simulation has counted, see `tests/fakecuda/README.md`.
#[derive(Deserialize)]
pub struct Report {
    pub totals: BTreeMap<String, i64>,
    pub memory: Vec<BTreeMap<String, i64>>,
    pub waits: BTreeMap<String, i64>,
}

impl Report {
    pub fn read(path: &Path) -> Report {
        let text = fs::read_to_string(path).expect("the simulation wrote its report");
        serde_json::from_str(&text).expect("the report is JSON")
    }

    /// The largest number of bytes that the first GPU has held.
    pub fn peak(&self) -> i64 {
        self.memory[0]["peak_bytes"]
    }
}

/// A folder, in which the program runs on the simulated GPU.
pub struct Gpu {
    pub folder: PathBuf,
    library: PathBuf,
    variables: Vec<(&'static str, String)>,
}

const BASE: &str =
    "generate-base --model toy -p 'a robot' --subject robot --num-images 3 --steps 4";

impl Gpu {
    /// An empty folder for a test. `None` if libtorch cannot be simulated.
    pub fn new(test: &str) -> Option<Gpu> {
        let library = library_for(test)?;
        Some(Gpu {
            folder: program::folder("cuda", test),
            library,
            variables: Vec::new(),
        })
    }

    /// The same with a folder `robot`: three base images and an actor, made on the CPU.
    pub fn with_actor(test: &str) -> Option<Gpu> {
        static SHARED: OnceLock<PathBuf> = OnceLock::new();
        let gpu = Gpu::new(test)?;
        let shared = SHARED.get_or_init(|| {
            let shared = Gpu::new("shared").expect("it can be simulated");
            shared.on_cpu(&format!("{BASE} -o robot"));
            shared.on_cpu("tune robot --target 1 --max-steps 3");
            shared.folder
        });
        program::copy(&shared.join("robot"), &gpu.folder.join("robot"));
        Some(gpu)
    }

    /// The same with a variable of the simulation.
    pub fn with(&self, name: &'static str, value: impl ToString) -> Gpu {
        let mut variables = self.variables.clone();
        variables.push((name, value.to_string()));
        Gpu {
            folder: self.folder.clone(),
            library: self.library.clone(),
            variables,
        }
    }

    /// Runs the program where libtorch sees the simulated GPU; the arguments name the device.
    pub fn run(&self, line: &str) -> Run {
        let mut command = program(&self.folder, arguments(line));
        simulate(&mut command, &self.library);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Run::of(command.output().expect("the program starts"))
    }

    /// Runs the program on the first GPU, which has to succeed.
    #[track_caller]
    pub fn on_gpu(&self, line: &str) -> Run {
        self.run(&format!("{line} --device cuda")).exits_with(0)
    }

    /// Runs the program on the CPU, which has to succeed.
    #[track_caller]
    pub fn on_cpu(&self, line: &str) -> Run {
        let output = program(&self.folder, arguments(line)).output();
        Run::of(output.expect("the program starts")).exits_with(0)
    }

    /// Runs the program on the first GPU and returns what was counted.
    #[track_caller]
    pub fn counted(&self, line: &str) -> Report {
        let path = self.folder.join("report.json");
        self.with("FAKECUDA_REPORT", path.display()).on_gpu(line);
        Report::read(&path)
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}
