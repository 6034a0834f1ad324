//! Batch files, and settings from environment variables.

use std::fs;
use std::path::Path;

use oneactor::io::blob::Blob;
use oneactor::io::toy;
use serde_json::json;

use crate::{Run, folder, folder_with_actor, json as read_json, names, oneactor, pixels, program};

fn write(folder: &Path, text: &str) {
    fs::write(folder.join("batch.json"), text).expect("the folder is writable");
}

const DEFAULTS: &str = r#""defaults": {"model": "toy", "prompt": "a robot", "subject": "robot",
    "num_images": 2, "steps": 3}"#;

#[test]
fn a_batch_does_every_job_with_one_loaded_model() {
    let folder = folder("batch");
    write(
        &folder,
        &format!(
            r#"{{{DEFAULTS}, "jobs": [{{"output_dir": "a"}}, {{"output_dir": "b", "seed": 5}}]}}"#
        ),
    );
    let run = oneactor(&folder, "generate-base --config batch.json").exits_with(0);
    assert_eq!(
        run.stderr.matches("loading toy").count(),
        1,
        "{}",
        run.stderr
    );
    assert_eq!(
        read_json(&folder.join("b/base.json"))["parameters"]["seed"],
        5
    );
    oneactor(&folder, "generate-base --config batch.json")
        .exits_with(0)
        .writes_nothing();
}

#[test]
fn flags_win_over_environment_over_job_over_defaults() {
    let folder = folder("precedence");
    write(
        &folder,
        &format!(r#"{{{DEFAULTS}, "jobs": [{{"output_dir": "a", "seed": 2}}]}}"#),
    );
    let steps = |arguments: &str, variables: &[(&str, &str)]| {
        let mut command = program(&folder, arguments.split(' '));
        command.envs(variables.iter().copied());
        Run::of(command.output().expect("the program starts")).exits_with(0);
        read_json(&folder.join("a/base.json"))["parameters"]["steps"].clone()
    };
    let line = "generate-base --config batch.json --overwrite";
    assert_eq!(steps(line, &[]), 3);
    assert_eq!(steps(line, &[("ONEACTOR_STEPS", "2")]), 2);
    assert_eq!(
        steps(&format!("{line} --steps 1"), &[("ONEACTOR_STEPS", "2")]),
        1
    );
}

#[test]
fn a_failing_job_does_not_stop_the_others() {
    let folder = folder("partial");
    write(
        &folder,
        &format!(
            r#"{{{DEFAULTS}, "jobs": [{{"output_dir": "a", "steps": 0}},
                {{"output_dir": "b", "prompt": "a cat"}}, {{"output_dir": "c"}}]}}"#
        ),
    );
    oneactor(&folder, "generate-base --config batch.json")
        .exits_with(5)
        .says("error: job 1 of batch.json: --steps: found 0")
        .says("error: job 2 of batch.json: the base word \"robot\" is missing from the prompt \"a cat\"")
        .says("error: 2 of 3 jobs failed");
    assert_eq!(names(&folder), ["batch.json", "c"]);
}

#[test]
fn a_batch_of_failures_has_the_exit_code_of_the_failure() {
    let folder = folder("all-fail");
    write(
        &folder,
        r#"{"jobs": [{"dir": "nowhere"}, {"dir": "nobody"}]}"#,
    );
    oneactor(&folder, "tune --config batch.json")
        .exits_with(2)
        .says("2 of 2 jobs failed");
}

#[test]
fn two_jobs_cannot_share_a_folder() {
    let folder = folder_with_actor("same-folder");
    write(
        &folder,
        r#"{"defaults": {"actors": "robot", "steps": 2, "output_dir": "x"},
            "jobs": [{"prompt": "[b]"}, {"prompt": "a [b]"}]}"#,
    );
    oneactor(&folder, "sample --config batch.json")
        .exits_with(5)
        .says("job 2 of batch.json: x is the folder of an earlier job too");
}

