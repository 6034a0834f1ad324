//! What a dry run says about prompts, work, memory and time, and what it refuses.

use std::fs;

use oneactor::io::tensors::TensorFile;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::common::fixture;
use crate::common::toy_files::lora;
use crate::{BASE, Run, folder, folder_with_actor, oneactor, text};

fn objects(run: &Run) -> Vec<Value> {
    let lines = run.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[track_caller]
fn of_kind(objects: &[Value], kind: &str) -> Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found
        .unwrap_or_else(|| panic!("no {kind} in {objects:?}"))
        .clone()
}

#[test]
fn a_dry_run_shows_the_tokens_of_a_prompt_and_the_amount_of_work() {
    let folder = folder("outlook");
    let run = oneactor(&folder, &format!("{BASE} -o robot --dry-run --format json")).exits_with(0);
    let planned = objects(&run);
    assert_eq!(
        planned
            .iter()
            .filter(|object| object["kind"] == "file")
            .count(),
        6
    );
    let prompt = of_kind(&planned, "prompt");
    assert_eq!(prompt["prompt"], "a robot");
    assert_eq!(
        (&prompt["limit"], &prompt["cut"]),
        (&json!(30), &Value::Null)
    );
    // The start token is 0 and "a" is 1; the other tokens are the word's.
    let tokens = prompt["tokens"][0].as_u64().expect("a number");
    let places: Vec<u64> = (2..=tokens).collect();
    assert_eq!(prompt["places"]["robot"], json!([[places], [places]]));
    let outlook = of_kind(&planned, "outlook");
    // Three pictures of four steps with two rows each.
    let (passes, rows) = (&outlook["passes"], &outlook["rows"]);
    assert_eq!(
        (passes, rows, &outlook["decodes"]),
        (&json!(12), &json!(24), &json!(3))
    );
    assert_eq!(
        (&outlook["download_bytes"], &outlook["seconds"]),
        (&json!(0), &Value::Null)
    );
    assert!(needed(&outlook) < 300_000_000, "{outlook}");

    oneactor(
        &folder,
        &format!("{BASE} -o robot --dry-run --batch-size 2"),
    )
    .exits_with(0)
    .says("prompt \"a robot\": ")
    .says("; robot at 2")
    .says("work: 8 U-Net passes (24 rows), 3 pictures decoded")
    .says("download: 0 B, every file is on this machine")
    .says("at the peak of the process (an estimate; ")
    .says("time: not known, because");
}

#[test]
fn rows_are_counted_with_those_that_guidance_adds() {
    let folder = folder_with_actor("outlook-rows");
    let line = "sample robot -p 'a robot' --steps 4 -o out --dry-run --format json";
    for (flags, passes, rows) in [
        ("--guided-steps 1-3", 4, 3 * 3 + 2),
        ("--guided-steps 1-3 --eta-2 0", 4, 4 * 2),
        ("--guided-steps 1-3 --compare", 8, 3 * 3 + 2 + 4 * 2),
        ("--no-actor --guidance-scale 1", 4, 4),
        ("--guided-steps 1-3 --guidance-interval 1-2", 4, 2 * 3 + 2),
        // Masks need one pass before the first step.
        ("--guided-steps 1-3 --subject-masks on", 5, 3 * 3 + 2 + 1),
    ] {
        let run = oneactor(&folder, &format!("{line} {flags}")).exits_with(0);
        let outlook = of_kind(&objects(&run), "outlook");
        assert_eq!(
            (&outlook["passes"], &outlook["rows"]),
            (&json!(passes), &json!(rows)),
            "{flags}"
        );
    }
    let run = oneactor(
        &folder,
        "tune robot --target 0 --max-steps 7 --overwrite --dry-run --format json",
    );
    let outlook = of_kind(&objects(&run.exits_with(0)), "outlook");
    // One of the three images is the target: K = 2.
    assert_eq!(
        (&outlook["tuning_steps"], &outlook["tuning_rows"]),
        (&json!(7), &json!(4))
    );
    let sweep = "sweep robot -p [b] --eta-2 0,1 --steps 4 --guided-steps 1-4 -o swept --dry-run --format json";
    let outlook = of_kind(&objects(&oneactor(&folder, sweep).exits_with(0)), "outlook");
    assert_eq!(outlook["rows"], json!(4 * 2 + 4 * 3));
}

