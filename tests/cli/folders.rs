//! Folders that are used more than once: by two jobs under two names, with contact sheets of other
//! pictures, with results of a tuning on other base images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use oneactor::io::tensors::TensorFile;
use serde_json::{Value, json};

use crate::processes::interrupted;
use crate::{BASE, folder, folder_with_actor, json as read_json, names, oneactor, pixels, text};

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).expect("the folder is writable");
}

#[test]
fn one_folder_under_two_names_is_refused_before_any_job_runs() {
    let folder = folder("two-names");
    fs::create_dir_all(folder.join("there")).expect("the folder is writable");
    symlink("there", folder.join("link")).expect("links are known");
    let cases = [
        ("a", "b/../a"),
        ("there", "link"),
        ("there/x", "link/./x"),
        ("c", "c/base"),
    ];
    for (first, second) in cases {
        let jobs =
            [(first, 0), (second, 7)].map(|(out, seed)| json!({"output_dir": out, "seed": seed}));
        let defaults = json!({"model": "toy", "prompt": "a robot", "subject": "robot", "num_images": 2, "steps": 1});
        write(
            &folder,
            "batch.json",
            &json!({"defaults": defaults, "jobs": jobs}),
        );
        let message = format!("job 2 of batch.json: {second} is the folder of an earlier job too");
        let dry = "generate-base --config batch.json --dry-run";
        oneactor(&folder, dry).exits_with(5).says(&message);
        let run = oneactor(&folder, "generate-base --config batch.json")
            .exits_with(5)
            .says(&message);
        assert!(
            run.stderr.find("error: job 2") < run.stderr.find("loading toy"),
            "{}",
            run.stderr
        );
        let base = read_json(&folder.join(first).join("base.json"));
        assert_eq!(
            base["parameters"]["seed"], 0,
            "{first} is that of the first job"
        );
        // Each of two processes does one of the jobs.
        let line = "generate-base --config batch.json --overwrite --shard 2/2";
        oneactor(&folder, line).exits_with(2).says(&message);
    }
}

#[test]
fn a_folder_inside_the_folder_of_another_job_is_a_different_folder() {
    let folder = folder_with_actor("inside");
    let defaults = json!({"actors": "robot", "prompt": "robot", "steps": 1, "compare": true});
    let sample = |places: [&str; 2]| {
        let jobs = places.map(|place| json!({"output_dir": place}));
        write(
            &folder,
            "batch.json",
            &json!({"defaults": defaults, "jobs": jobs}),
        );
        oneactor(&folder, "sample --config batch.json")
    };
    sample(["out", "out/plain"])
        .exits_with(5)
        .says("out/plain is the folder of an earlier job too");
    sample(["other", "other/inner"]).exits_with(0);

    symlink("b", folder.join("b-link")).expect("links are known");
    let jobs = ["p.html", "out/../p.html"].map(|page| json!({"report": page}));
    let defaults = json!({"pictures": "out", "clip_model": "toy"});
    write(
        &folder,
        "batch.json",
        &json!({"defaults": defaults, "jobs": jobs}),
    );
    oneactor(&folder, "evaluate --config batch.json")
        .exits_with(2)
        .says("--report: found out/../p.html in two jobs")
        .writes_nothing();

    let cat = |word: &str| json!({"prompt": format!("a {word}"), "subject": word, "num_images": 2, "max_steps": 1});
    let story = json!({
        "title": "Two", "model": "toy", "drawing": {"steps": 1},
        "characters": {"cat": cat("cat"), "dog": cat("dog")},
        "scenes": [{"prompt": "a [cat] and a [dog]"}],
    });
    write(&folder, "story.json", &story);
    fs::create_dir_all(folder.join("book/characters/cat")).expect("the folder is writable");
    symlink("cat", folder.join("book/characters/dog")).expect("links are known");
    oneactor(&folder, "story story.json -o book")
        .exits_with(2)
        .says("book/characters/dog and book/characters/cat are the same folder")
        .writes_nothing();
}

#[test]
fn a_folder_that_is_named_twice_is_merged_once() {
    let folder = folder_with_actor("merged-once");
    for part in ["1/2", "2/2"] {
        let line = format!("sample robot -p robot --num-images 2 --steps 1 -o out --shard {part}");
        oneactor(&folder, &line).exits_with(0);
    }
    let merged = oneactor(&folder, "merge out robot/../out").exits_with(0);
    assert_eq!(merged.paths(), ["out/manifest.jsonl", "out/grid.png"]);
}

