//! Batch files: `{"defaults": {…}, "jobs": [{…}, …]}`.

use std::fmt;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::{self, MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::cli::{self, RunFlags};
use crate::error::{Error, ErrorKind, usage};
use crate::io::given_file::open;
use crate::io::{home, json, text};
use crate::wording::nearest;

/// The settings of a job as in the file.
pub type Settings = Map<String, Value>;

/// A batch file. Its keys are known and its values have the right type; nothing else is checked yet.
#[derive(Debug)]
pub struct BatchFile {
    /// Settings of every job that does not set them itself.
    pub defaults: Settings,
    /// The jobs, at least one.
    pub jobs: Vec<Settings>,
}

/// Largest batch file, in bytes.
const LARGEST: u64 = 16 << 20;

const EXPECTED: &str = "{\"defaults\": {…}, \"jobs\": [{…}, …]}";

/// Reads the batch file of `subcommand`, whose flags are `F`.
///
/// # Errors
/// On broken JSON, an unknown or repeated key, a value of the wrong type, or no jobs. Names the file, and the
/// line or the job and key.
pub fn read<F: for<'de> Deserialize<'de>>(path: &Path, subcommand: &str) -> Result<BatchFile> {
    let text = read_text(path, "batch file")?;
    parse::<F>(&text, &format!("batch file {}", path.display()), subcommand)
}

/// Like [`read`], for the text of a file that messages call `name`.
///
/// # Errors
/// The same as [`read`].
pub fn parse<F: for<'de> Deserialize<'de>>(
    text: &str,
    name: &str,
    subcommand: &str,
) -> Result<BatchFile> {
    let root = parse_json(text, name)?;
    batch_of::<F>(root, subcommand).with_context(|| name.to_owned())
}

/// The JSON of a file; `what` says in messages what kind of file it is.
///
/// # Errors
/// When the file cannot be read, is too large, is not JSON or repeats a key.
pub(super) fn read_json(path: &Path, what: &str) -> Result<Value> {
    parse_json(
        &read_text(path, what)?,
        &format!("{what} {}", path.display()),
    )
}

/// The JSON of a text; messages call its file `name`.
///
/// # Errors
/// When the text is not JSON or repeats a key.
pub fn parse_json(text: &str, name: &str) -> Result<Value> {
    let Unique(mut root) = serde_json::from_str(text)
        .map_err(|error| usage(format!("{name}: {}", json::syntax(&error))))?;
    expand_paths(&mut root, &cli::path_keys()).with_context(|| name.to_owned())?;
    Ok(root)
}

/// Replaces `~/` at the start of each path in a file, at every depth.
fn expand_paths(value: &mut Value, keys: &[String]) -> Result<()> {
    match value {
        Value::Object(entries) => entries.iter_mut().try_for_each(|(key, value)| {
            if keys.contains(key) {
                expand_path(key, value)?;
            }
            expand_paths(value, keys)
        }),
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| expand_paths(item, keys)),
        _ => Ok(()),
    }
}

/// Replaces `~/` in a path or a list of paths.
fn expand_path(key: &str, value: &mut Value) -> Result<()> {
    match value {
        Value::String(path) if path.is_empty() => Err(usage(format!(
            "key `{key}`: found an empty path, expected a file or folder; write `.` for the current folder, or \
            leave out the key"
        ))),
        Value::String(path) => {
            let expanded = home::expanded(path);
            *path = expanded
                .map_err(|error| usage(format!("key `{key}`: {error}")))?
                .into_owned();
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| expand_path(key, item)),
        _ => Ok(()),
    }
}

