//! Start, report, exit code.

use std::process::ExitCode;

use oneactor::commands;
use oneactor::config::command_line;
use oneactor::error::{kind_of, printable};
use oneactor::libtorch::ask_for_huge_pages;

fn main() -> ExitCode {
    ask_for_huge_pages();
    let cli = command_line(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(&format!("{error:#}")));
            ExitCode::from(kind_of(&error).exit_code())
        }
    }
}
