//! Sweeps, semantic interpolation and ablations.

use std::fs;

use serde_json::Value;

use crate::{folder_with_actor, json, names, oneactor, pixels, text};

/// The rows of a manifest.
fn rows(path: &std::path::Path) -> Vec<Value> {
    text(path)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

#[test]
fn two_lists_make_a_grid_of_pictures_named_by_their_values() {
    let folder = folder_with_actor("sweep");
    let line =
        "sweep robot -p 'a [b]' --semantic-scale 0,0.8 --eta-2 0,1 --steps 2 --seed 3 -o out";
    let run = oneactor(&folder, line).exits_with(0);
    let out = folder.join("out");
    let expected = [
        "grid.png",
        "manifest.jsonl",
        "semantic-scale=0.8_eta-2=0_0000-3.png",
        "semantic-scale=0.8_eta-2=1_0000-3.png",
        "semantic-scale=0_eta-2=0_0000-3.png",
        "semantic-scale=0_eta-2=1_0000-3.png",
    ];
    assert_eq!(names(&out), expected);
    assert_eq!(run.paths().last(), Some(&"out/grid.png"));
    let rows = rows(&out.join("manifest.jsonl"));
    let of = |row: &Value, key: &str| row[key].as_f64().expect("a number");
    let values: Vec<[f64; 3]> = rows
        .iter()
        .map(|row| ["semantic_scale", "eta_2", "eta_1"].map(|key| of(row, key)))
        .collect();
    // Without --eta-1, eta_1 follows eta_2.
    let expected = [
        [0.8, 0.0, 7.5],
        [0.8, 1.0, 8.5],
        [0.0, 0.0, 7.5],
        [0.0, 1.0, 8.5],
    ];
    assert_eq!(values, expected);
    // Each cell equals the picture that `sample` draws with the same values.
    let one = "sample robot -p 'a [b]' --semantic-scale 0.8 --eta-2 1 --steps 2 --seed 3 -o one";
    oneactor(&folder, one).exits_with(0);
    assert_eq!(
        pixels(&out.join("semantic-scale=0.8_eta-2=1_0000-3.png")),
        pixels(&folder.join("one/0000-3.png"))
    );

    oneactor(&folder, line)
        .exits_with(0)
        .says("4 of 4 images are there already")
        .writes_nothing();
    fs::remove_file(out.join("semantic-scale=0_eta-2=1_0000-3.png")).expect("it is there");
    let run = oneactor(&folder, line).exits_with(0);
    let expected = [
        "out/semantic-scale=0_eta-2=1_0000-3.png",
        "out/manifest.jsonl",
        "out/grid.png",
    ];
    assert_eq!(run.paths(), expected);
}

#[test]
fn one_list_has_a_row_for_each_seed_and_two_a_grid_for_each() {
    let folder = folder_with_actor("sweep-seeds");
    let line = "sweep robot -p [b] --guided-steps 1-1,1-2 --num-images 2 --steps 2";
    oneactor(&folder, &format!("{line} -o one")).exits_with(0);
    let found = names(&folder.join("one"));
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(
        found.contains(&"guided-steps=1-2_0001-1.png".to_owned()),
        "{found:?}"
    );
    let line = format!("{line} --eta-1 3,6 --dry-run");
    let run = oneactor(&folder, &line).exits_with(0);
    let end = &run.paths()[8..];
    let folder = "robot/sweep";
    let expected = ["manifest.jsonl", "grid-0.png", "grid-1.png"];
    assert_eq!(end, expected.map(|name| format!("{folder}/{name}")));
}

#[test]
fn semantic_interpolation_goes_from_the_empty_prompt_to_the_prompt() {
    let folder = folder_with_actor("interpolation");
    let line = "sweep --no-actor --model toy -p 'a robot' --semantic-interpolation 0,0.5,1 \
                --steps 2 -o out";
    oneactor(&folder, line).exits_with(0);
    let at = |g: &str| {
        let name = format!("out/semantic-interpolation={g}_0000-0.png");
        pixels(&folder.join(name))
    };
    let plain = "sample --no-actor --model toy --steps 2 -p";
    oneactor(&folder, &format!("{plain} 'a robot' -o whole")).exits_with(0);
    assert_eq!(at("1"), pixels(&folder.join("whole/0000-0.png")));
    oneactor(
        &folder,
        &format!("{plain} 'a robot' --semantic-interpolation 0 -o empty"),
    )
    .exits_with(0);
    assert_eq!(at("0"), pixels(&folder.join("empty/0000-0.png")));
    assert_ne!(at("0"), at("0.5"));
    assert_ne!(at("0.5"), at("1"));
    let picture = "out/semantic-interpolation=0.5_0000-0.png";
    oneactor(&folder, &format!("sample --from {picture} -o again")).exits_with(0);
    assert_eq!(at("0.5"), pixels(&folder.join("again/0000-0.png")));
}

#[test]
fn sweeps_that_make_no_sense_are_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("sweep-bad");
    let cases = [
        ("", "there is nothing to sweep: give one or two lists"),
        ("--eta-2 1", "there is nothing to sweep"),
        ("--eta-2 1,2,1", "--eta-2: found 1 twice"),
        ("--eta-2 1,x", "invalid value 'x' for '--eta-2"),
        (
            "--eta-2 -1,2",
            "--eta-2: found -1, expected a number from 0 to 200",
        ),
        (
            "--guided-steps 1-2,1-9 --steps 4",
            "found \"1-9\", expected the first and the last step, from 1 to 4",
        ),
        (
            "--eta-1 1,2 --eta-2 1,2 --guidance-scale 1,2",
            "expected at most two",
        ),
        (
            "--semantic-interpolation 0,1",
            "--semantic-interpolation has no effect without --no-actor",
        ),
        (
            "--no-actor --eta-2 1,2",
            "--eta-2 has no effect with --no-actor",
        ),
    ];
    for (flags, message) in cases {
        let run = oneactor(&folder, &format!("sweep robot -p [b] -o x {flags}"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
        assert!(!run.stderr.contains("loading"), "{}", run.stderr);
    }
    oneactor(&folder, "sweep robot --eta-2 1,2")
        .exits_with(2)
        .says("--prompt is missing");
    oneactor(&folder, "sample robot -p [b] --semantic-interpolation 0.5")
        .exits_with(2)
        .says("--semantic-interpolation has no effect without --no-actor");
    oneactor(
        &folder,
        "sample --no-actor --model toy -p cat -o x --average-scale 2 --eta-1 3",
    )
    .exits_with(2)
    .says("--eta-1 has no effect with --no-actor");
    fs::write(
        folder.join("batch.json"),
        r#"{"jobs": [{"actors": "robot", "prompt": "[b]", "eta_2": ["a"]}]}"#,
    )
    .expect("the folder is writable");
    oneactor(&folder, "sweep --config batch.json")
        .exits_with(2)
        .says("key `eta_2`: found a list, expected a number or a list of numbers");
    assert!(!folder.join("x").exists());
}

#[test]
fn leaving_out_a_loss_equals_a_weight_of_zero() {
    let folder = folder_with_actor("without");
    let line = "tune robot --target 1 --max-steps 3";
    oneactor(
        &folder,
        &format!("{line} --without-aux --without-aver --overwrite"),
    )
    .exits_with(0);
    let config = json(&folder.join("robot/tune.json"));
    assert_eq!(config["parameters"]["lambda_1"], 0.0);
    assert_eq!(config["parameters"]["lambda_2"], 0.0);
    let rows = rows(&folder.join("robot/tune.jsonl"));
    assert_eq!(rows[2]["loss"], rows[2]["loss_target"]);
    oneactor(&folder, &format!("{line} --lambda-1 0 --lambda-2 0"))
        .exits_with(0)
        .says("is there already");
    oneactor(&folder, &format!("{line} --without-aver --lambda-2 0.2"))
        .exits_with(2)
        .says("found --lambda-2 0.2 and --without-aver, expected only one of them")
        .writes_nothing();
    oneactor(&folder, line)
        .exits_with(2)
        .says("lambda_1: was 0.0, is now 0.5");
}

#[test]
fn an_ablation_tunes_what_is_missing_and_draws_a_row_of_four() {
    let folder = folder_with_actor("ablate");
    let line = "ablate robot -p 'a [b]' --steps 2 --seed 3";
    let planned = oneactor(&folder, &format!("{line} --dry-run")).exits_with(0);
    assert!(!folder.join("robot/ablation").exists());
    let run = oneactor(&folder, line).exits_with(0);
    assert_eq!(run.paths(), planned.paths());
    let ablation = folder.join("robot/ablation");
    let expected = [
        "full_0000-3.png",
        "grid.png",
        "manifest.jsonl",
        "plain_0000-3.png",
        "without-aux-aver",
        "without-aux-aver_0000-3.png",
        "without-aver",
        "without-aver_0000-3.png",
    ];
    assert_eq!(names(&ablation), expected);
    // All settings but the loss weights equal those of the actor in the folder.
    let full = json(&folder.join("robot/tune.json"))["parameters"].clone();
    for (name, weights) in [
        ("without-aux-aver", [0.0, 0.0]),
        ("without-aver", [0.5, 0.0]),
    ] {
        let mut expected = full.clone();
        expected["lambda_1"] = weights[0].into();
        expected["lambda_2"] = weights[1].into();
        let found = json(&ablation.join(name).join("tune.json"))["parameters"].clone();
        assert_eq!(found, expected, "{name}");
    }
    oneactor(&folder, "sample robot -p 'a [b]' --steps 2 --seed 3 -o one").exits_with(0);
    oneactor(
        &folder,
        "sample robot -p 'a [b]' --steps 2 --seed 3 --no-actor -o plain",
    )
    .exits_with(0);
    for (mine, theirs) in [("full", "one"), ("plain", "plain")] {
        assert_eq!(
            pixels(&ablation.join(format!("{mine}_0000-3.png"))),
            pixels(&folder.join(theirs).join("0000-3.png")),
        );
    }
    oneactor(&folder, line).exits_with(0).writes_nothing();
    fs::remove_file(ablation.join("without-aver/actor.safetensors")).expect("it is there");
    let run = oneactor(&folder, line).exits_with(0);
    let again = ["tune.jsonl", "actor.safetensors", "tune.json"];
    let expected = again.map(|name| format!("robot/ablation/without-aver/{name}"));
    assert_eq!(
        run.paths(),
        expected,
        "the same actor, and pictures that are there"
    );
}

#[test]
fn an_ablation_needs_a_finished_actor_with_all_losses() {
    let folder = folder_with_actor("ablate-bad");
    for (flags, message) in [
        ("", "--prompt or --prompts-file is missing"),
        ("-p cat", "the base word \"robot\" is missing"),
        ("-p [b] --no-actor", "--no-actor cannot be used with ablate"),
        ("-p [b] --target-image x.png", "expected no photo"),
        ("-p [b] --tune-batch-size 0", "--batch-size: found 0"),
    ] {
        oneactor(&folder, &format!("ablate robot {flags}"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    oneactor(&folder, "ablate nowhere -p [b]")
        .exits_with(2)
        .says("run `oneactor tune nowhere` first");
    let line = "tune robot --target 1 --max-steps 1 --without-aver --overwrite";
    oneactor(&folder, line).exits_with(0);
    oneactor(&folder, "ablate robot -p [b]")
        .exits_with(2)
        .says("the actor was tuned with lambda_2 0");
    assert!(!folder.join("robot/ablation").exists());
}

#[test]
fn an_ablation_warns_once_of_what_all_its_columns_share() {
    let folder = folder_with_actor("ablate-warning");
    let long = "and a wide ".repeat(14);
    let line = format!("ablate robot -p 'a robot in a {long} street' --steps 1");
    // Drawing only warns of a cut prompt. A dry run fails, because there the user can still change
    // the prompt.
    for (line, code) in [(format!("{line} --dry-run"), 2), (line, 0)] {
        let run = oneactor(&folder, &line).exits_with(code);
        assert_eq!(run.stderr.matches("warning: ").count(), 1, "{}", run.stderr);
    }
}
