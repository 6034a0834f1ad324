//! Two processes in one folder: the second ends at once, and no result of the first is lost.

use std::fs;
use std::path::Path;

use oneactor::io::folder_lock::{FolderLock, Sharing};
use serde_json::json;

use crate::processes::{end, start, wait_until, while_paused};
use crate::{BASE, folder_with_actor, json as read_json, names, oneactor, text};

const LOCK: &str = ".oneactor.lock";

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Takes the lock of a folder, as another process would.
fn held(folder: &Path) -> FolderLock {
    FolderLock::take(folder, Sharing::Alone, "tune").expect("nobody works there")
}

#[test]
fn the_second_of_two_tunings_ends_at_once_and_names_the_first() {
    let folder = folder_with_actor("two-tunings");
    let robot = folder.join("robot");
    let first = start(&folder, "tune robot --target 0 --max-steps 40 --overwrite");
    let holder = format!("`oneactor tune` (process {}", first.id());
    wait_until("a step", || {
        !robot.join("tune.json").exists() && lines(&robot.join("tune.jsonl")) > 0
    });
    while_paused(&[&first], || {
        oneactor(&folder, "tune robot --target 2 --max-steps 3 --overwrite")
            .exits_with(1)
            .says("the folder robot is in use")
            .says(&holder)
            .writes_nothing();
    });
    end(first).exits_with(0);
    let tuned = read_json(&robot.join("tune.json"));
    assert_eq!(tuned["parameters"]["target"], 0);
    assert_eq!(tuned["result"]["steps"], 40);
    assert!(!names(&robot).contains(&LOCK.to_owned()));
    oneactor(&folder, "tune robot --target 2 --max-steps 3 --overwrite").exits_with(0);
}

#[test]
fn the_second_of_two_samplings_removes_no_row() {
    let folder = folder_with_actor("two-samplings");
    let out = folder.join("out");
    let line = "sample robot -p robot --num-images 12 --steps 12 -o out";
    let first = start(&folder, line);
    wait_until("a picture", || out.join("0000-0.png").is_file());
    while_paused(&[&first], || {
        oneactor(
            &folder,
            "sample robot -p robot --num-images 2 --steps 2 --seed 50 -o robot/../out",
        )
        .exits_with(1)
        .says("is in use: `oneactor sample`")
        .writes_nothing();
    });
    end(first).exits_with(0);
    assert_eq!(lines(&out.join("manifest.jsonl")), 12);
    assert_eq!(names(&out).len(), 14, "twelve pictures, sheet and manifest");
}

#[test]
fn a_killed_process_blocks_nobody() {
    let folder = folder_with_actor("killed");
    let robot = folder.join("robot");
    let before = names(&robot);
    let line = "tune robot --target 0 --max-steps 400 --overwrite";
    let mut first = start(&folder, line);
    wait_until("a step", || {
        !robot.join("tune.json").exists() && lines(&robot.join("tune.jsonl")) > 0
    });
    first.kill().expect("it runs"); // SIGKILL
    first.wait().expect("it has ended");
    oneactor(&folder, "tune robot --target 0 --max-steps 4 --overwrite").exits_with(0);
    // A tuning that stops at --max-steps keeps its checkpoint.
    let mut after = names(&robot);
    after.retain(|name| !name.starts_with("tune.checkpoint"));
    assert_eq!(after, before);
}

#[test]
fn no_command_writes_into_a_folder_that_is_in_use() {
    let folder = folder_with_actor("in-use");
    for part in ["1/2", "2/2"] {
        let line =
            format!("sample robot -p robot --num-images 2 --steps 1 -o parts --shard {part}");
        oneactor(&folder, &line).exits_with(0);
    }
    let story = json!({
        "title": "Two", "model": "toy", "drawing": {"steps": 1},
        "characters": {"cat": {"prompt": "a cat", "subject": "cat", "num_images": 2, "max_steps": 1}},
        "scenes": [{"prompt": "a [cat]"}],
    });
    fs::write(folder.join("story.json"), story.to_string()).expect("the folder is writable");
    let cases = [
        (format!("{BASE} -o robot"), "robot"),
        ("tune robot --target 1 --max-steps 3".to_owned(), "robot"),
        ("sample robot -p robot --steps 1 -o out".to_owned(), "out"),
        (
            "sample robot -p robot --steps 1 -o out --shard 1/2".to_owned(),
            "out",
        ),
        (
            "sweep robot -p robot --eta-2 0,1 --steps 1 -o sweep".to_owned(),
            "sweep",
        ),
        ("story story.json -o story".to_owned(), "story"),
        (
            "story story.json -o story".to_owned(),
            "story/characters/cat",
        ),
        (
            "ablate robot -p robot --steps 1".to_owned(),
            "robot/ablation",
        ),
        (
            "ablate robot -p robot --steps 1 -o x".to_owned(),
            "robot/ablation/without-aver",
        ),
        ("merge parts".to_owned(), "parts"),
    ];
    for (line, place) in &cases {
        let lock = held(&folder.join(place));
        let whole = format!("the folder {place} is in use: `oneactor tune` (process");
        oneactor(&folder, line)
            .exits_with(1)
            .says(&whole)
            .writes_nothing();
        // Reading is allowed, and a dry run locks nobody out.
        if !line.starts_with("merge") {
            oneactor(&folder, &format!("{line} --dry-run")).exits_with(0);
        }
        drop(lock);
    }
    assert!(
        !folder.join("out").exists()
            && !folder.join("story").exists()
            && !folder.join("x").exists()
    );
    let reading = held(&folder.join("robot"));
    oneactor(&folder, "sample robot -p robot --steps 1 -o out").exits_with(0);
    drop(reading);
    oneactor(&folder, "story story.json -o story").exits_with(0);
    assert!(!names(&folder.join("story/characters/cat")).contains(&LOCK.to_owned()));
}

