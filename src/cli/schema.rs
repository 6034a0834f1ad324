//! JSON Schema of the batch files, made from the declarations of the flags, so that an editor can check a batch
//! file as the program will.

use std::any::TypeId;

use clap::{Arg, ArgAction, CommandFactory};
use serde_json::{Map, Value, json};

use super::{Cli, Crop, Target, batch_keys};

/// The commands that take a batch file.
pub fn commands() -> Vec<String> {
    let cli = Cli::command();
    let takes_batches = cli
        .get_subcommands()
        .filter(|command| command.get_arguments().any(|arg| arg.get_id() == "config"));
    takes_batches
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// The schema (draft 2020-12) of the batch files of one of [`commands`]; `None` for any other.
pub fn schema(command: &str) -> Option<Value> {
    commands().iter().find(|name| *name == command)?;
    let cli = Cli::command();
    let flags = cli.find_subcommand(command)?;
    let mut keys = Map::new();
    // Visible aliases of a flag are not keys.
    for (key, _) in batch_keys(command) {
        let arg = flags.get_arguments().find(|arg| arg.get_id() == &key)?;
        keys.insert(key, value_of(arg));
    }
    Some(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("batch file of oneactor {command}"),
        "type": "object",
        "properties": {
            "defaults": {"$ref": "#/$defs/job", "description": "settings of every job that does not set them itself"},
            "jobs": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/job"}},
        },
        "required": ["jobs"],
        "additionalProperties": false,
        "$defs": {"job": {"type": "object", "properties": keys, "additionalProperties": false}},
    }))
}

/// The allowed values of a key; null undoes a value from the file's `defaults`.
fn value_of(arg: &Arg) -> Value {
    let (one, none) = (one_value(arg), json!({"type": "null"}));
    let mut value = if is_list(arg) {
        json!({"anyOf": [one, {"type": "array", "items": one}, none]})
    } else {
        json!({"anyOf": [one, none]})
    };
    if let Some(help) = arg.get_help() {
        value["description"] = json!(help.to_string().replace('\n', " "));
    }
    value
}

fn one_value(arg: &Arg) -> Value {
    let names: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    let parser = arg.get_value_parser();
    let is = |id: TypeId| parser.type_id() == id;
    if is(TypeId::of::<bool>()) {
        json!({"type": "boolean"})
    } else if !names.is_empty() {
        json!({"enum": names})
    } else if is(TypeId::of::<i64>()) {
        json!({"type": "integer"})
    } else if is(TypeId::of::<f64>()) {
        json!({"type": "number"})
    } else if is(TypeId::of::<Target>()) {
        json!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^(auto|-?[0-9]+)$"}]})
    } else if is(TypeId::of::<Crop>()) {
        json!({"type": "string", "pattern": CROP})
    } else {
        json!({"type": "string"})
    }
}

