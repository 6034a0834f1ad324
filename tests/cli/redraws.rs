//! `sample --from` with another method than the picture's, and targets in environment variables.

use std::fs;

use crate::{Run, folder_with_actor, json, oneactor, pixels, program, text};

#[test]
fn another_method_draws_the_same_scene_and_the_plain_model_too() {
    let folder = folder_with_actor("redraws");
    let line = "sample robot -p 'a robot at the beach' --seed 5 --steps 2 --subject-masks on --eta-2 0.5 -o guided";
    oneactor(&folder, line).exits_with(0);
    let plain =
        "sample --model toy --no-actor -p 'a robot at the beach' --seed 5 --steps 2 -o plain";
    oneactor(&folder, plain).exits_with(0);
    // --subject-masks, --eta-2 and the like are not typed, so the other method does not refuse
    // them.
    oneactor(&folder, "sample --from guided/0000-5.png --no-actor -o a").exits_with(0);
    assert_eq!(
        pixels(&folder.join("a/0000-5.png")),
        pixels(&folder.join("plain/0000-5.png"))
    );
    let other = "sample --from guided/0000-5.png --method consistory -o b";
    oneactor(&folder, other).exits_with(0);
    let row: serde_json::Value =
        serde_json::from_str(text(&folder.join("b/manifest.jsonl")).trim()).expect("a row");
    assert_eq!(row["method"], "consistory");
    assert_eq!(row["actors"][0], "robot/base.safetensors");
    assert!(row["eta_2"].is_null() && row["subject_masks"].is_null());
    oneactor(&folder, "sample --from b/0000-5.png --no-actor -o e").exits_with(0);
    assert_eq!(
        pixels(&folder.join("e/0000-5.png")),
        pixels(&folder.join("plain/0000-5.png"))
    );
    // From the other method back to the actor, with the actor's own defaults.
    oneactor(&folder, "sample --from b/0000-5.png --method oneactor -o c").exits_with(0);
    oneactor(
        &folder,
        "sample robot -p 'a robot at the beach' --seed 5 --steps 2 -o d",
    )
    .exits_with(0);
    assert_eq!(
        pixels(&folder.join("c/0000-5.png")),
        pixels(&folder.join("d/0000-5.png"))
    );
    // A setting that the user types is still refused.
    oneactor(&folder, &format!("{other} --eta-2 1"))
        .exits_with(2)
        .says("--eta-2 is only for --method oneactor: leave it out with --method consistory");
}

#[test]
fn the_variable_for_the_target_of_tune_does_not_reach_other_commands() {
    let folder = folder_with_actor("environment-target");
    let run = |line: &str, (name, value): (&str, &str)| {
        let mut command = program(&folder, line.split(' '));
        Run::of(
            command
                .env(name, value)
                .output()
                .expect("the program starts"),
        )
    };
    let tuned = ("ONEACTOR_TARGET", "2");
    run("tune robot --max-steps 1 --overwrite", tuned).exits_with(0);
    assert_eq!(
        json(&folder.join("robot/tune.json"))["parameters"]["target"],
        2
    );
    run("sample robot -p robot --steps 1 -o out", tuned).exits_with(0);
    run("evaluate out --model toy", tuned).exits_with(0);
    run(
        "sample robot -p robot --steps 1 -o x",
        ("ONEACTOR_SAMPLE_TARGET", "2"),
    )
    .exits_with(2)
    .says("--target is only for --method consistory and ip-adapter");
    run(
        "evaluate out --model toy",
        ("ONEACTOR_EVALUATE_TARGET", "robot/base/02.png"),
    )
    .exits_with(0);
}

#[test]
fn a_baseline_uses_the_target_of_any_tuning() {
    let folder = folder_with_actor("target-of-any");
    let draw = "sample robot --method consistory -p 'a robot' --steps 1 -o";
    let target = |out: &str| {
        oneactor(&folder, &format!("{draw} {out}")).exits_with(0);
        let row = text(&folder.join(out).join("manifest.jsonl"));
        serde_json::from_str::<serde_json::Value>(row.trim()).expect("a row")["target"].clone()
    };
    let robot = folder.join("robot");
    let tuned = text(&robot.join("tune.json"));
    fs::remove_file(robot.join("tune.json")).expect("the folder is writable");
    let other = tuned.replace("\"target\": 1", "\"target\": 2");
    fs::write(robot.join("dreambooth-lora.json"), other).expect("the folder is writable");
    assert_eq!(target("a"), 2);
    // The tuning of the paper's method has priority.
    fs::write(robot.join("tune.json"), tuned).expect("the folder is writable");
    assert_eq!(target("b"), 1);
}
