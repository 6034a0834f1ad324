//! Several processes share the work: no two draw the same picture, and together they write the
//! files that one process would.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{folder, folder_with_actor, names, oneactor, pixels, program, text};

const JOB: &str = "sample robot -p 'a robot' -p 'a robot in the snow' -p 'a robot at the beach' --num-images 2 \
                   --steps 2 --seed 3 --compare";

fn rows(folder: &Path) -> Vec<Value> {
    text(&folder.join("manifest.jsonl"))
        .lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).expect("a row is JSON");
            row["seconds"] = Value::Null;
            row
        })
        .collect()
}

#[test]
fn parts_together_are_the_whole() {
    let folder = folder_with_actor("shards");
    oneactor(&folder, &format!("{JOB} -o one")).exits_with(0);
    for part in ["3/4", "1/4", "2/4"] {
        oneactor(&folder, &format!("{JOB} -o parts --shard {part}"))
            .exits_with(0)
            .says(&format!("part {} of the work", part.replace('/', " of ")));
    }
    // A missing part is an error, not skipped.
    oneactor(&folder, "merge parts")
        .exits_with(1)
        .says("part 4 of 4 is missing")
        .writes_nothing();
    // A killed process leaves a picture missing: only this picture is drawn again.
    fs::remove_file(folder.join("parts/0001-4.png")).expect("part 2 has drawn it");
    let again = oneactor(&folder, &format!("{JOB} -o parts --shard 2/4")).exits_with(0);
    assert_eq!(
        again.paths(),
        ["parts/0001-4.png", "parts/manifest-2-of-4.jsonl"]
    );
    oneactor(&folder, &format!("{JOB} -o parts --shard 4/4")).exits_with(0);
    let merged = oneactor(&folder, "merge parts").exits_with(0);
    assert_eq!(
        merged.paths(),
        [
            "parts/manifest.jsonl",
            "parts/grid.png",
            "parts/comparison.png"
        ]
    );
    let (one, parts) = (folder.join("one"), folder.join("parts"));
    assert_eq!(names(&parts), names(&one));
    assert_eq!(names(&parts.join("plain")), names(&one.join("plain")));
    for name in names(&one).iter().filter(|name| name.ends_with(".png")) {
        assert_eq!(pixels(&parts.join(name)), pixels(&one.join(name)), "{name}");
    }
    assert_eq!(rows(&parts), rows(&one));
    // A merge that was killed just before its end can be repeated.
    oneactor(&folder, "merge parts")
        .exits_with(0)
        .says("nothing to merge")
        .writes_nothing();
    oneactor(&folder, "merge robot")
        .exits_with(2)
        .says("has no lists of parts (manifest-1-of-2.jsonl and so on)");
    // A single process finds everything finished.
    let whole = oneactor(&folder, &format!("{JOB} -o parts")).exits_with(0);
    whole
        .says("12 of 12 images are there already")
        .writes_nothing();
}

#[test]
fn a_part_without_pictures_is_merged_and_one_that_was_killed_is_not() {
    let folder = folder_with_actor("uneven-shards");
    let job = "sample robot -p 'a robot' --num-images 2 --steps 2 -o out --shard";
    for part in ["1/3", "2/3", "3/3"] {
        oneactor(&folder, &format!("{job} {part}")).exits_with(0);
    }
    // The state after part 2 was killed while drawing its only picture: its list of pictures was
    // written before.
    let picture = folder.join("out/0001-1.png");
    let drawn = fs::read(&picture).expect("part 2 has drawn it");
    fs::remove_file(&picture).expect("the folder is writable");
    oneactor(&folder, "merge out")
        .exits_with(1)
        .says("the picture \"0001-1.png\" does not exist")
        .writes_nothing();
    fs::write(&picture, drawn).expect("the folder is writable");
    oneactor(&folder, "merge out").exits_with(0);
    assert_eq!(rows(&folder.join("out")).len(), 2);
    let seconds = |folder: &Path| -> Vec<Value> {
        let rows = text(&folder.join("manifest.jsonl"));
        let rows = rows
            .lines()
            .map(|row| serde_json::from_str::<Value>(row).expect("JSON"));
        rows.map(|row| row["seconds"].clone()).collect()
    };
    let before = seconds(&folder.join("out"));
    // All parts find their pictures finished, and keep the recorded seconds.
    for part in ["1/3", "2/3", "3/3"] {
        oneactor(&folder, &format!("{job} {part}")).exits_with(0);
    }
    oneactor(&folder, "merge out").exits_with(0);
    assert_eq!(seconds(&folder.join("out")), before);
    oneactor(&folder, "merge nowhere")
        .exits_with(2)
        .says("there is no folder nowhere");
}