#[test]
fn only_generate_base_writes_the_numbered_sheet_of_a_base_folder() {
    let folder = folder_with_actor("base-sheet");
    let robot = folder.join("robot");
    let numbered = fs::read(robot.join("grid.png")).expect("it is drawn");
    let sample = "sample robot -p robot --num-images 2 --steps 1 -o robot";
    let run = oneactor(&folder, sample).exits_with(0);
    assert_eq!(run.paths().last(), Some(&"robot/scenes.png"));
    oneactor(&folder, sample).exits_with(0).writes_nothing();
    oneactor(
        &folder,
        "sweep robot -p robot --eta-2 0,1 --steps 1 -o robot",
    )
    .exits_with(0);
    for part in ["1/2", "2/2"] {
        oneactor(&folder, &format!("{sample} --seed 5 --shard {part}")).exits_with(0);
    }
    oneactor(&folder, "merge robot").exits_with(0);
    oneactor(&folder, "ablate robot -p robot --steps 1 -o robot").exits_with(0);
    assert!(numbered == fs::read(robot.join("grid.png")).expect("it is there"));
}

#[test]
fn a_sheet_that_is_missing_or_was_replaced_is_made_again_without_the_model() {
    let folder = folder_with_actor("sheets");
    let base = format!("{BASE} -o robot");
    let tune = "tune robot --target 1 --max-steps 3".to_owned();
    let sample = "sample robot -p robot --num-images 2 --steps 1 --compare -o out".to_owned();
    let sweep = "sweep robot -p robot --eta-2 0,1 --steps 1 -o sweep".to_owned();
    let ablate = "ablate robot -p robot --steps 1".to_owned();
    let cases = [
        (&base, "robot/grid.png"),
        (&tune, "robot/grid.png"),
        (&sample, "out/grid.png"),
        (&sample, "out/comparison.png"),
        (&sweep, "sweep/grid.png"),
        (&ablate, "robot/ablation/grid.png"),
    ];
    for (line, sheet) in cases {
        oneactor(&folder, line).exits_with(0);
        oneactor(&folder, line).exits_with(0).writes_nothing();
        let path = folder.join(sheet);
        let whole = fs::read(&path).expect("it is drawn");
        let again = |what: &str| {
            let planned = oneactor(&folder, &format!("{line} --dry-run")).exits_with(0);
            let run = oneactor(&folder, line).exits_with(0);
            assert!(
                !run.stderr.contains("loading"),
                "{line}, {what}: {}",
                run.stderr
            );
            assert_eq!(run.paths(), [sheet], "{line}, {what}");
            assert!(
                whole == fs::read(&path).expect("it is drawn"),
                "{line}, {what}"
            );
            if !line.starts_with("tune") {
                assert_eq!(planned.paths(), [sheet], "{line}, {what}");
            }
        };
        fs::remove_file(&path).expect("it is there");
        again("missing");
        fs::copy(folder.join("robot/base/00.png"), &path).expect("the folder is writable");
        again("another picture");
    }
    // Another command has drawn in the folder: its sheet shows other pictures.
    let sheet = folder.join("out/grid.png");
    let own = fs::read(&sheet).expect("it is drawn");
    oneactor(&folder, "sweep robot -p robot --eta-2 0,1 --steps 1 -o out").exits_with(0);
    assert!(own != fs::read(&sheet).expect("it is drawn"));
    oneactor(&folder, &sample).exits_with(0);
    assert!(own == fs::read(&sheet).expect("it is drawn"));
}

#[test]
fn overwriting_a_picture_removes_the_files_that_belonged_to_it() {
    let folder = folder_with_actor("beside");
    let out = folder.join("out");
    let line = "sample robot -p robot --steps 1 -o out";
    oneactor(
        &folder,
        &format!("{line} --compare --save-latents --subject-masks on --save-masks"),
    )
    .exits_with(0);
    let all = [
        "0000-0-mask-robot.png",
        "0000-0.png",
        "0000-0.safetensors",
        "comparison.png",
        "grid.png",
        "manifest.jsonl",
        "plain",
    ];
    assert_eq!(names(&out), all);
    // The program did not write this file, so the file stays.
    fs::write(out.join("0000-0.txt"), "notes").expect("the folder is writable");
    oneactor(&folder, &format!("{line} --eta-2 0 --overwrite"))
        .exits_with(0)
        .says("comparison.png, because it showed pictures that have changed since");
    assert_eq!(
        names(&out),
        [
            "0000-0.png",
            "0000-0.txt",
            "grid.png",
            "manifest.jsonl",
            "plain"
        ]
    );
}

/// Checks that sampling is refused with a message that has all of these texts.
fn refuses(folder: &Path, line: &str, texts: &[&str]) {
    let mut run = oneactor(folder, line).exits_with(2).writes_nothing();
    for text in texts {
        run = run.says(text);
    }
}

