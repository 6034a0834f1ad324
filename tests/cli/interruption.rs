//! Ctrl-C and SIGTERM: what is finished stays, and the same command goes on.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::{BASE, Run, folder, folder_with_actor, json, names, oneactor, pixels, program, text};

fn start(folder: &Path, line: &str) -> Child {
    program(folder, line.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Sends a signal once `is_time`, and waits for the end.
fn signal_when(child: Child, signal: &str, is_time: impl Fn() -> bool) -> Run {
    let started = Instant::now();
    while !is_time() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "it was never time"
        );
        sleep(Duration::from_millis(10));
    }
    let status = std::process::Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill works here"
    );
    Run::of(child.wait_with_output().expect("the program ends"))
}

#[test]
fn ctrl_c_keeps_finished_base_images_and_a_rerun_draws_the_rest() {
    let folder = folder("ctrl-c");
    let line =
        "generate-base --model toy -p robot --subject robot -o robot --num-images 30 --steps 30";
    let second = folder.join("robot/base/01.png");
    let run = signal_when(start(&folder, line), "-INT", || second.is_file());
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
    // For the time of one, which the rerun has measured.
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
fn an_interrupted_tuning_ends_as_if_it_had_not_been() {
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
    // The actor's old log has three rows; the new one begins with none.
    let run = signal_when(start(&folder, line), "-TERM", || rows() > 5);
    run.exits_with(143).says("stopped by SIGTERM");
    assert!(
        folder
            .join(format!("robot/{name}.checkpoint.safetensors"))
            .is_file()
    );
    oneactor(&folder, line)
        .exits_with(0)
        .says("going on after step");
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
    assert!(
        !folder
            .join(format!("robot/{name}.checkpoint.safetensors"))
            .exists()
    );
}

#[test]
fn what_killed_processes_left_goes_also_where_all_is_finished() {
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
