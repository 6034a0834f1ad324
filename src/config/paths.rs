//! Paths of the command line that are not UTF-8. They are refused if they would be written to JSON or to a
//! page, which can only hold UTF-8. Otherwise a path may have any name that the system allows.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use super::clap_errors::refusal;
use crate::cli::{Setting, settings_of};

/// Whether a command records its paths: as settings in pictures, in files beside them, or on a page.
fn records(command: &str) -> bool {
    let settings = settings_of(command);
    command == "gallery" || settings.iter().any(Setting::is_recorded)
}

/// Refuses paths that cannot be recorded or listed. `flags` are those of `subcommand`.
///
/// # Errors
/// Names the flag and the path.
pub(super) fn check(subcommand: &Command, flags: &ArgMatches) -> Result<(), clap::Error> {
    let given = |id: &str| flags.try_get_raw(id).ok().flatten().into_iter().flatten();
    let lists_json = given("format").any(|format| format == "json");
    // Settings pass through JSON when a batch file is read, and a report contains the command line.
    let keeps_text = ["config", "report"].map(|id| given(id).next().is_some());
    let (why, way_out) = match subcommand.get_name() {
        name if records(name) || keeps_text.contains(&true) => {
            ("settings are recorded as UTF-8 text", "rename it")
        }
        _ if lists_json => (
            "JSON cannot hold other text",
            "rename it, or leave out --format json",
        ),
        _ => return Ok(()),
    };
    let arguments = subcommand.get_arguments();
    // The path of the batch file itself is not recorded.
    let recorded = arguments.filter(|argument| argument.get_id() != "config");
    let messages = recorded.filter_map(|argument| {
        let value = given(argument.get_id().as_str()).find(|value| value.to_str().is_none())?;
        let name = name_of(argument);
        Some(format!(
            "{name}: found {value:?}, expected UTF-8, because {why}: {way_out}"
        ))
    });
    match messages.min() {
        None => Ok(()),
        Some(message) => Err(refusal(ErrorKind::InvalidUtf8, &message)),
    }
}

fn name_of(argument: &Arg) -> String {
    match (argument.get_long(), argument.get_value_names()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => argument.get_id().to_string(),
    }
}

/// Rewrites clap's error about text that is not UTF-8, so that it lists the arguments and variables in question.
pub(super) fn name_unreadable(error: clap::Error, arguments: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::InvalidUtf8 {
        return error;
    }
    let is_unreadable = |text: &OsStr| text.to_str().is_none();
    let typed = arguments.iter().filter(|text| is_unreadable(text));
    let typed = typed.map(|text| format!("{text:?}"));
    let variables = std::env::vars_os().filter(|(_, value)| is_unreadable(value));
    let variables = variables.map(|(name, _)| name.display().to_string());
    let ours = variables.filter(|name| name.starts_with("ONEACTOR_"));
    let found: Vec<String> = typed.chain(ours).collect();
    let message = format!("found {}, expected UTF-8", found.join(", "));
    refusal(ErrorKind::InvalidUtf8, &message)
}