#[test]
fn a_prompt_that_would_be_cut_fails_a_dry_run_which_says_what_to_do() {
    let folder = folder_with_actor("outlook-cut");
    let long = "red ".repeat(80);
    let line = format!("sample robot -p 'a robot' -p 'a robot, {long}' --steps 2 -o out");
    let run = oneactor(&folder, &format!("{line} --dry-run --format json")).exits_with(2);
    let planned = objects(&run);
    let cut = planned.iter().find(|object| object["cut"].is_string());
    let cut = cut.expect("a prompt is cut")["cut"]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(
        cut.starts_with("red") && format!("a robot, {long}").trim().ends_with(&cut),
        "{cut}"
    );
    let run = run
        .says("1 of 2 prompts would be cut")
        .says("--long-prompts")
        .says(&cut[..60]);
    assert_eq!(
        planned
            .iter()
            .filter(|object| object["kind"] == "file")
            .count(),
        4,
        "{}",
        run.stdout
    );
    assert!(!folder.join("out").exists());
    oneactor(&folder, &format!("{line} --dry-run --long-prompts"))
        .exits_with(0)
        .says(" chunks");
    // The same for one job of a batch.
    let batch = json!({
        "defaults": {"actors": "robot", "steps": 2},
        "jobs": [
            {"prompt": "a robot", "output_dir": "a"},
            {"prompt": format!("a robot, {long}"), "output_dir": "b"},
        ],
    });
    fs::write(folder.join("batch.json"), batch.to_string()).expect("the folder is writable");
    oneactor(&folder, "sample --config batch.json --dry-run")
        .exits_with(5)
        .says("error: job 2 of batch.json: 1 of 1 prompt would be cut")
        .says("error: 1 of 2 jobs failed");
}

#[test]
fn seconds_are_estimated_from_the_measurements_in_the_folder() {
    let folder = folder_with_actor("outlook-time");
    let line =
        |prompts: &str| format!("sample robot {prompts} --steps 4 --guided-steps 1-4 -o out");
    // Before the first picture, the estimate uses the seconds of the base images.
    let by_base = oneactor(
        &folder,
        &format!("{} --dry-run --format json", line("-p [b]")),
    )
    .exits_with(0);
    let outlook = of_kind(&objects(&by_base), "outlook");
    let base: Value = serde_json::from_str(&text(&folder.join("robot/base.json"))).expect("JSON");
    let each = base["seconds"].as_f64().expect("a number") / (3 * 4 * 2) as f64;
    let seconds = outlook["seconds"].as_f64().expect("a number");
    assert!((seconds - each * 12.0).abs() < 1e-9, "{outlook}");
    assert!(
        outlook["seconds_from"]
            .as_str()
            .expect("text")
            .contains("robot/base.json")
    );
    // `seconds` is the time of the images of the last run. Earlier versions did not record how many
    // images that run drew.
    let path = folder.join("robot/base.json");
    let seconds_with = |images_drawn: Value| {
        let mut base = base.clone();
        base["images_drawn"] = images_drawn;
        fs::write(&path, base.to_string()).expect("the folder is writable");
        let line = line("-p [b]") + " --dry-run --format json";
        let run = oneactor(&folder, &line).exits_with(0);
        let sampled = of_kind(&objects(&run), "outlook")["seconds"].clone();
        let line = format!("{BASE} -o robot --overwrite --dry-run --format json");
        let run = oneactor(&folder, &line).exits_with(0);
        [
            sampled,
            of_kind(&objects(&run), "outlook")["seconds"].clone(),
        ]
    };
    let [sampled, drawn] = seconds_with(json!(1)).map(|seconds| seconds.as_f64());
    assert!(sampled.is_some_and(|found| (found - 3.0 * seconds).abs() < 1e-9));
    let expected = 3.0 * base["seconds"].as_f64().expect("a number");
    assert!(drawn.is_some_and(|found| (found - expected).abs() < 1e-9));
    assert_eq!(seconds_with(Value::Null), [Value::Null, Value::Null]);

    oneactor(&folder, &line("-p [b]")).exits_with(0);
    let more = line("-p [b] -p 'a robot at the beach' -p 'a robot in the snow'");
    let run = oneactor(&folder, &format!("{more} --dry-run --format json")).exits_with(0);
    let outlook = of_kind(&objects(&run), "outlook");
    let row: Value =
        serde_json::from_str(&text(&folder.join("out/manifest.jsonl"))).expect("one row");
    let expected = 2.0 * row["seconds"].as_f64().expect("a number");
    assert!(
        (outlook["seconds"].as_f64().expect("a number") - expected).abs() < 1e-9,
        "{outlook}"
    );
    assert!(
        outlook["seconds_from"]
            .as_str()
            .expect("text")
            .contains("out/manifest.jsonl")
    );
    // If every picture is there, no estimate is printed.
    oneactor(&folder, &format!("{} --dry-run", line("-p [b]")))
        .exits_with(0)
        .says("nothing to do")
        .writes_nothing();
}

