//! Ctrl-C and SIGTERM: finished work stays, and the same command continues.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use oneactor::io::tensors::TensorFile;

use crate::processes::interrupted;
use crate::{BASE, folder, folder_with_actor, json, names, oneactor, pixels, text};

#[test]
fn ctrl_c_keeps_finished_base_images_and_a_rerun_draws_the_rest() {
    let folder = folder("ctrl-c");
    let line =
        "generate-base --model toy -p robot --subject robot -o robot --num-images 30 --steps 30";
    let second = folder.join("robot/base/01.png");
    let run = interrupted(&folder, line, "-INT", || second.is_file());
    run.exits_with(130).says("stopped by Ctrl-C");
    let robot = folder.join("robot");
    assert!(!robot.join("base.json").exists() && !robot.join("grid.png").exists());
    let kept = names(&robot.join("base"));
    assert!((2..30).contains(&kept.len()), "{kept:?}");
    assert!(
        kept.iter().all(|name| name.ends_with(".png")),
        "nothing is half-written: {kept:?}"
    );
    let before = pixels(&second);

    let run = oneactor(&folder, line)
        .exits_with(0)
        .says("of 30 images are there already");
    assert!(!run.paths().contains(&"robot/base/00.png"));
    // The rerun has measured the seconds of its own pictures only.
    assert_eq!(
        json(&robot.join("base.json"))["images_drawn"],
        30 - kept.len()
    );
    assert_eq!(names(&robot.join("base")).len(), 30);
    assert_eq!(
        names(&robot),
        ["base", "base.json", "base.safetensors", "grid.png"]
    );
    assert_eq!(pixels(&second), before);
}

#[test]
fn an_interrupted_and_continued_tuning_gives_the_same_actor() {
    for method in ["oneactor", "textual-inversion", "dreambooth-lora"] {
        interrupt_a_tuning(method);
    }
}

fn interrupt_a_tuning(method: &str) {
    let folder = folder_with_actor(&format!("sigterm-{method}"));
    let line = format!("tune robot --method {method} --target 0 --max-steps 30 --overwrite");
    let line = line.as_str();
    let name = match method {
        "oneactor" => "tune",
        method => method,
    };
    let log = folder.join(format!("robot/{name}.jsonl"));
    let rows = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count()
    };
    // The log of the first tuning has three rows; the new log begins empty.
    let run = interrupted(&folder, line, "-TERM", || rows() > 5);
    run.exits_with(143).says("stopped by SIGTERM");
    assert!(
        folder
            .join(format!("robot/{name}.checkpoint.safetensors"))
            .is_file()
    );
    oneactor(&folder, line)
        .exits_with(0)
        .says("continuing after step");
    let losses = |path: &Path| -> Vec<String> {
        let row =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a row is JSON");
        text(path)
            .lines()
            .map(|line| row(line)["loss"].to_string())
            .collect()
    };
    let interrupted = losses(&log);
    assert_eq!(interrupted.len(), 30);

    oneactor(&folder, line).exits_with(0);
    assert_eq!(
        losses(&log),
        interrupted,
        "the same config and seed give the same numbers"
    );
    assert_eq!(
        json(&folder.join(format!("robot/{name}.json")))["result"]["steps"],
        30
    );
}

#[test]
fn a_tuning_that_stopped_at_max_steps_continues_to_the_same_result() {
    let folder = folder_with_actor("more-steps");
    let tune = |dir: &str, most: usize, flags: &str| {
        let line = format!("tune {dir} --target 0 --seed 7 --max-steps {most} {flags}");
        oneactor(&folder, &line).exits_with(0)
    };
    crate::copy(&folder.join("robot"), &folder.join("straight"));
    tune("straight", 30, "--overwrite").says("stopped at --max-steps 30 before converging");

    let run = tune("robot", 10, "--overwrite");
    run.says("the same command without --overwrite and with --max-steps 20 continues from here");
    let run = tune("robot", 10, "").says("is there already");
    assert!(run.paths().is_empty());
    let run = tune("robot", 30, "").says("continuing after step 10");
    assert_eq!(run.paths().len(), 3);
    let rows = |dir: &str| {
        let values = text(&folder.join(dir).join("tune.jsonl"));
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).expect("a row is JSON");
            (row["step"].clone(), row["loss"].clone())
        };
        values.lines().map(row).collect::<Vec<_>>()
    };
    assert_eq!(rows("robot"), rows("straight"));
    let result = |dir: &str| json(&folder.join(dir).join("tune.json"))["result"].clone();
    assert_eq!(result("robot")["steps"], 30);
    assert_eq!(result("robot"), result("straight"));

    // Fewer steps than were taken and other settings are still refused; --overwrite starts again.
    for flags in ["--max-steps 20", "--max-steps 40 --learning-rate 0.5"] {
        let line = format!("tune robot --target 0 --seed 7 {flags}");
        oneactor(&folder, &line)
            .exits_with(2)
            .says("was tuned with other settings");
    }
    let run = tune("robot", 31, "--overwrite");
    assert!(!run.stderr.contains("continuing after"), "{}", run.stderr);
}

#[test]
fn a_tuning_that_has_converged_leaves_no_checkpoint() {
    let folder = folder_with_actor("converged");
    let line = "tune robot --target 0 --overwrite --max-steps 10";
    oneactor(&folder, line).exits_with(0);
    let path = folder.join("robot/tune.checkpoint.safetensors");
    // The state after eleven evaluations without improvement; the next evaluation is at step 25.
    let mut checkpoint = TensorFile::read(&path).expect("a tuning that can continue leaves it");
    let convergence =
        r#"{"best":0.0,"best_step":0,"reference":0.0,"looks_without_improvement":11}"#;
    let entry = ("convergence".to_owned(), convergence.to_owned());
    checkpoint.metadata.extend([entry]);
    let bytes = checkpoint.to_bytes().expect("it can be saved");
    std::fs::write(&path, bytes).expect("the folder is writable");
    oneactor(&folder, "tune robot --target 0 --max-steps 30")
        .exits_with(0)
        .says("converged after 25 steps");
    assert!(!path.exists());
    assert!(!folder.join("robot/tune.checkpoint.json").exists());
}

#[test]
fn leftovers_of_killed_processes_are_removed_even_if_all_is_finished() {
    let folder = folder_with_actor("leftovers");
    let sample = "sample robot -p 'a robot' --steps 2 --compare -o out";
    oneactor(&folder, sample).exits_with(0);
    let parts = "sample robot -p 'a robot' --steps 2 -o parts --shard 1/1";
    oneactor(&folder, parts).exits_with(0);
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    let leave = |place: &str| {
        let path = folder.join(place).join(".00.png.123.part");
        let file = File::create(&path).expect("the folder is writable");
        file.set_modified(long_ago).expect("it can be aged");
        path
    };
    let lines: [(&str, &[&str]); 4] = [
        (sample, &["out", "out/plain"]),
        ("tune robot --target 1 --max-steps 3", &["robot"]),
        (&format!("{BASE} -o robot"), &["robot", "robot/base"]),
        ("merge parts", &["parts"]),
    ];
    for (line, places) in lines {
        let left: Vec<_> = places.iter().map(|place| leave(place)).collect();
        oneactor(&folder, line).exits_with(0);
        assert!(left.iter().all(|path| !path.exists()), "{line}");
    }
}
