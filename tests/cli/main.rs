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

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::program::{Run, arguments, copy, json, names, pixels, program, text};

/// Runs the program with arguments separated by spaces; `'…'` keeps spaces inside one argument.
fn oneactor(folder: &Path, line: &str) -> Run {
    let output = program(folder, arguments(line)).output();
    Run::of(output.expect("the program starts"))
}

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    common::program::folder("cli", name)
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
