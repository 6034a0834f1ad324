//! `schema`, `completions` and `man`: what the declarations of the flags give to editors, shells and `man`.

use anyhow::Result;

use crate::cli::{self, CompletionsFlags, ManFlags, SchemaFlags, schema};
use crate::error::usage;
use crate::io::atomic::write_bytes_atomically;
use crate::io::writable::check_folder;
use crate::io::writable::create_folder;
use crate::streams;

/// Prints the JSON Schema of a command's batch files.
///
/// # Errors
/// When the command takes none.
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
    let mut command = cli::command();
    clap_complete::generate(flags.shell, &mut command, "oneactor", &mut script);
    streams::print(script);
    Ok(())
}

/// Writes a page for the program and one for each command.
///
/// # Errors
/// When a file can not be written.
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
