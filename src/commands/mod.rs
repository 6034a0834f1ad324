//! The subcommands, one file each: jobs in, files out. `src/run` has what they share.

mod ablate;
mod doctor;
mod evaluate;
mod fetch;
mod gallery;
mod generate_base;
mod help_files;
mod inspect;
mod merge;
mod sample;
mod story;
mod sweep;
mod tune;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Runs the subcommand of the command line.
///
/// # Errors
/// With the [`crate::error::ErrorKind`] that decides the exit code.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::GenerateBase(line) => generate_base::run(line),
        Command::Tune(line) => tune::run(line),
        Command::Sample(line) => sample::run(line),
        Command::Story(line) => story::run(line),
        Command::Ablate(line) => ablate::run(line),
        Command::Sweep(line) => sweep::run(line),
        Command::Evaluate(line) => evaluate::run(line),
        Command::Merge(flags) => merge::run(flags),
        Command::Fetch(flags) => fetch::run(flags),
        Command::Gallery(flags) => gallery::run(flags),
        Command::Doctor(flags) => doctor::run(flags),
        Command::Inspect(flags) => inspect::run(flags),
        Command::Schema(flags) => help_files::schema(flags),
        Command::Completions(flags) => help_files::completions(flags),
        Command::Man(flags) => help_files::man(flags),
    }
}
