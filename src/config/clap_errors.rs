//! Errors of the command line where clap's own words would mislead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::wording::nearest;

/// An error about something other than the form of the command line: without its usage.
pub(super) fn refusal(kind: ErrorKind, message: &str) -> clap::Error {
    clap::Error::raw(kind, format!("{message}\n"))
}

/// Names the nearest flag in an error about an unknown one. clap itself may name another flag, or propose to read
/// the flag as a value.
pub(super) fn explain_unknown(
    mut error: clap::Error,
    command: &mut Command,
    arguments: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let mut words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let named = words.find_map(|word| Some(command.find_subcommand(word)?.get_name().to_owned()));
    let subcommand = named.and_then(|name| command.find_subcommand_mut(name));
    let (ErrorKind::UnknownArgument, Some(subcommand)) = (error.kind(), subcommand) else {
        return error;
    };
    if subcommand.get_name() == "tune" && ["-o", "--output-dir"].contains(&typed.as_str()) {
        let message = format!(
            "tune writes into its folder DIR and has no {typed}: leave it out; to keep two actors, copy the folder"
        );
        return refusal(error.kind(), &message);
    }
    let flags = subcommand.get_arguments();
    let names = flags
        .filter_map(Arg::get_long_and_visible_aliases)
        .flatten();
    let nearest = typed
        .strip_prefix("--")
        .and_then(|typed| nearest(typed, names));
    let nearest = nearest.map(|name| format!("--{name}"));
    error.remove(ContextKind::Suggested);
    error.remove(ContextKind::SuggestedArg);
    if let Some(nearest) = nearest {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(nearest));
    }
    let usage = ContextValue::StyledStr(subcommand.render_usage());
    error.insert(ContextKind::Usage, usage);
    error
}
