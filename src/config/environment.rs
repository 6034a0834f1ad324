//! Combines the command line with the environment: typed flags are one layer, and the variables of
//! [`cli::command`] are the next lower layer.

use std::error::Error;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

use super::clap_errors::{explain_unknown, refusal};
use super::overridden::overridden;
use super::paths;
use crate::cli::{self, Cli, Command};
use crate::wording::nearest;

/// The start of the names of this program's variables.
const PREFIX: &str = "ONEACTOR_";

/// The flags of a command line, whose first argument is the program's name, and the environment variables for
/// flags that are not typed. A variable is ignored if a typed flag replaces the setting.
///
/// # Errors
/// As clap reports them; a request for help is such an error too.
pub fn command_line(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut typed_alone = cli::typed();
    let alone = typed_alone.try_get_matches_from_mut(&arguments);
    let alone = alone.map_err(|error| {
        let error = paths::name_unreadable(error, &arguments);
        explain_unknown(error, &mut typed_alone, &arguments)
    })?;
    let typed = alone.subcommand().map(|(_, flags)| flags);
    let silent = overridden(|key| {
        let flags = typed.filter(|flags| is_typed(flags, key))?;
        Some(!is(flags, key, false))
    });
    let give_way = |argument: Arg| {
        if silent.contains(&argument.get_id().as_str()) {
            argument.env(Resettable::Reset)
        } else {
            argument
        }
    };
    let mut command = cli::command().mut_subcommands(|command| command.mut_args(give_way));
    let matches = command.try_get_matches_from_mut(&arguments);
    let matches = matches.map_err(|error| {
        let error = paths::name_unreadable(error, &arguments);
        let name = alone.subcommand_name().unwrap_or_default();
        name_variable(error, &command, name)
    })?;
    if let Some((name, flags)) = matches.subcommand()
        && let Some(subcommand) = command.find_subcommand(name)
    {
        paths::check(subcommand, flags)?;
    }
    if let Some((_, flags)) = matches.subcommand()
        && is(flags, "quiet", true)
        && is(flags, "verbose", true)
    {
        return Err(refusal(
            ErrorKind::ArgumentConflict,
            "ONEACTOR_QUIET and ONEACTOR_VERBOSE are both on, expected at most one: unset one of them",
        ));
    }
    refuse_unknown()?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let (Command::Fetch(flags), Some(typed)) = (&mut cli.command, typed) {
        let names = typed.ids().map(|id| id.as_str());
        let names = names.filter(|name| is_typed(typed, name));
        flags.typed = names.map(str::to_owned).collect();
    }
    Ok(cli)
}

/// Names the variable in an error about a value that is not typed. The typed arguments were already read
/// without an error.
fn name_variable(error: clap::Error, command: &clap::Command, subcommand: &str) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (Some(argument), Some(value)) = (
        text(ContextKind::InvalidArg),
        text(ContextKind::InvalidValue),
    ) else {
        return error;
    };
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let Some(variable) = variable_of(command, subcommand, flag) else {
        return error;
    };
    let why = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(names))) => {
            format!("expected one of {}", names.join(", "))
        }
        (None, _) => return error,
    };
    let message = format!("{variable} in the environment: found \"{value}\", {why}");
    refusal(error.kind(), &message)
}

/// The variable of a flag, such as `--steps`.
fn variable_of(command: &clap::Command, subcommand: &str, flag: &str) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    let mut arguments = command.find_subcommand(subcommand)?.get_arguments();
    let argument = arguments.find(|argument| argument.get_long() == Some(name))?;
    Some(argument.get_env()?.to_str()?.to_owned())
}

/// Adds the variable to an error that begins with a flag, if the flag was not typed and its value is from the
/// environment. `arguments` are those of the program.
pub(super) fn blame_variable(
    error: anyhow::Error,
    arguments: impl IntoIterator<Item = OsString>,
) -> anyhow::Error {
    let message = error.to_string();
    let end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    let flag = message.split(end).next().unwrap_or_default();
    let Ok(matches) = cli::typed().try_get_matches_from(arguments) else {
        return error;
    };
    let Some((subcommand, typed)) = matches.subcommand() else {
        return error;
    };
    let key = flag.trim_start_matches('-').replace('-', "_");
    let variable = variable_of(&cli::command(), subcommand, flag);
    match variable.and_then(|name| Some((std::env::var_os(&name)?, name))) {
        Some((value, name)) if !is_typed(typed, &key) => {
            let value = value.to_string_lossy();
            error.context(format!("{name}={value} in the environment"))
        }
        _ => error,
    }
}