#[test]
fn parts_of_a_job_work_side_by_side_and_each_is_done_by_one_process() {
    let folder = folder_with_actor("parts-at-once");
    let out = folder.join("out");
    let line = |part: &str| {
        format!("sample robot -p robot --num-images 12 --steps 8 -o out --shard {part}")
    };
    let [one, two] = ["1/2", "2/2"].map(|part| start(&folder, &line(part)));
    wait_until("both draw", || {
        out.join("0000-0.png").is_file() && out.join("0001-1.png").is_file()
    });
    let whole = "sample robot -p robot --num-images 12 --steps 8 -o out";
    let again = line("2/2");
    while_paused(&[&one, &two], || {
        for (line, what) in [
            (whole, "works in it"),
            ("merge out", "works in it"),
            (&again, "does part 2-of-2 in it"),
        ] {
            oneactor(&folder, line)
                .exits_with(1)
                .says("the folder out is in use")
                .says(what)
                .writes_nothing();
        }
    });
    end(one).exits_with(0);
    end(two).exits_with(0);
    oneactor(&folder, "merge out").exits_with(0);
    assert_eq!(lines(&out.join("manifest.jsonl")), 12);
    assert!(
        names(&out).iter().all(|name| !name.starts_with('.')),
        "{:?}",
        names(&out)
    );
}

#[test]
fn a_job_of_a_batch_whose_folder_is_in_use_fails_alone_and_leaves_no_folder() {
    let folder = folder_with_actor("batch-in-use");
    let jobs = ["a", "b"].map(|name| json!({"output_dir": name}));
    let batch =
        json!({"defaults": {"actors": "robot", "prompt": "robot", "steps": 1}, "jobs": jobs});
    fs::write(folder.join("batch.json"), batch.to_string()).expect("the folder is writable");
    let lock = held(&folder.join("b"));
    oneactor(&folder, "sample --config batch.json")
        .exits_with(5)
        .says("job 2 of batch.json: the folder b is in use");
    drop(lock);
    assert_eq!(names(&folder), ["a", "batch.json", "robot"]);
    // A job that fails later leaves no empty folder either.
    oneactor(&folder, "sample robot -p 'a cat' --steps 1 -o c/d").exits_with(2);
    assert_eq!(names(&folder), ["a", "batch.json", "robot"]);
    assert_eq!(text(&folder.join("a/manifest.jsonl")).lines().count(), 1);
}

#[test]
fn an_actor_replaced_after_the_pictures_were_planned_draws_none_of_them() {
    let folder = folder_with_actor("tuned-meanwhile");
    let jobs = [
        json!({"num_images": 12, "steps": 12, "output_dir": "a"}),
        json!({"num_images": 1, "steps": 1, "output_dir": "b"}),
    ];
    let batch = json!({"defaults": {"actors": "robot", "prompt": "robot"}, "jobs": jobs});
    fs::write(folder.join("batch.json"), batch.to_string()).expect("the folder is writable");
    let first = start(&folder, "sample --config batch.json");
    wait_until("a picture", || folder.join("a/0000-0.png").is_file());
    while_paused(&[&first], || {
        oneactor(&folder, "tune robot --target 2 --max-steps 1 --overwrite").exits_with(0);
    });
    end(first)
        .exits_with(5)
        .says("job 2 of batch.json: robot/actor.safetensors has changed since this run began");
    assert_eq!(lines(&folder.join("a/manifest.jsonl")), 12);
    assert!(!folder.join("b").exists());
}
