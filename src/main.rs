//! Start, report, exit code.

use std::process::ExitCode;

use clap::FromArgMatches;
use oneactor::cli::{self, Cli};
use oneactor::commands;
use oneactor::error::{kind_of, printable};
use oneactor::libtorch::ask_for_huge_pages;

fn main() -> ExitCode {
    ask_for_huge_pages();
    let matches = cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(&format!("{error:#}")));
            ExitCode::from(kind_of(&error).exit_code())
        }
    }
}