#[test]
fn slurm_tells_each_task_its_part() {
    let folder = folder_with_actor("slurm");
    for task in ["5", "6", "7"] {
        let words = [
            "sample",
            "robot",
            "-p",
            "a robot",
            "--num-images",
            "3",
            "--steps",
            "2",
            "-o",
            "out",
        ];
        let output = program(&folder, words)
            .envs([
                ("SLURM_ARRAY_TASK_ID", task),
                ("SLURM_ARRAY_TASK_MIN", "5"),
                ("SLURM_ARRAY_TASK_COUNT", "3"),
            ])
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{output:?}");
        let drawn = String::from_utf8_lossy(&output.stdout).into_owned();
        let index = task.parse::<usize>().expect("a number") - 5;
        let name = format!("out/{index:04}-{index}.png");
        assert_eq!(drawn.lines().next(), Some(&*name));
        assert_eq!(
            drawn.lines().count(),
            2,
            "the picture and the part's manifest"
        );
    }
    let story = program(
        &folder,
        [
            "sweep", "robot", "-p", "a robot", "--eta-2", "0,1", "-o", "x",
        ],
    )
    .envs([
        ("SLURM_ARRAY_TASK_ID", "1"),
        ("SLURM_ARRAY_TASK_COUNT", "2"),
    ])
    .output()
    .expect("the program runs");
    let message = String::from_utf8_lossy(&story.stderr).into_owned();
    assert_eq!(story.status.code(), Some(2));
    assert!(
        message.contains("sweep cannot be divided into parts"),
        "{message}"
    );
}

#[test]
fn jobs_of_a_batch_are_shared_too() {
    let folder = folder_with_actor("shared-jobs");
    let job =
        |word: &str| json!({"prompt": format!("a {word}"), "subject": word, "output_dir": word});
    let jobs = ["cat", "dog", "owl"].map(job);
    let batch = json!({
        "defaults": {"model": "toy", "num_images": 2, "steps": 1},
        "jobs": jobs,
    });
    fs::write(folder.join("batch.json"), batch.to_string()).expect("the folder is writable");
    let base = "generate-base --config batch.json --shard";
    oneactor(&folder, &format!("{base} 2/2")).exits_with(0);
    assert!(folder.join("dog/base.json").is_file());
    assert!(!folder.join("cat").exists() && !folder.join("owl").exists());
    oneactor(&folder, &format!("{base} 1/2")).exits_with(0);
    assert!(folder.join("cat/base.json").is_file() && folder.join("owl/base.json").is_file());
    oneactor(&folder, &format!("{base} 3/2"))
        .exits_with(2)
        .says("--shard: found \"3/2\", expected i/n");
}

#[test]
fn equal_prompts_keep_their_own_rows_on_the_sheet() {
    let folder = folder_with_actor("alike-shards");
    let job =
        "sample robot -p 'a robot' -p 'a robot' -p 'a robot at night' --num-images 2 --steps 1";
    oneactor(&folder, &format!("{job} -o one")).exits_with(0);
    for part in ["1/2", "2/2"] {
        oneactor(&folder, &format!("{job} -o parts --shard {part}")).exits_with(0);
    }
    oneactor(&folder, "merge parts").exits_with(0);
    let [one, parts] = ["one", "parts"].map(|name| folder.join(name));
    assert_eq!(
        pixels(&parts.join("grid.png")),
        pixels(&one.join("grid.png"))
    );
    assert_eq!(rows(&parts), rows(&one));
}

#[test]
fn a_merge_that_was_killed_while_removing_files_continues() {
    let folder = folder_with_actor("killed-merge");
    let out = folder.join("out");
    for part in ["1/3", "2/3", "3/3"] {
        let line = format!("sample robot -p robot --num-images 3 --steps 1 -o out --shard {part}");
        oneactor(&folder, &line).exits_with(0);
    }
    let lists = ["manifest-2-of-3.jsonl", "manifest-3-of-3.jsonl"];
    let texts = lists.map(|name| text(&out.join(name)));
    oneactor(&folder, "merge out").exits_with(0);
    let whole = names(&out);
    let put_back = |texts: [&str; 2]| {
        let sums = texts.map(|text| format!("{:08x}", crc32fast::hash(text.as_bytes())));
        let merged =
            json!({"manifest-1-of-3.jsonl": "00000000", lists[0]: sums[0], lists[1]: sums[1]});
        fs::write(out.join(".merged.json"), merged.to_string()).expect("the folder is writable");
    };
    put_back([&texts[0], &texts[1]]);
    for (name, text) in lists.iter().zip(&texts) {
        fs::write(out.join(name), text).expect("the folder is writable");
    }
    oneactor(&folder, "merge out")
        .exits_with(0)
        .says("nothing to merge")
        .writes_nothing();
    assert_eq!(names(&out), whole);
    // A list that was written again after the merge is not taken as merged.
    put_back([&texts[0], "another"]);
    fs::write(out.join(lists[1]), &texts[1]).expect("the folder is writable");
    oneactor(&folder, "merge out")
        .exits_with(1)
        .says("parts 1, 2 of 3 are missing: draw them with --shard 1/3, --shard 2/3 first");
    assert!(out.join(lists[1]).is_file() && !out.join(".merged.json").exists());
}

#[test]
fn a_damaged_list_of_a_part_is_named_with_its_line() {
    let folder = folder("damaged-list");
    let out = folder.join("out");
    fs::create_dir(&out).expect("the folder is writable");
    for (name, text) in [
        ("manifest-1-of-2.jsonl", ""),
        ("manifest-2-of-2.jsonl", "<<<<<<< HEAD\n"),
    ] {
        fs::write(out.join(name), text).expect("the folder is writable");
    }
    oneactor(&folder, "merge out").exits_with(2).says(
        "out/manifest-2-of-2.jsonl, line 1: found no JSON object, expected the row of a picture",
    );
    fs::write(out.join(".merged.json"), "[]").expect("the folder is writable");
    oneactor(&folder, "merge out")
        .exits_with(2)
        .says("out/.merged.json: expected the list of merged parts");
}