#[test]
fn a_story_and_an_ablation_have_one_estimate_for_all_their_work() {
    let folder = folder_with_actor("outlook-story");
    let story = json!({
        "title": "x",
        "model": "toy",
        "characters": {"cat": {"prompt": "a photo of a cat", "subject": "cat", "num_images": 2, "max_steps": 3},
                       "robot": {"actor": "robot"}},
        "scenes": [{"prompt": "a [cat] in the snow"}, {"prompt": "a [cat] and a [robot]"}, {"prompt": "a beach"}],
        "drawing": {"steps": 2},
    });
    fs::write(folder.join("story.json"), story.to_string()).expect("the folder is writable");
    let run = oneactor(&folder, "story story.json -o book --dry-run --format json").exits_with(0);
    let planned = objects(&run);
    let outlook = of_kind(&planned, "outlook");
    // Two base images and three scenes of two steps; a scene with two characters has one pass more,
    // for its masks.
    assert_eq!(
        (&outlook["pictures"], &outlook["passes"]),
        (&json!(5), &json!(2 * 2 + 3 * 2 + 1)),
        "{outlook}"
    );
    assert_eq!(
        (&outlook["tuning_steps"], &outlook["tuning_rows"]),
        (&json!(3), &json!(3))
    );
    let prompts = planned.iter().filter(|object| object["kind"] == "prompt");
    assert_eq!(prompts.count(), 4);
    let run = oneactor(
        &folder,
        "ablate robot -p [b] --steps 2 --dry-run --format json",
    )
    .exits_with(0);
    let outlook = of_kind(&objects(&run), "outlook");
    assert_eq!(
        (&outlook["pictures"], &outlook["tuning_steps"]),
        (&json!(4), &json!(6))
    );
}

#[test]
fn leftovers_of_runs_with_other_settings_do_not_count_as_done() {
    let folder = folder_with_actor("outlook-leftovers");
    let parts = folder.join("half/.base-parts");
    fs::create_dir_all(folder.join("half/base")).expect("the folder is writable");
    fs::create_dir_all(&parts).expect("the folder is writable");
    for path in ["half/base/00.png", "half/.base-parts/00.safetensors"] {
        fs::write(folder.join(path), "").expect("the folder is writable");
    }
    fs::write(parts.join("settings.json"), "{}").expect("the folder is writable");
    let run = oneactor(&folder, &format!("{BASE} -o half --dry-run --format json"));
    let outlook = of_kind(&objects(&run.exits_with(0)), "outlook");
    assert_eq!(outlook["pictures"], json!(3));

    let settings = &crate::json(&folder.join("robot/tune.json"))["parameters"];
    let robot = folder.join("robot");
    fs::write(robot.join("tune.checkpoint.safetensors"), "").expect("the folder is writable");
    let left = |target: usize, max_steps: usize| {
        let mut settings = settings.clone();
        (settings["target"], settings["max_steps"]) = (json!(target), json!(max_steps));
        fs::write(robot.join("tune.checkpoint.json"), settings.to_string())
            .expect("the folder is writable");
        let line = "tune robot --target 1 --max-steps 7 --overwrite --dry-run --format json";
        let outlook = of_kind(&objects(&oneactor(&folder, line).exits_with(0)), "outlook");
        outlook["tuning_steps"].clone()
    };
    assert_eq!(left(1, 3), 7, "a finished tuning is done again");
    fs::remove_file(robot.join("tune.json")).expect("it was written");
    // The log has three rows, so three steps are done.
    assert_eq!(left(0, 7), 7);
    assert_eq!(left(1, 8), 7);
    assert_eq!(left(1, 3), 4);
    assert_eq!(left(1, 7), 4);
}