/// A crop: a name, or a box of four numbers.
const CROP: &str = "^(none|face|subject|[^,]*[0-9][^,]*(,[^,]*[0-9][^,]*){3})$";

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
        || arg
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1)
        || arg.get_value_delimiter().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        AblateFlags, EvaluateFlags, GenerateBaseFlags, SampleFlags, StoryFlags, SweepFlags,
        TuneFlags,
    };
    use crate::config::batch;
    use serde::de::DeserializeOwned;

    /// Whether the program's own reader takes this value for this key.
    fn reads<F: DeserializeOwned>(key: &str, value: &Value) -> bool {
        serde_json::from_value::<F>(json!({ key: value })).is_ok()
    }

    /// Whether the program's own reader takes this file as a batch of this command.
    fn reads_batch<F: DeserializeOwned>(command: &str, file: &Value) -> bool {
        batch::parse::<F>(&file.to_string(), "the file", command).is_ok()
    }

    type Reader = (fn(&str, &Value) -> bool, fn(&str, &Value) -> bool);

    fn reader(command: &str) -> Reader {
        match command {
            "generate-base" => (reads::<GenerateBaseFlags>, reads_batch::<GenerateBaseFlags>),
            "tune" => (reads::<TuneFlags>, reads_batch::<TuneFlags>),
            "sample" => (reads::<SampleFlags>, reads_batch::<SampleFlags>),
            "story" => (reads::<StoryFlags>, reads_batch::<StoryFlags>),
            "sweep" => (reads::<SweepFlags>, reads_batch::<SweepFlags>),
            "ablate" => (reads::<AblateFlags>, reads_batch::<AblateFlags>),
            "evaluate" => (reads::<EvaluateFlags>, reads_batch::<EvaluateFlags>),
            other => panic!("{other} takes batch files and has no reader in this test"),
        }
    }

    /// Whether a schema of the forms above, which is part of `root`, takes a value.
    fn takes(root: &Value, schema: &Value, value: &Value) -> bool {
        if let Some(place) = schema["$ref"].as_str() {
            let form = root.pointer(place.trim_start_matches('#'));
            return takes(root, form.expect("there is such a place"), value);
        }
        if let Some(forms) = schema["anyOf"].as_array() {
            return forms.iter().any(|form| takes(root, form, value));
        }
        if let Some(names) = schema["enum"].as_array() {
            return names.contains(value);
        }
        match schema["type"].as_str() {
            Some("null") => value.is_null(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64(),
            Some("number") => value.is_number(),
            Some("array") => value.as_array().is_some_and(|items| {
                items.len() as u64 >= schema["minItems"].as_u64().unwrap_or(0)
                    && items.iter().all(|item| takes(root, &schema["items"], item))
            }),
            Some("object") => value.as_object().is_some_and(|object| {
                let required = schema["required"].as_array().into_iter().flatten();
                let mut required = required.filter_map(Value::as_str);
                let is_known = |(key, value): (&String, &Value)| match &schema["properties"][key] {
                    Value::Null => schema["additionalProperties"] != false,
                    form => takes(root, form, value),
                };
                required.all(|key| object.contains_key(key)) && object.iter().all(is_known)
            }),
            // The values below are such that a pattern is a list of names, or digits between commas.
            Some("string") => match (value.as_str(), schema["pattern"].as_str()) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(text), Some(CROP)) => {
                    ["none", "face", "subject"].contains(&text) || text.split(',').count() == 4
                }
                (Some(text), Some(_)) => text == "auto" || text.parse::<i64>().is_ok(),
            },
            _ => panic!("a form that this test does not know: {schema}"),
        }
    }

    #[test]
    fn a_schema_takes_what_the_program_reads_and_nothing_else() {
        let mut keys = 0;
        for command in commands() {
            let schema = schema(&command).expect("it takes batch files");
            let properties = schema["$defs"]["job"]["properties"]
                .as_object()
                .expect("keys");
            let (read, _) = reader(&command);
            for (key, form) in properties {
                keys += 1;
                let mut values = vec![
                    json!(null),
                    json!(true),
                    json!(3),
                    json!(2.5),
                    json!("no such word"),
                    json!("auto"),
                    json!("1,2,3,4"),
                    json!(["no such word"]),
                    json!([2.5]),
                    json!({}),
                ];
                let names = form["anyOf"][0]["enum"].as_array();
                values.extend(names.into_iter().flatten().cloned());
                for value in values {
                    assert_eq!(
                        takes(&schema, form, &value),
                        read(key, &value),
                        "{command}: {key}: {value} by {form}"
                    );
                }
            }
        }
        assert!(keys > 150, "found only {keys} keys");
    }

    #[test]
    fn a_schema_takes_the_batch_files_that_the_program_reads_and_no_others() {
        let mut taken = 0;
        for command in commands() {
            let schema = schema(&command).expect("it takes batch files");
            let (_, read) = reader(&command);
            let mut files = vec![
                json!([]),
                json!({}),
                json!({"jobs": []}),
                json!({"jobs": [3]}),
                json!({"jobs": {}}),
                json!({"defaults": [], "jobs": [{}]}),
                json!({"jobs": [{}], "more": 1}),
            ];
            let keys = batch_keys(&command).into_iter();
            let mut names: Vec<String> = keys
                .flat_map(|(key, aliases)| aliases.into_iter().chain([key]))
                .collect();
            names.extend(["quiet", "no_such_key"].map(str::to_owned));
            for name in names {
                files.push(json!({"jobs": [{(&name): null}]}));
                files.push(json!({"defaults": {(&name): null}, "jobs": [{}]}));
            }
            for file in files {
                let is_taken = takes(&schema, &schema, &file);
                assert_eq!(is_taken, read(&command, &file), "{command}: {file}");
                taken += usize::from(is_taken);
            }
        }
        assert!(taken > 300, "took only {taken} files");
    }

    #[test]
    fn only_commands_with_batch_files_have_a_schema() {
        assert!(commands().contains(&"sample".to_owned()));
        assert_eq!(schema("doctor"), None);
        assert_eq!(schema("nothing"), None);
    }
}
