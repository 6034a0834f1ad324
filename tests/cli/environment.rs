//! Environment variables: their priority is below that of flags.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Run, folder, folder_with_actor, names, oneactor, program, text};

fn run(folder: &Path, line: &str, variables: &[(&str, &str)]) -> Run {
    let mut command = program(folder, line.split(' '));
    command.envs(variables.iter().copied());
    Run::of(command.output().expect("the program starts"))
}

#[test]
fn a_variable_is_ignored_if_a_flag_replaces_it() {
    let folder = folder_with_actor("environment-gives-way");
    for (line, variable) in [
        ("tune robot --micro-batch 1", ("ONEACTOR_BATCH_SIZE", "4")),
        ("tune robot --batch-size 1", ("ONEACTOR_MICRO_BATCH", "4")),
        (
            "tune robot --target-image robot/base/00.png",
            ("ONEACTOR_TARGET", "2"),
        ),
        (
            "tune robot --target 2",
            ("ONEACTOR_TARGET_IMAGE", "robot/base/00.png"),
        ),
        (
            "tune robot --lambda-1 0.3",
            ("ONEACTOR_WITHOUT_AUX", "true"),
        ),
        ("tune robot -q", ("ONEACTOR_VERBOSE", "true")),
        ("tune robot -v", ("ONEACTOR_QUIET", "true")),
        (
            "tune robot --vae-tiling=false",
            ("ONEACTOR_VAE_TILE_SIZE", "64"),
        ),
        (
            "sample robot -p robot -o out --no-actor",
            ("ONEACTOR_COMPARE", "true"),
        ),
    ] {
        let line = format!("{line} --overwrite --dry-run");
        let given = run(&folder, &line, &[variable]).exits_with(0);
        assert_eq!(given.stdout, oneactor(&folder, &line).stdout, "{line}");
    }
}

