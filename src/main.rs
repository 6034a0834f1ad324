//! Runs the command line, prints errors and sets the exit code.
#![deny(clippy::print_stdout, clippy::print_stderr, reason = "see `streams`")]

use anyhow::Result;

use oneactor::commands;
use oneactor::config::command_line;
use oneactor::error::kind_of;
use oneactor::libtorch::{ask_for_huge_pages, keep_no_freed_memory, leave};
use oneactor::{signals, streams};

fn main() {
    ask_for_huge_pages();
    keep_no_freed_memory();
    let outcomes = [run(), streams::check()];
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    for failure in &failures {
        streams::tell(&format!("error: {failure:#}"));
    }
    leave(
        failures
            .first()
            .map_or(0, |failure| kind_of(failure).exit_code()),
    );
}

fn run() -> Result<()> {
    signals::survive_file_size_limit()?;
    match command_line(std::env::args_os()) {
        Ok(cli) => commands::run(&cli),
        // Help and version are results.
        Err(shown) if !shown.use_stderr() => {
            streams::note(shown.print());
            Ok(())
        }
        Err(refusal) => refusal.exit(),
    }
}
