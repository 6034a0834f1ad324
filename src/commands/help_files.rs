//! `schema`, `completions` and `man`: files for editors, shells and `man`, made from the declarations of the flags.

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use crate::cli::{self, CompletionsFlags, ManFlags, SchemaFlags, schema};
use crate::config::model::DEFAULT_MODEL;
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::io::writable::check_folder;
use crate::io::writable::create_folder;
use crate::schedulers::SchedulerKind;
use crate::streams;

/// Prints the JSON Schema of a command's batch files.
///
/// # Errors
/// When the command takes no batch files.
pub fn schema(flags: &SchemaFlags) -> Result<()> {
    let schema = schema::schema(&flags.of).ok_or_else(|| {
        usage(format!(
            "found \"{}\", expected a command with batch files: {}",
            flags.of,
            schema::commands().join(", ")
        ))
    })?;
    streams::print(format!("{schema:#}\n"));
    Ok(())
}

/// Prints a shell's completions.
///
/// # Errors
/// Never.
pub fn completions(flags: &CompletionsFlags) -> Result<()> {
    let mut script = Vec::new();
    let mut command = with_values(cli::command());
    clap_complete::generate(flags.shell, &mut command, "oneactor", &mut script);
    streams::print(script);
    Ok(())
}

/// The command line for completions alone. Its flags `--scheduler` and `--model` offer values that a user may type,
/// although both take other values too. bash then also completes paths; zsh and fish offer these values alone.
fn with_values(command: clap::Command) -> clap::Command {
    let values = |flag: &str| match flag {
        "scheduler" => Some(SchedulerKind::ALL.map(SchedulerKind::name).to_vec()),
        "model" => Some(vec!["toy", DEFAULT_MODEL]),
        _ => None,
    };
    command.mut_subcommands(|subcommand| {
        subcommand.mut_args(|argument| match values(argument.get_id().as_str()) {
            Some(values) => argument.value_parser(PossibleValuesParser::new(values)),
            None => argument,
        })
    })
}

/// Writes a page for the program and one for each command.
///
/// # Errors
/// When a file cannot be written.
pub fn man(flags: &ManFlags) -> Result<()> {
    check_folder(&flags.dir)?;
    create_folder(&flags.dir)?;
    let mut program = cli::command();
    program.build();
    let commands = program.get_subcommands().cloned();
    let pages = commands.map(|command| {
        let name = format!("oneactor-{}", command.get_name());
        (name.clone(), command.name(name))
    });
    let pages = std::iter::once(("oneactor".to_owned(), program.clone())).chain(pages);
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        let path = flags.dir.join(format!("{name}.1"));
        write_bytes_atomically(&path, &page)?;
        streams::print(streams::path_line(&path));
    }
    Ok(())
}