#[test]
fn a_story_that_lacks_only_its_page_needs_no_model() {
    let folder = folder_with_actor("outlook-page");
    let story = json!({
        "title": "x",
        "model": "toy",
        "characters": {"robot": {"actor": "robot"}},
        "scenes": [{"prompt": "a [robot] in the snow"}],
        "drawing": {"steps": 2},
    });
    fs::write(folder.join("story.json"), story.to_string()).expect("the folder is writable");
    oneactor(&folder, "story story.json -o book").exits_with(0);
    fs::remove_file(folder.join("book/index.html")).expect("it was written");
    let run = oneactor(&folder, "story story.json -o book --dry-run").exits_with(0);
    assert_eq!(run.paths(), ["book/index.html"]);
    for told in ["work:", "download:", "memory:", "time:"] {
        assert!(!run.stderr.contains(told), "{}", run.stderr);
    }
}

fn memory(folder: &std::path::Path, flags: &str) -> u64 {
    let line = format!(
        "generate-base -p 'a robot' --subject robot --num-images 2 --steps 2 -o memory -W 64 -H 64 {flags} \
         --dry-run --format json"
    );
    needed(&of_kind(
        &objects(&oneactor(folder, &line).exits_with(0)),
        "outlook",
    ))
}

/// Bytes needed besides those of the program, which vary a little from run to run.
fn needed(outlook: &Value) -> u64 {
    let bytes = |key: &str| outlook[key].as_u64().expect("a number");
    bytes("memory_bytes") - bytes("program_bytes")
}

#[test]
fn a_lora_makes_a_copy_of_the_weights_that_it_reaches() {
    let folder = folder("outlook-lora");
    // The precision of the files.
    let model = "--model toy --dtype fp16";
    let plain = memory(&folder, model);
    let added = |name: &str| memory(&folder, &format!("{model} --lora {name}")) - plain;
    lora(&folder.join("text.safetensors"), 0.5);
    assert_eq!(
        added("text.safetensors"),
        0,
        "the text encoders are freed before the peak"
    );
    let mut file = TensorFile::default();
    let layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    for (matrix, shape) in [("lora_A", [2, 96]), ("lora_B", [96, 2])] {
        let zeros = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        file.insert(&format!("{layer}.{matrix}.weight"), &zeros);
    }
    fs::write(
        folder.join("unet.safetensors"),
        file.to_bytes().expect("floats"),
    )
    .expect("the folder is writable");
    assert_eq!(added("unet.safetensors"), 2 * 96 * 96, "one weight in fp16");
}

#[test]
fn a_model_in_one_file_takes_as_much_memory_as_in_a_folder() {
    let folder = folder("outlook-one-file");
    for flags in ["--dtype fp32", "--dtype bf16", "--dtype bf16 --cpu-offload"] {
        let [file, in_folder] = ["sd15.safetensors", "folder_sd15"].map(|name| {
            let model = fixture(&format!("single/{name}"));
            memory(&folder, &format!("--model {} {flags}", model.display()))
        });
        // The files of a folder have more headers than the single file.
        let gap = file.abs_diff(in_folder);
        assert!(gap < 200_000, "{flags}: {file} and {in_folder}");
    }
}