#[test]
fn a_file_that_is_not_a_batch_is_refused_with_line_or_key() {
    let folder = folder("broken");
    let cases = [
        (
            "{\n \"jobs\": [}",
            "batch file batch.json: line 2, column 11",
        ),
        ("", "line 1, column 1"),
        ("[]", "found a list, expected {\"defaults\""),
        (r#"{"jobs": []}"#, "expected at least one job"),
        (
            r#"{"jbos": [{}]}"#,
            "unknown key `jbos`, did you mean `jobs`?",
        ),
        (
            r#"{"jobs": [{"promt": "a"}]}"#,
            "job 1: unknown key `promt`, did you mean `prompt`?",
        ),
        (
            r#"{"jobs": [{"steps": "ten"}]}"#,
            "key `steps`: found the string \"ten\", expected a whole number",
        ),
        (
            r#"{"jobs": [{}, {"steps": 1, "steps": 2}]}"#,
            "key `steps` is given twice",
        ),
        (
            r#"{"defaults": {"dtype": "int4"}, "jobs": [{}]}"#,
            "`defaults`: key `dtype`: found the string \"int4\"",
        ),
        (
            r#"{"jobs": [{"quiet": true}]}"#,
            "give --quiet on the command line",
        ),
    ];
    for (text, message) in cases {
        write(&folder, text);
        oneactor(&folder, "generate-base --config batch.json")
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    fs::write(folder.join("batch.json"), b"{\"jobs\": [\xff]}").expect("the folder is writable");
    oneactor(&folder, "generate-base --config batch.json")
        .exits_with(2)
        .says("found bytes that are not UTF-8");
}

#[test]
fn the_batches_of_this_repository_are_valid() {
    let folder = folder("configs");
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (command, fewer) in [
        ("generate-base", "--steps 2"),
        ("tune", "--max-steps 2"),
        ("sample", "--steps 2"),
        ("sweep", "--steps 2"),
    ] {
        let config = configs.join(format!("toy-smoke-{command}.json"));
        let line = format!("{command} --config {} {fewer}", config.display());
        oneactor(&folder, &line).exits_with(0);
    }
    assert!(
        folder
            .join("runs/toy-smoke/robot/samples/manifest.jsonl")
            .is_file()
    );
    // The other batches need SDXL: their keys and types are checked before the missing model is
    // reported.
    let config = configs.join("generate-base.json");
    oneactor(
        &folder,
        &format!("generate-base --config {}", config.display()),
    )
    .exits_with(3)
    .says("stabilityai/stable-diffusion-xl-base-1.0");
    for command in ["tune", "sample", "sweep", "ablate", "evaluate"] {
        let config = configs.join(format!("{command}.json"));
        oneactor(&folder, &format!("{command} --config {}", config.display()))
            .exits_with(2)
            .says("runs/");
    }
}

/// Writes the toy as a folder. The program treats each such folder as a model of its own.
fn write_toy(folder: &Path) {
    for name in toy::names().filter(|name| !name.starts_with("clip/")) {
        let Some(Blob::Embedded { bytes, .. }) = toy::file(name) else {
            panic!("the toy is in the binary");
        };
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("writable");
        fs::write(path, bytes).expect("the folder is writable");
    }
}

#[test]
fn sorting_jobs_loads_each_model_once_and_changes_no_picture() {
    let folder = folder("sorted");
    write_toy(&folder.join("other"));
    let job = |(i, model): (usize, &str)| {
        let word = ["robot", "cat"][i / 2];
        json!({"model": model, "seed": 10 * i, "output_dir": format!("{i}"), "prompt": format!("a {word}"), "subject": word})
    };
    let jobs: Vec<_> = ["toy", "other", "toy", "other"]
        .into_iter()
        .enumerate()
        .map(job)
        .collect();
    let batch = json!({"defaults": {"num_images": 2, "steps": 2}, "jobs": jobs});
    write(&folder, &batch.to_string());
    let run = oneactor(&folder, "generate-base --config batch.json").exits_with(0);
    for name in ["toy", "other"] {
        let loads = run.stderr.matches(&format!("loading {name} on")).count();
        assert_eq!(loads, 1, "{}", run.stderr);
    }
    let place = |job: usize| run.stderr.find(&format!("job {job} of batch.json:"));
    assert!(place(1) < place(3) && place(3) < place(2) && place(2) < place(4));
    // Each job draws the same pictures as when it runs alone.
    for (i, word) in ["robot", "robot", "cat", "cat"].into_iter().enumerate() {
        let model = ["toy", "other"][i % 2];
        let alone = format!(
            "generate-base --model {model} -p 'a {word}' --subject {word} --num-images 2 --steps 2 --seed {} -o alone{i}",
            10 * i
        );
        oneactor(&folder, &alone).exits_with(0);
        for name in ["base/00.png", "base/01.png", "base.safetensors"] {
            let [a, b] = [format!("{i}"), format!("alone{i}")]
                .map(|out| fs::read(folder.join(out).join(name)));
            assert!(a.expect("drawn") == b.expect("drawn"), "{i}/{name}");
        }
    }
    // A missing picture is drawn again; a part of the work keeps the job numbers of the file.
    fs::remove_file(folder.join("1/base/01.png")).expect("it is drawn");
    let again = oneactor(&folder, "generate-base --config batch.json").exits_with(0);
    assert!(
        !again.stdout.contains("0/base") && again.stdout.contains("1/base/01.png"),
        "{}",
        again.stdout
    );
    let part = "generate-base --config batch.json --overwrite --shard 2/2 --dry-run";
    let part = oneactor(&folder, part).exits_with(0);
    let folders: Vec<&str> = part.paths().iter().map(|path| &path[..1]).collect();
    assert!(
        folders.contains(&"1") && folders.contains(&"3"),
        "{folders:?}"
    );
    assert!(
        !folders.contains(&"0") && !folders.contains(&"2"),
        "{folders:?}"
    );
}

#[test]
fn an_empty_path_is_refused_and_does_not_mean_the_current_folder() {
    let folder = folder_with_actor("batch-empty-path");
    for (command, key, job) in [
        (
            "sample",
            "output_dir",
            r#""actors": "robot", "prompt": "[b]""#,
        ),
        (
            "generate-base",
            "output_dir",
            r#""prompt": "a robot", "subject": "robot", "model": "toy""#,
        ),
        ("tune", "dir", r#""target": 1"#),
        (
            "sample",
            "actors",
            r#""prompt": "[b]", "output_dir": "out""#,
        ),
    ] {
        write(&folder, &format!(r#"{{"jobs": [{{{job}, "{key}": ""}}]}}"#));
        oneactor(&folder, &format!("{command} --config batch.json"))
            .exits_with(2)
            .says(&format!("key `{key}`: found an empty path"))
            .writes_nothing();
    }
    assert_eq!(names(&folder), ["batch.json", "robot"]);
}

#[test]
fn a_job_of_the_plain_model_ignores_defaults_that_are_for_actors() {
    let folder = folder_with_actor("batch-plain");
    let defaults = r#"{"prompt": "a robot", "steps": 1, "eta_2": 0, "subject_masks": "on"}"#;
    let jobs = r#"[{"actors": "robot", "output_dir": "a"}, {"no_actor": true, "model": "toy", "output_dir": "b"}]"#;
    let batch = format!("{{\"defaults\": {defaults}, \"jobs\": {jobs}}}");
    write(&folder, &batch);
    oneactor(&folder, "sample --config batch.json").exits_with(0);
    let plain = "sample -p 'a robot' --steps 1 --no-actor --model toy -o plain";
    oneactor(&folder, plain).exits_with(0);
    let picture = |place: &str| pixels(&folder.join(place).join("0000-0.png"));
    assert_eq!(picture("b"), picture("plain"));
    assert_ne!(picture("a"), picture("plain"));
    let both = r#"{"jobs": [{"no_actor": true, "model": "toy", "prompt": "a", "output_dir": "c", "eta_2": 0}]}"#;
    write(&folder, both);
    oneactor(&folder, "sample --config batch.json")
        .exits_with(2)
        .says("--eta-2 has no effect with --no-actor");
}

#[test]
fn the_error_of_an_only_job_is_told_once() {
    let folder = folder("once");
    write(
        &folder,
        &format!(r#"{{{DEFAULTS}, "jobs": [{{"output_dir": "a", "prompt": "a cat"}}]}}"#),
    );
    let run = oneactor(&folder, "generate-base --config batch.json")
        .exits_with(2)
        .says("error: job 1 of batch.json: ");
    assert_eq!(run.stderr.matches("error:").count(), 1, "{}", run.stderr);
}