#[test]
fn an_actor_of_other_base_images_is_refused_only_in_the_folder_of_those_images() {
    let folder = folder_with_actor("other-base");
    for method in ["textual-inversion", "dreambooth-lora"] {
        oneactor(
            &folder,
            &format!("tune robot --method {method} --target 1 --max-steps 1"),
        )
        .exits_with(0);
    }
    oneactor(&folder, "ablate robot -p robot --steps 1").exits_with(0);
    let sample = "sample robot -p robot --steps 1";
    oneactor(&folder, &format!("{sample} -o before")).exits_with(0);
    oneactor(&folder, &format!("{BASE} -o robot --seed 70 --overwrite")).exits_with(0);
    let story = json!({"title": "One", "characters": {"robot": {"actor": "robot"}}, "scenes": [{"prompt": "a [robot]"}]});
    write(&folder, "story.json", &story);
    let ways_out = [
        "was tuned on other base images than those that are in",
        "tune again with --overwrite",
        "or copy",
    ];
    for line in [
        format!("{sample} -o after"),
        format!("{sample} -o after --dry-run"),
        format!("{sample} -o after --method textual-inversion"),
        format!("{sample} -o after --method dreambooth-lora"),
        "sample robot/actor.safetensors -p robot -o after".to_owned(),
        "sample robot/ablation/without-aver -p robot -o after".to_owned(),
        "sweep robot -p robot --eta-2 0,1 --steps 1 -o after".to_owned(),
        "story story.json -o after".to_owned(),
    ] {
        refuses(&folder, &line, &ways_out);
    }
    assert!(!folder.join("after").exists());
    // The plain model does not need the actor.
    oneactor(&folder, &format!("{sample} --no-actor -o plain")).exits_with(0);
    // Moved out of the folder, the actor draws as before.
    fs::create_dir_all(folder.join("kept")).expect("the folder is writable");
    fs::copy(
        folder.join("robot/actor.safetensors"),
        folder.join("kept/actor.safetensors"),
    )
    .expect("it can be copied");
    oneactor(&folder, "sample kept -p robot --steps 1 -o moved").exits_with(0);
    let picture = |name: &str| pixels(&folder.join(name).join("0000-0.png"));
    assert_eq!(picture("moved"), picture("before"));
    // The page does not mark a base image as the target of a tuning on other base images.
    oneactor(&folder, "gallery robot -o page.html").exits_with(0);
    assert!(!text(&folder.join("page.html")).contains("the target of"));
    oneactor(&folder, "tune robot --target 1 --max-steps 3 --overwrite").exits_with(0);
    oneactor(&folder, &format!("{sample} -o after")).exits_with(0);
    oneactor(&folder, "gallery robot -o page.html").exits_with(0);
    assert!(text(&folder.join("page.html")).contains("base image 1, the target of oneactor"));
}

#[test]
fn an_actor_of_an_earlier_version_is_checked_by_the_config_beside_it() {
    let folder = folder_with_actor("older-base");
    let path = folder.join("robot/actor.safetensors");
    let mut actor = TensorFile::read(&path).expect("it is readable");
    actor.metadata.remove("base_crc32").expect("it is there");
    fs::write(&path, actor.to_bytes().expect("it can be written")).expect("the folder is writable");
    let sample = "sample robot -p robot --steps 1 -o out";
    oneactor(&folder, sample).exits_with(0);
    oneactor(&folder, &format!("{BASE} -o robot --seed 70 --overwrite")).exits_with(0);
    refuses(&folder, sample, &["was tuned on other base images"]);
    // Without tune.json, nothing says on which base images an old actor was tuned.
    for name in ["tune.json", "tune.jsonl"] {
        fs::remove_file(folder.join("robot").join(name)).expect("it is there");
    }
    oneactor(&folder, sample).exits_with(0);
    // `tune` replaces such an actor only with --overwrite.
    refuses(
        &folder,
        "tune robot --target 1 --max-steps 3",
        &[
            "exists, but robot/tune.json, the record of its settings, does not",
            "--overwrite",
        ],
    );
    oneactor(&folder, "tune robot --target 1 --max-steps 3 --overwrite").exits_with(0);
}