/// Variables that this project's scripts and tests read, and the program does not.
const OF_SCRIPTS: [&str; 6] = [
    "ONEACTOR_ADVISORY_DB",
    "ONEACTOR_NEEDS_ADVISORIES",
    "ONEACTOR_PARITY",
    "ONEACTOR_PYTHON",
    "ONEACTOR_RELEASE",
    "ONEACTOR_VENV",
];

/// Refuses variables that begin with our prefix but belong to no flag, because a misspelt variable would have
/// no effect without a word.
///
/// # Errors
/// Names the variable and the nearest known variable.
fn refuse_unknown() -> Result<(), clap::Error> {
    let all = cli::command();
    let flags = all.get_subcommands().flat_map(clap::Command::get_arguments);
    let of_flags = flags.filter_map(|flag| flag.get_env()?.to_str());
    let known: Vec<&str> = of_flags.chain(OF_SCRIPTS).collect();
    let set = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let set = set.filter(|name| !is_of_a_service(name));
    let mut unknown: Vec<String> = set
        .filter(|name| name.starts_with(PREFIX) && !known.contains(&&**name))
        .collect();
    unknown.sort();
    let Some(name) = unknown.first() else {
        return Ok(());
    };
    let names = known.iter().filter_map(|known| known.strip_prefix(PREFIX));
    let way_out = match nearest(&name[PREFIX.len()..], names) {
        Some(nearest) => format!("did you mean {PREFIX}{nearest}?"),
        None => "unset it".to_owned(),
    };
    let message =
        format!("{name} is set in the environment, but no command has such a flag: {way_out}");
    Err(refusal(ErrorKind::UnknownArgument, &message))
}

/// Whether the variable is of the kind that Kubernetes sets in every container for a service whose name begins
/// with "oneactor".
fn is_of_a_service(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST") || name.split('_').any(|part| part == "PORT")
}

fn is_typed(flags: &ArgMatches, key: &str) -> bool {
    let has_it = flags.ids().any(|id| id == key);
    has_it && flags.value_source(key) == Some(ValueSource::CommandLine)
}

/// Whether `key` is a switch and has this value.
fn is(flags: &ArgMatches, key: &str, value: bool) -> bool {
    matches!(flags.try_get_one::<bool>(key), Ok(Some(found)) if *found == value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        let words = line.split(' ').map(OsString::from);
        command_line(words)
    }

    #[test]
    fn flags_that_exclude_each_other_are_declared_where_they_are_used() {
        cli::typed().debug_assert();
    }

    /// Names that begin with the prefix in the files of a folder and those below.
    fn names_in(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                names_in(&path, names);
                continue;
            }
            let text = fs::read(&path).expect("the file can be read");
            for found in String::from_utf8_lossy(&text).split(PREFIX).skip(1) {
                let end = found.find(|c: char| !c.is_ascii_uppercase() && c != '_');
                names.insert(format!("{PREFIX}{}", &found[..end.unwrap_or(found.len())]));
            }
        }
    }

    #[test]
    fn variables_of_scripts_are_those_that_scripts_and_tests_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut names = BTreeSet::new();
        for folder in ["scripts", "tests/common", ".ci"] {
            names_in(&root.join(folder), &mut names);
        }
        for argument in cli::command()
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
        {
            argument
                .get_env()
                .and_then(|name| names.take(name.to_str()?));
        }
        names.remove(PREFIX);
        let listed: BTreeSet<String> = OF_SCRIPTS.iter().map(ToString::to_string).collect();
        assert_eq!(names, listed);
    }

    #[test]
    fn two_that_exclude_each_other_are_refused_where_both_are_typed() {
        for line in [
            "oneactor tune x -q -v",
            "oneactor evaluate x --verbose --quiet",
            "oneactor gallery x -vq",
            "oneactor fetch a --file b --variant fp16",
            "oneactor fetch a --image-encoder c --file b",
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{line}: {error}");
        }
    }

    #[test]
    fn what_is_typed_of_fetch_is_known() {
        let cli = read("oneactor fetch a --vae b").expect("a good line");
        let Command::Fetch(flags) = cli.command else {
            panic!("it is another command");
        };
        assert!(flags.is_typed("vae") && flags.is_typed("models"));
        assert!(!flags.is_typed("variant") && !flags.is_typed("quiet"));
    }
}