fn batch_of<F: for<'de> Deserialize<'de>>(root: Value, subcommand: &str) -> Result<BatchFile> {
    let Value::Object(mut root) = root else {
        return Err(usage(format!(
            "found {}, expected {EXPECTED}",
            describe(&root)
        )));
    };
    let defaults = match root.remove("defaults") {
        None => Settings::new(),
        Some(Value::Object(defaults)) => defaults,
        Some(other) => {
            let found = describe(&other);
            return Err(usage(format!(
                "key `defaults`: found {found}, expected an object"
            )));
        }
    };
    let jobs = match root.remove("jobs") {
        Some(Value::Array(jobs)) if !jobs.is_empty() => jobs,
        Some(Value::Array(_)) => {
            return Err(usage(
                "key `jobs`: found an empty list, expected at least one job",
            ));
        }
        Some(other) => {
            let found = describe(&other);
            return Err(usage(format!(
                "key `jobs`: found {found}, expected a list of objects"
            )));
        }
        None if root.is_empty() => {
            return Err(usage(format!("key `jobs` is missing, expected {EXPECTED}")));
        }
        None => Vec::new(),
    };
    if root.contains_key("scenes") {
        return Err(usage(
            "this is a story file (it has the key `scenes`), expected a batch file: give it to `oneactor story`",
        ));
    }
    if let Some(key) = root.keys().next() {
        let known = ["defaults", "jobs"].map(|key| (key.to_owned(), Vec::new()));
        return Err(unknown_key(key, &known));
    }
    let keys = cli::batch_keys(subcommand);
    check_settings::<F>(&defaults, &keys).context("`defaults`")?;
    let mut checked = Vec::with_capacity(jobs.len());
    for (number, job) in (1..).zip(jobs) {
        let Value::Object(settings) = job else {
            let found = describe(&job);
            return Err(usage(format!(
                "job {number}: found {found}, expected an object"
            )));
        };
        check_settings::<F>(&settings, &keys).with_context(|| format!("job {number}"))?;
        checked.push(settings);
    }
    Ok(BatchFile {
        defaults,
        jobs: checked,
    })
}

/// The file as text, at most [`LARGEST`] bytes. `what` says in messages what kind of file it is.
fn read_text(path: &Path, what: &str) -> Result<String> {
    let name = format!("{what} {}", path.display());
    let mut bytes = Vec::new();
    open(path, &format!("a {what}"))?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .with_context(|| Error::new(ErrorKind::Usage, format!("reading {name}")))?;
    if bytes.len() as u64 > LARGEST {
        let limit = LARGEST >> 20;
        return Err(usage(format!(
            "{name} is too large, expected at most {limit} MiB"
        )));
    }
    text::decode(bytes).map_err(|error| usage(format!("{name}: {error}")))
}

/// Checks each key and the type of its value.
pub(crate) fn check_settings<F: for<'de> Deserialize<'de>>(
    settings: &Settings,
    keys: &[(String, Vec<String>)],
) -> Result<()> {
    for (key, value) in settings {
        if !keys.iter().any(|(known, _)| known == key) {
            return Err(unknown_key(key, keys));
        }
        check_type::<F>(key, value)?;
    }
    Ok(())
}

/// Refuses a value of the wrong type. The key is read alone, so that an error can only be about this key.
///
/// # Errors
/// With the key, the value and the expected type.
pub(super) fn check_type<F: for<'de> Deserialize<'de>>(key: &str, value: &Value) -> Result<()> {
    let alone = Settings::from_iter([(key.to_owned(), value.clone())]);
    F::deserialize(Value::Object(alone)).map_or_else(
        |error| {
            let (found, expected) = (describe(value), expected(&error));
            Err(usage(format!(
                "key `{key}`: found {found}, expected {expected}"
            )))
        },
        |_| Ok(()),
    )
}

/// The message about an unknown key, with the nearest known key.
fn unknown_key(key: &str, known: &[(String, Vec<String>)]) -> anyhow::Error {
    let of_the_run = cli::keys_of::<RunFlags>();
    if of_the_run.iter().any(|(known, _)| known == key) {
        let flag = key.replace('_', "-");
        return usage(format!(
            "key `{key}` is not a setting of a job: give --{flag} on the command line"
        ));
    }
    let spelled = key.replace('-', "_").to_lowercase();
    let aliased = known.iter().find(|(_, aliases)| aliases.contains(&spelled));
    let names = known.iter().map(|(name, _)| name.as_str());
    let aliased = aliased.map(|(name, _)| name.as_str());
    let nearest = aliased.or_else(|| nearest(&spelled, names));
    match nearest {
        Some(nearest) => usage(format!("unknown key `{key}`, did you mean `{nearest}`?")),
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
            usage(format!(
                "unknown key `{key}`, expected one of {}",
                names.join(", ")
            ))
        }
    }
}

/// Describes a value in one short line.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > 40 => {
            let start: String = text.chars().take(40).collect();
            format!("the string \"{start}…\"")
        }
        Value::String(text) => format!("the string \"{text}\""),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The type that serde expected, in the words of the help text.