#[test]
fn the_actor_before_an_interrupted_tuning_is_not_taken_for_the_new_one() {
    let folder = folder_with_actor("interrupted-tuning");
    let robot = folder.join("robot");
    let tune = "tune robot --target 2 --max-steps 30 --overwrite";
    let sample = "sample robot -p robot --steps 1 -o out";
    let is_begun = || {
        let log = fs::read_to_string(robot.join("tune.jsonl")).unwrap_or_default();
        !robot.join("tune.json").exists() && !log.is_empty()
    };
    interrupted(&folder, tune, "-KILL", is_begun);
    let ways_out = [
        "robot/actor.safetensors was made by an earlier tuning",
        "run the same `oneactor tune` again",
        "or copy",
    ];
    refuses(&folder, sample, &ways_out);
    fs::remove_file(robot.join("tune.jsonl")).expect("it is there");
    interrupted(&folder, tune, "-TERM", is_begun).exits_with(143);
    refuses(&folder, sample, &ways_out);
    refuses(
        &folder,
        sample,
        &["a newer one (target 2) in robot is not finished"],
    );
    fs::create_dir_all(folder.join("kept")).expect("the folder is writable");
    fs::copy(
        robot.join("actor.safetensors"),
        folder.join("kept/actor.safetensors"),
    )
    .expect("it can be copied");
    oneactor(&folder, "sample kept -p robot --steps 1 -o kept/out").exits_with(0);
    oneactor(&folder, tune)
        .exits_with(0)
        .says("continuing after step");
    oneactor(&folder, sample).exits_with(0);
}

#[test]
fn base_images_of_two_sets_are_not_tuned_on() {
    let folder = folder_with_actor("two-sets");
    let line = "generate-base --model toy -p robot --subject robot -o robot --num-images 9 --steps 12 --seed 70 --overwrite";
    let robot = folder.join("robot");
    let is_begun =
        || !robot.join("base.json").exists() && robot.join(".base-parts/01.safetensors").exists();
    interrupted(&folder, line, "-TERM", is_begun).exits_with(143);
    let unfinished = [
        "are not complete: generate-base is running or was interrupted",
        "-o robot` again",
    ];
    for refused in [
        "tune robot --target 1 --max-steps 3 --overwrite",
        "sample robot -p robot --steps 1 -o out",
        "sample robot -p robot --steps 1 -o out --method consistory",
    ] {
        refuses(&folder, refused, &unfinished);
    }
    oneactor(&folder, line)
        .exits_with(0)
        .says("of 9 images are there already");
    oneactor(&folder, "tune robot --target 1 --max-steps 3 --overwrite").exits_with(0);
    // Without base.json nothing says how the set was drawn: it is replaced only with --overwrite.
    fs::remove_file(robot.join("base.json")).expect("it is there");
    refuses(
        &folder,
        &format!("{BASE} -o robot"),
        &["no base.json that records its settings", "--overwrite"],
    );
}

#[test]
fn rows_describe_the_pictures_in_the_folder() {
    let folder = folder_with_actor("rows");
    let out = folder.join("out");
    let sample =
        |more: &str| format!("sample robot -p 'a robot' --num-images 2 --steps 1 -o out {more}");
    for part in ["1/2", "2/2"] {
        oneactor(&folder, &sample(&format!("--eta-2 0 --shard {part}"))).exits_with(0);
    }
    // The state after a process was killed between a picture and its row, before the parts were
    // merged.
    oneactor(&folder, &sample("--overwrite")).exits_with(0);
    let rows = || -> Vec<Value> {
        let text = text(&out.join("manifest.jsonl"));
        text.lines()
            .map(|row| serde_json::from_str(row).expect("a row is JSON"))
            .collect()
    };
    let told = rows();
    assert_eq!(told[0]["eta_2"], 1.0);
    oneactor(&folder, "merge out").exits_with(0);
    let merged = rows();
    assert_eq!(
        merged[0]["eta_2"], 1.0,
        "the lists of the parts have rows of pictures that are gone"
    );
    assert_eq!(merged[1]["actor_crc32"], told[1]["actor_crc32"]);
    let mut old = merged.clone();
    old[0]["prompt"] = json!("a robot of yesterday");
    let lines: String = old.iter().map(|row| format!("{row}\n")).collect();
    fs::write(out.join("manifest.jsonl"), lines).expect("the folder is writable");
    oneactor(&folder, "gallery out -o page.html").exits_with(0);
    assert!(!text(&folder.join("page.html")).contains("yesterday"));
    let table = oneactor(
        &folder,
        "evaluate out --clip-model toy --metrics clip_t --format json",
    )
    .exits_with(0);
    assert!(!table.stdout.contains("yesterday"), "{}", table.stdout);
    let again = oneactor(&folder, &sample("")).exits_with(0);
    assert_eq!(again.paths(), ["out/manifest.jsonl"]);
    assert_eq!(rows()[0]["prompt"], "a robot");
    oneactor(&folder, &sample(""))
        .exits_with(0)
        .writes_nothing();
}