#[test]
fn contradictions_within_flags_or_within_variables_are_refused() {
    let folder = folder_with_actor("environment-contradicts");
    for (line, variables, message) in [
        (
            "tune robot --micro-batch 1 --batch-size 4",
            &[][..],
            "found --micro-batch 1 and --batch-size 4",
        ),
        (
            "tune robot",
            &[("ONEACTOR_MICRO_BATCH", "1"), ("ONEACTOR_BATCH_SIZE", "4")],
            "found --micro-batch 1 and --batch-size 4",
        ),
        // A switch that is off replaces nothing.
        (
            "tune robot --without-aux=false",
            &[("ONEACTOR_LAMBDA_1", "5000")],
            "--lambda-1: found 5000",
        ),
        ("tune robot -q -v", &[], "cannot be used with"),
        (
            "tune robot",
            &[("ONEACTOR_QUIET", "1"), ("ONEACTOR_VERBOSE", "1")],
            "ONEACTOR_QUIET and ONEACTOR_VERBOSE are both on",
        ),
    ] {
        run(&folder, line, variables)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    let off = [("ONEACTOR_QUIET", "0"), ("ONEACTOR_VERBOSE", "1")];
    run(&folder, "tune robot --overwrite --dry-run", &off)
        .exits_with(0)
        .says("settings: {");
}

#[test]
fn a_wrong_value_from_the_environment_names_its_variable() {
    let folder = folder_with_actor("environment-wrong");
    for (name, value, message) in [
        (
            "ONEACTOR_MAX_STEPS",
            "0",
            "ONEACTOR_MAX_STEPS=0 in the environment: --max-steps: found 0, expected a whole number from 1",
        ),
        (
            "ONEACTOR_MAX_STEPS",
            "ten",
            "error: ONEACTOR_MAX_STEPS in the environment: found \"ten\", expected a whole number from 1 to 1000000\n",
        ),
        (
            "ONEACTOR_DTYPE",
            "int4",
            "ONEACTOR_DTYPE in the environment: found \"int4\", expected one of auto, fp32",
        ),
    ] {
        run(&folder, "tune robot", &[(name, value)])
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    let typed = run(&folder, "tune robot --max-steps 0", &[]);
    typed.exits_with(2).says("error: --max-steps: found 0");
}

#[test]
fn a_number_that_cannot_be_read_is_refused_in_plain_words() {
    let folder = folder("environment-numbers");
    for (line, message) in [
        (
            "tune robot --seed 99999999999999999999",
            "expected a whole number from -9223372036854775808 to 9223372036854775807",
        ),
        (
            "tune robot --max-steps x",
            "'--max-steps <N>': expected a whole number",
        ),
        (
            "tune robot --lambda-1 x",
            "'--lambda-1 <WEIGHT>': expected a number",
        ),
    ] {
        run(&folder, line, &[]).exits_with(2).says(message);
    }
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    let folder = folder("environment-unknown");
    for (name, way_out) in [
        ("ONEACTOR_STEP", "did you mean ONEACTOR_STEPS?"),
        ("ONEACTOR_TARGETS", "did you mean ONEACTOR_TARGET?"),
        ("ONEACTOR_XQZ", "no command has such a flag: unset it\n"),
        (
            "ONEACTOR_GUIDENCE",
            "error: ONEACTOR_GUIDENCE is set in the environment, but no command has such a flag: did you mean \
             ONEACTOR_GUIDANCE_SCALE?\n",
        ),
    ] {
        let run = run(&folder, "doctor", &[(name, "1")]).exits_with(2);
        // The form of the command line, which was right, is not explained.
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        run.says(name).says(way_out).writes_nothing();
    }
    run(&folder, "doctor --help", &[("ONEACTOR_STEP", "1")]).exits_with(0);
    // Kubernetes sets such variables for a service, in every container beside it; Docker sets them
    // for a linked container.
    let of_a_service = [
        ("ONEACTOR_SERVICE_HOST", "10.0.0.1"),
        ("ONEACTOR_SERVICE_PORT_HTTP", "80"),
        ("ONEACTOR_PORT", "tcp://10.0.0.1:80"),
        ("ONEACTOR_WEB_PORT_80_TCP_ADDR", "10.0.0.1"),
    ];
    run(&folder, "doctor", &of_a_service).exits_with(0);
}

#[test]
fn the_variables_of_the_scripts_are_known() {
    fn collect(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                collect(&path, found);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let names = text.split("ONEACTOR_").skip(1);
                let end = |rest: &str| rest.find(|c: char| !c.is_ascii_uppercase() && c != '_');
                let names = names.map(|rest| rest[..end(rest).unwrap_or(rest.len())].to_owned());
                found.extend(names.filter(|name| !name.is_empty()));
            }
        }
    }
    let mut found = BTreeSet::new();
    for place in ["scripts", ".ci"] {
        collect(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(place),
            &mut found,
        );
    }
    assert!(found.len() > 8, "{found:?}");
    let found: Vec<String> = found
        .into_iter()
        .map(|name| format!("ONEACTOR_{name}"))
        .collect();
    let set: Vec<(&str, &str)> = found.iter().map(|name| (&**name, "1")).collect();
    run(&folder("environment-scripts"), "doctor", &set).exits_with(0);
}

#[test]
fn switches_are_read_from_the_environment_like_all_flags() {
    let folder = folder_with_actor("environment-switches");
    let tune = "tune robot --overwrite --max-steps 1";
    let before = text(&folder.join("robot/tune.json"));
    for value in ["1", "yes", "on", "true"] {
        let planned = run(&folder, tune, &[("ONEACTOR_DRY_RUN", value)]).exits_with(0);
        assert!(planned.stdout.contains("robot/actor.safetensors"));
    }
    assert_eq!(text(&folder.join("robot/tune.json")), before);
    let dry = format!("{tune} --dry-run");
    let quiet = run(&folder, &dry, &[("ONEACTOR_QUIET", "1")]).exits_with(0);
    assert_eq!(quiet.stderr, "");
    run(&folder, &dry, &[("ONEACTOR_VERBOSE", "1")])
        .exits_with(0)
        .says("settings: {");
    run(&folder, &dry, &[("ONEACTOR_DRY_RUN", "perhaps")]).exits_with(0);
    run(&folder, tune, &[("ONEACTOR_DRY_RUN", "perhaps")]).exits_with(2);
    let tensors = [("ONEACTOR_TENSORS", "1")];
    let run = run(&folder, "inspect robot/base.safetensors", &tensors).exits_with(0);
    assert!(run.stdout.contains("F32 ["), "{}", run.stdout);
}