fn expected(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let expected = message
        .split_once("expected ")
        .map_or(&*message, |(_, rest)| rest);
    match expected {
        "i64" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" => "a string".to_owned(),
        "string or map" => "a string".to_owned(),
        "a map" => "an object".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.ends_with("number or a list of numbers") => {
            "a number or a list of numbers".to_owned()
        }
        other if other.ends_with("string or a list of strings") => {
            "a string or a list of strings".to_owned()
        }
        other => other.replace('`', "\""),
    }
}

/// A JSON value in which no object repeats a key; plain `serde_json` would keep the last value.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> de::Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!(
                    "key `{key}` is given twice, expected once"
                )));
            }
            let Unique(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::GenerateBaseFlags;

    fn message(text: &str) -> String {
        let Unique(root) = match serde_json::from_str(text) {
            Ok(root) => root,
            Err(error) => return json::syntax(&error),
        };
        let result = batch_of::<GenerateBaseFlags>(root, "generate-base");
        format!("{:#}", result.expect_err("the batch is wrong"))
    }

    #[test]
    fn a_good_batch_is_read() -> Result<()> {
        let root: Unique = serde_json::from_str(
            r#"{"defaults": {"steps": 4, "guidance_scale": 5}, "jobs": [{"prompt": "a cat"}, {}]}"#,
        )?;
        let batch = batch_of::<GenerateBaseFlags>(root.0, "generate-base")?;
        assert_eq!(batch.defaults.len(), 2);
        assert_eq!(batch.jobs.len(), 2);
        Ok(())
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_match() {
        let cases = [
            (
                r#"{"jobs": [{"promt": "a"}]}"#,
                "job 1: unknown key `promt`, did you mean `prompt`?",
            ),
            (
                r#"{"jobs": [{}, {"num-images": 3}]}"#,
                "job 2: unknown key `num-images`, did you mean `num_images`?",
            ),
            (
                r#"{"jobs": [{"cfg_scale": 3}]}"#,
                "did you mean `guidance_scale`?",
            ),
            (
                r#"{"jbos": []}"#,
                "unknown key `jbos`, did you mean `jobs`?",
            ),
            (
                r#"{"defaults": {"quiet": true}, "jobs": [{}]}"#,
                "`defaults`: key `quiet` is not a setting of a job",
            ),
            (
                r#"{"jobs": [{"zzz": 1}]}"#,
                "unknown key `zzz`, expected one of prompt, subject",
            ),
        ];
        for (text, expected) in cases {
            let found = message(text);
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_wrong_type_names_job_key_found_and_expected() {
        let cases = [
            (
                r#"{"jobs": [{"steps": "ten"}]}"#,
                "job 1: key `steps`: found the string \"ten\", expected a whole number",
            ),
            (
                r#"{"jobs": [{"steps": 2.5}]}"#,
                "found the number 2.5, expected a whole number",
            ),
            (
                r#"{"jobs": [{"guidance_scale": [7]}]}"#,
                "found a list, expected a number",
            ),
            (
                r#"{"jobs": [{"overwrite": "yes"}]}"#,
                "expected true or false",
            ),
            (
                r#"{"jobs": [{"prompt": 7}]}"#,
                "found the number 7, expected a string",
            ),
            (r#"{"jobs": [{"output_dir": 7}]}"#, "expected a string"),
            (
                r#"{"jobs": [{"dtype": "int8"}]}"#,
                "found the string \"int8\", expected one of \"auto\", \"fp32\"",
            ),
            (
                r#"{"jobs": {}}"#,
                "key `jobs`: found an object, expected a list of objects",
            ),
            (r#"{"jobs": []}"#, "expected at least one job"),
            (
                r#"{"jobs": [3]}"#,
                "job 1: found the number 3, expected an object",
            ),
            (r#"[]"#, "found a list, expected {\"defaults\""),
            (r#"{}"#, "key `jobs` is missing"),
        ];
        for (text, expected) in cases {
            let found = message(text);
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn broken_json_names_line_and_column() {
        assert!(message("{\n  \"jobs\": [}").starts_with("line 2, column 12: "));
        assert!(message("{\"a\": 1, \"a\": 2}").contains("key `a` is given twice"));
        assert!(message("").starts_with("line 1, column 1: "));
    }
}
