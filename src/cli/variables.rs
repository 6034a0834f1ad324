//! The environment variable of each flag.

use std::any::TypeId;
use std::borrow::Cow;
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::{
    BoolishValueParser, PathBufValueParser, Resettable, StringValueParser, TypedValueParser,
};
use clap::{Arg, ArgAction, CommandFactory};

use super::setting::AllowedValues;
use super::{Cli, Setting, is_path, settings_of};
use crate::io::home;
use crate::wording::number_within;

/// The command line with an environment variable for every flag. It is read by [`crate::config::command_line`].
pub fn command() -> clap::Command {
    typed().mut_subcommands(|subcommand| {
        let command = subcommand.get_name().to_owned();
        let settings = settings_of(&command);
        subcommand.mut_args(|argument| {
            let argument = at_home(argument);
            let id = argument.get_id().as_str();
            if argument.get_long().is_none() || matches!(id, "help" | "version") {
                return argument;
            }
            let in_capitals = id.to_uppercase();
            let name = if settings
                .iter()
                .any(|setting| setting.key == id && setting.of_one_command)
            {
                format!("ONEACTOR_{}_{in_capitals}", command.to_uppercase())
            } else {
                format!("ONEACTOR_{in_capitals}")
            };
            // Only typed flags exclude each other: variables are set for all commands.
            let argument = argument.conflicts_with(Resettable::Reset);
            let argument = argument.env(name).hide_env(true);
            match argument.get_action() {
                // A variable accepts 1, yes and on as well as true, like the flags that take a value.
                ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
                _ => argument,
            }
        })
    })
}

/// Pairs of flags of which at most one may be typed, by their declarations.
pub fn exclusive() -> &'static [[String; 2]] {
    static PAIRS: LazyLock<Vec<[String; 2]>> = LazyLock::new(|| {
        let command = typed();
        let mut pairs = Vec::new();
        for subcommand in command.get_subcommands() {
            for flag in subcommand.get_arguments() {
                let others = subcommand.get_arg_conflicts_with(flag).into_iter();
                pairs.extend(others.map(|other| [flag, other].map(|one| one.get_id().to_string())));
            }
        }
        pairs.sort();
        pairs.dedup();
        pairs
    });
    &PAIRS
}

/// The command line without environment variables.
pub fn typed() -> clap::Command {
    Cli::command().mut_subcommands(|subcommand| {
        let settings = settings_of(subcommand.get_name());
        subcommand.mut_args(|flag| with_plain_errors(flag, &settings))
    })
}

/// The flag with errors about its number that say what is expected, in place of the words of Rust's parsers. The range
/// is that of the flag's declaration in `settings`.
fn with_plain_errors(flag: Arg, settings: &[Setting]) -> Arg {
    let declared = settings.iter().find(|setting| flag.get_id() == setting.key);
    let values = declared.map_or(AllowedValues::Any, |setting| setting.values);
    let parser = flag.get_value_parser().type_id();
    if parser == TypeId::of::<i64>() {
        let expected = move |error: ParseIntError| {
            let range = match (values, error.kind()) {
                (AllowedValues::Whole(first, last, _), _) => format!(" from {first} to {last}"),
                (_, IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
                    format!(" from {} to {}", i64::MIN, i64::MAX)
                }
                _ => String::new(),
            };
            format!("expected a whole number{range}")
        };
        flag.value_parser(move |text: &str| text.parse::<i64>().map_err(expected))
    } else if parser == TypeId::of::<f64>() {
        let number = match values {
            AllowedValues::Number(first, last, _) => number_within(first, last),
            _ => "a number".to_owned(),
        };
        let expected = match flag.get_value_delimiter() {
            Some(_) => {
                format!(
                    "expected {number}, or several with commas between them, for instance 0,0.4,0.8"
                )
            }
            None => format!("expected {number}"),
        };
        flag.value_parser(move |text: &str| text.parse::<f64>().map_err(|_| expected.clone()))
    } else {
        flag
    }
}

/// Makes the flag replace `~/` at the start of its path. A shell does not do so in quotes and after `--flag=`.
fn at_home(flag: Arg) -> Arg {
    let parser = flag.get_value_parser().type_id();
    if !is_path(&flag) {
        flag
    } else if parser == TypeId::of::<PathBuf>() {
        flag.value_parser(
            PathBufValueParser::new().try_map(|path| match path.to_str() {
                Some(text) => home::expanded(text).map(|text| PathBuf::from(&*text)),
                None => Ok(path),
            }),
        )
    } else {
        let expanded = |text: String| home::expanded(&text).map(Cow::into_owned);
        flag.value_parser(StringValueParser::new().try_map(expanded))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The kind of an argument's value: its type, and the allowed names if there is a list of them.
    fn kind(argument: &clap::Arg) -> (String, Vec<String>) {
        let names = argument.get_possible_values();
        let names: Vec<String> = names.iter().map(|n| n.get_name().to_owned()).collect();
        let parser = argument.get_value_parser().type_id();
        if names.is_empty() || parser == TypeId::of::<bool>() {
            (format!("{parser:?}"), Vec::new())
        } else {
            ("one of".to_owned(), names)
        }
    }

    #[test]
    fn a_variable_takes_the_same_kind_of_value_in_every_command() {
        let mut known: BTreeMap<String, (String, (String, Vec<String>))> = BTreeMap::new();
        for subcommand in command().get_subcommands() {
            for argument in subcommand.get_arguments() {
                let Some(variable) = argument.get_env() else {
                    continue;
                };
                let variable = variable.to_string_lossy().into_owned();
                let (command, found) = (subcommand.get_name().to_owned(), kind(argument));
                let entry = known.entry(variable.clone());
                let (first, expected) = entry.or_insert((command.clone(), found.clone()));
                let others = |a: &[String], b: &[String]| a.iter().any(|name| !b.contains(name));
                // One command may allow more names than another.
                let is_other = expected.0 != found.0
                    || others(&expected.1, &found.1) && others(&found.1, &expected.1);
                assert!(
                    !is_other,
                    "{variable}: {expected:?} in {first}, {found:?} in {command}"
                );
            }
        }
        assert!(known.len() > 80, "found only {} variables", known.len());
        assert!(!known.contains_key("ONEACTOR_SAVE_MASKS"));
    }
}