#[test]
fn a_variable_for_save_masks_belongs_to_one_command() {
    let folder = folder_with_actor("environment-masks");
    let draw = "sample robot -p robot --steps 1 -o out";
    let found = ("ONEACTOR_EVALUATE_SAVE_MASKS", "masks");
    run(&folder, draw, &[found]).exits_with(0);
    run(&folder, draw, &[("ONEACTOR_SAMPLE_SAVE_MASKS", "1")])
        .exits_with(2)
        .says("--save-masks: a single actor acts on the whole picture and has no mask");
    let measure = "evaluate out --model toy";
    run(&folder, measure, &[("ONEACTOR_SAMPLE_SAVE_MASKS", "1")]).exits_with(0);
    run(&folder, measure, &[found])
        .exits_with(2)
        .says("--save-masks has no effect without --masks sam");
}

#[test]
fn a_dry_run_of_merge_lists_its_files_and_changes_nothing() {
    let folder = folder_with_actor("merge-dry");
    let draw = "sample robot -p robot --num-images 2 --steps 1 --compare -o out --shard";
    for part in ["1/2", "2/2"] {
        oneactor(&folder, &format!("{draw} {part}")).exits_with(0);
    }
    let before = names(&folder.join("out"));
    let planned = oneactor(&folder, "merge out --dry-run --verbose")
        .exits_with(0)
        .says("out: 4 pictures from manifest-1-of-2.jsonl, manifest-2-of-2.jsonl");
    assert_eq!(names(&folder.join("out")), before);
    let merged = oneactor(&folder, "merge out").exits_with(0);
    assert_eq!(planned.stdout, merged.stdout);
    // The state after a merge that was killed before it had removed the second list.
    let list = "{\"path\": \"0000-0.png\"}\n";
    let sum = format!("{:08x}", crc32fast::hash(list.as_bytes()));
    let left = json!({"manifest-2-of-2.jsonl": sum}).to_string();
    for (name, text) in [("manifest-2-of-2.jsonl", list), (".merged.json", &left)] {
        fs::write(folder.join("out").join(name), text).expect("the folder is writable");
    }
    let before = names(&folder.join("out"));
    oneactor(&folder, "merge out --dry-run")
        .exits_with(0)
        .says("nothing to merge")
        .writes_nothing();
    assert_eq!(names(&folder.join("out")), before);
}

/// A reader of the guide may set the variables of its first block before the story; `story` has no
/// flag for one of these variables.
#[test]
fn the_wizard_of_the_guide_is_tuned_like_the_others() {
    let guide = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/GUIDE.md"));
    let between = |start: &str, end: &str| {
        let (_, rest) = guide.split_once(start).expect("it begins");
        rest.split_once(end).expect("it ends").0.to_owned()
    };
    let story: Value =
        serde_json::from_str(&between("story.json <<'END'\n", "\nEND\n")).expect("JSON");
    let rate: f64 = between("ONEACTOR_LEARNING_RATE=", " ")
        .parse()
        .expect("a number");
    let characters = story["characters"].as_object().expect("characters");
    let described: Vec<&Value> = characters
        .values()
        .filter(|character| character.get("prompt").is_some())
        .collect();
    assert!(!described.is_empty());
    for character in described {
        assert_eq!(character["learning_rate"].as_f64(), Some(rate));
    }
    let empty = folder("guide-rate");
    run(&empty, "story x.json --learning-rate 1", &[])
        .exits_with(2)
        .says("unexpected argument '--learning-rate'");
}
