//! `evaluate` on pictures of the toy, with the toy's own CLIP and with tiny random networks.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::common::fixture;
use crate::{Run, folder, folder_with_actor, oneactor};

/// A folder with four guided pictures in `out`, and the same four scenes drawn by the plain model.
pub fn folder_with_pictures(name: &str) -> std::path::PathBuf {
    let folder = folder_with_actor(name);
    let line = "sample robot -p 'a robot at the beach' -p 'a robot, at night' --num-images 2 --steps 3 --compare -o out";
    oneactor(&folder, line).exits_with(0);
    folder
}

/// The objects of `--format json`.
pub fn rows(run: &Run) -> Vec<Value> {
    run.stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

pub fn of_kind<'a>(rows: &'a [Value], kind: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["kind"] == kind).collect()
}

/// The flag that names a tiny random network of the fixtures.
pub fn network(flag: &str, name: &str) -> String {
    let path = fixture(&format!("evaluate/{name}"));
    format!("--{flag} {}", path.display())
}

#[test]
fn each_picture_prompt_and_actor_has_a_row_and_so_have_all_pictures() {
    let folder = folder_with_pictures("evaluate");
    let line = "evaluate out --model toy --target robot/base/01.png --metrics clip_i,clip_t,clip_score --format json";
    let run = oneactor(&folder, line).exits_with(0);
    let rows = rows(&run);
    let pictures = of_kind(&rows, "picture");
    assert_eq!(pictures.len(), 8);
    assert_eq!(pictures[0]["path"], "out/0000-0.png");
    assert_eq!(pictures[0]["prompt"], "a robot at the beach");
    assert_eq!(pictures[0]["actor"], "robot/actor.safetensors");
    assert_eq!(pictures[7]["actor"], "plain");
    assert_eq!(pictures[7]["seed"], 3);
    let score = |row: &Value, name: &str| row["scores"][name].as_f64().expect("a number");
    for row in &pictures {
        let cosine = score(row, "clip_t");
        assert!((score(row, "clip_score") - 100.0 * cosine.max(0.0)).abs() < 1e-9);
        assert!(score(row, "clip_i").abs() <= 1.0);
    }
    let groups = |kind| of_kind(&rows, kind).len();
    assert_eq!(
        [groups("prompt"), groups("actor"), groups("overall")],
        [2, 2, 1]
    );

    // The row `overall` has the four guided pictures and their six pairs.
    let overall = of_kind(&rows, "overall")[0];
    let values: Vec<f64> = pictures[..4]
        .iter()
        .map(|row| score(row, "clip_i"))
        .collect();
    let mean = values.iter().sum::<f64>() / 4.0;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let found = &overall["scores"]["clip_i"];
    assert_eq!(found["count"], 4);
    assert!((found["mean"].as_f64().expect("a mean") - mean).abs() < 1e-12);
    let sd = found["sd"].as_f64().expect("a deviation");
    assert!((sd - (squares / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(overall["scores"]["clip_i_pairwise"]["count"], 6);
}

#[test]
fn the_target_compared_with_itself_has_similarity_one() {
    let folder = folder_with_actor("evaluate-same");
    fs::copy(folder.join("robot/base/01.png"), folder.join("same.png")).expect("it is there");
    let line =
        "evaluate same.png --target robot/base/01.png --model toy --metrics clip_i --format csv";
    let run = oneactor(&folder, line).exits_with(0);
    let row = run.stdout.lines().nth(1).expect("a picture");
    let cells: Vec<&str> = row.split(',').collect();
    assert_eq!(cells[..4], ["picture", "same.png", "a robot", "plain"]);
    let same: f64 = cells[6].parse().expect("a number");
    assert!((same - 1.0).abs() < 1e-6, "{row}");
    assert_eq!(cells[8], "", "there is no pair: {row}");
}

#[test]
fn a_gate_that_fails_has_its_own_exit_code_and_still_prints_the_table() {
    let folder = folder_with_pictures("evaluate-gate");
    let passed = "evaluate out --model toy --fail-below clip_i_pairwise=-1 --fail-below clip_t=-1";
    let passed = oneactor(&folder, passed).exits_with(0);
    assert!(passed.stdout.contains("overall"), "{}", passed.stdout);
    let failed = oneactor(&folder, "evaluate out --model toy --fail-below clip_t=1.5")
        .exits_with(6)
        .says("error: clip_t: found ")
        .says("overall, expected at least 1.5");
    assert_eq!(failed.stdout, passed.stdout);
    let batch = r#"{"defaults": {"clip_model": "toy", "pictures": "out"},
        "jobs": [{"fail_below": "clip_t=1.5"}, {"fail_below": "clip_t=-1"}]}"#;
    fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
    let run = oneactor(&folder, "evaluate --config batch.json")
        .exits_with(6)
        .says("job 1 of batch.json: clip_t: found");
    assert_eq!(
        run.stdout,
        format!("{0}{0}", passed.stdout),
        "both jobs have a table"
    );
    oneactor(&folder, "evaluate --config batch.json --format csv")
        .exits_with(2)
        .says("--format csv: found 2 jobs, expected one")
        .writes_nothing();
}

#[test]
fn masks_separate_foreground_and_background() {
    let folder = folder_with_pictures("evaluate-masks");
    fs::create_dir_all(folder.join("masks/plain")).expect("the folder is writable");
    let mask = RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 255 } else { 0 }; 3]));
    for name in fs::read_dir(folder.join("out/plain")).expect("it is there") {
        let name = name.expect("it is readable").file_name();
        for path in [
            folder.join("masks").join(&name),
            folder.join("masks/plain").join(&name),
        ] {
            mask.save(path).expect("the folder is writable");
        }
    }
    mask.save(folder.join("target.png"))
        .expect("the folder is writable");
    let dino = network("dino-model", "dino");
    let line = format!(
        "evaluate out --target robot/base/01.png --target-mask target.png --masks masks --metrics dino {dino} --format json"
    );
    let run = oneactor(&folder, &line).exits_with(0);
    let overall = &of_kind(&rows(&run), "overall")[0]["scores"].clone();
    let names: Vec<&str> = overall
        .as_object()
        .expect("scores")
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "dino",
        "dino_background",
        "dino_background_pairwise",
        "dino_foreground",
        "dino_foreground_pairwise",
        "dino_pairwise",
    ];
    assert_eq!(names, expected);
    let mean = |name: &str| overall[name]["mean"].as_f64().expect("a mean");
    assert_ne!(mean("dino_foreground"), mean("dino_background"));

    fs::remove_file(folder.join("masks/plain/0001-1.png")).expect("it was there");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("--masks: there is no masks/plain/0001-1.png, expected the mask of out/plain/0001-1.png")
        .writes_nothing();
    oneactor(&folder, "evaluate out --model toy --masks attention")
        .exits_with(2)
        .says("there is no 0000-0-mask-….png beside out/0000-0.png")
        .writes_nothing();
}

#[test]
fn masks_of_attention_are_found_beside_the_pictures() {
    let folder = folder_with_actor("evaluate-attention");
    let picture = folder.join("robot/base/00.png");
    let half = |left: bool| {
        RgbImage::from_fn(64, 64, |x, y| {
            Rgb([if (x < 20) == left && y < 40 && x < 40 {
                255
            } else {
                0
            }; 3])
        })
    };
    for (word, left) in [("robot", true), ("cat", false)] {
        let path = picture.with_file_name(format!("00-mask-{word}.png"));
        half(left).save(path).expect("the folder is writable");
    }
    fs::copy(&picture, folder.join("target.png")).expect("it is there");
    let line = "evaluate robot/base/00.png --model toy --metrics clip_i --masks attention --format json --target target.png --target-mask ";
    // The union of both masks is the target's mask: the same picture then has the same parts.
    let union = RgbImage::from_fn(64, 64, |x, y| {
        Rgb([if x < 40 && y < 40 { 255 } else { 0 }; 3])
    });
    union
        .save(folder.join("union.png"))
        .expect("the folder is writable");
    let run = oneactor(&folder, &format!("{line}union.png")).exits_with(0);
    let row = &rows(&run)[0]["scores"].clone();
    for name in ["clip_i_foreground", "clip_i_background"] {
        let cosine = row[name].as_f64().expect("a number");
        assert!((cosine - 1.0).abs() < 1e-6, "{name}: {row}");
    }
    RgbImage::new(64, 64)
        .save(folder.join("black.png"))
        .expect("the folder is writable");
    oneactor(&folder, &format!("{line}black.png"))
        .exits_with(2)
        .says("black.png: the mask is all black, expected white where the subject is");
}

#[test]
fn wrong_pictures_and_models_are_refused_with_what_to_do() {
    let folder = folder("evaluate-bad");
    RgbImage::new(8, 8)
        .save(folder.join("foreign.png"))
        .expect("the folder is writable");
    fs::write(folder.join("text.png"), "hello").expect("the folder is writable");
    fs::create_dir(folder.join("empty")).expect("the folder is writable");
    fs::create_dir(folder.join("lost")).expect("the folder is writable");
    fs::write(
        folder.join("lost/manifest.jsonl"),
        "{\"path\": \"a.png\"}\n",
    )
    .expect("the folder is writable");
    let thin = RgbImage::new(1, 40);
    thin.save(folder.join("thin.png"))
        .expect("the folder is writable");
    fs::create_dir(folder.join("masks")).expect("the folder is writable");
    for copy in ["lost/foreign.png", "masks/foreign.png"] {
        RgbImage::new(8, 8)
            .save(folder.join(copy))
            .expect("the folder is writable");
    }
    let of_clip = network("dino-model", "clip");
    for (line, code, message) in [
        (
            "evaluate nowhere",
            2,
            "nowhere does not exist, expected a folder that sample wrote, or pictures",
        ),
        (
            "evaluate empty",
            2,
            "empty has no manifest.jsonl, expected a folder that sample wrote: for other folders give the pictures, \
             for instance empty/*.png",
        ),
        (
            "evaluate lost",
            2,
            "manifest.jsonl, line 1: there is no picture lost/a.png",
        ),
        (
            "evaluate text.png",
            2,
            "text.png is not a picture of a known kind",
        ),
        (
            "evaluate foreign.png --model toy",
            2,
            "foreign.png has no recorded prompt",
        ),
        (
            "evaluate foreign.png ./foreign.png --model toy -p a",
            2,
            "is named twice",
        ),
        (
            "evaluate foreign.png --metrics clip",
            2,
            "--metrics: found \"clip\", expected some of clip_i",
        ),
        (
            "evaluate foreign.png --metrics clip_t -p a --target thin.png",
            2,
            "--target has no effect with --metrics",
        ),
        (
            "evaluate foreign.png --metrics clip_t -p a --masks empty",
            2,
            "--masks has no effect with --metrics",
        ),
        (
            "evaluate foreign.png --model toy --metrics clip_i --target text.png",
            2,
            "text.png is not a picture of a known kind",
        ),
        (
            "evaluate foreign.png lost/foreign.png --model toy --metrics clip_i --masks masks",
            2,
            "would both have the mask masks/foreign.png",
        ),
        (
            "evaluate foreign.png --metrics dino",
            3,
            "facebook/dino-vitb16",
        ),
        (
            &format!("evaluate foreign.png --metrics dino {of_clip}"),
            3,
            "model_type: found \"clip\", expected vit",
        ),
        (
            "evaluate thin.png --model toy -p a",
            2,
            "thin.png: found 1 x 40 pixels, expected one side at most 32 times the other",
        ),
        (
            "evaluate foreign.png --device cuda:9 --model toy -p a",
            4,
            "device cuda:9: ",
        ),
    ] {
        oneactor(&folder, line)
            .exits_with(code)
            .says(message)
            .writes_nothing();
    }
    // A foreign picture can be measured with --prompt, or by measures that need no prompt.
    oneactor(
        &folder,
        "evaluate foreign.png --model toy -p 'a black square'",
    )
    .exits_with(0);
    oneactor(&folder, "evaluate foreign.png --model toy --metrics clip_i").exits_with(0);
}

#[test]
fn a_dry_run_lists_the_pictures_and_loads_nothing() {
    let folder = folder_with_actor("evaluate-dry");
    let base = |name: &str| Path::new("robot/base").join(name).display().to_string();
    let line = format!(
        "evaluate {} {} --model toy --dry-run -q",
        base("00.png"),
        base("02.png")
    );
    let run = oneactor(&folder, &line).exits_with(0);
    assert_eq!(run.paths(), [base("00.png"), base("02.png")]);
    assert_eq!(run.stderr, "");
}

#[test]
fn an_unused_prompt_and_unmerged_parts_are_reported() {
    let folder = folder_with_actor("evaluate-told");
    let line = "sample robot -p 'a robot' --num-images 2 --steps 1 -o out";
    oneactor(&folder, line).exits_with(0);
    oneactor(&folder, "evaluate out --model toy --prompt 'a cat'")
        .exits_with(0)
        .says("--prompt has no effect, because every picture has its own prompt");
    for name in ["a.png", "b.png"] {
        let picture = RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([x as u8, y as u8, name.len() as u8])
        });
        picture
            .save(folder.join(name))
            .expect("the folder is writable");
    }
    let foreign = "evaluate a.png b.png --model toy --prompt 'a cat'";
    oneactor(&folder, &format!("{foreign} --metrics clip_i"))
        .exits_with(0)
        .says("--prompt is not measured, because nothing in --metrics compares pictures with a prompt");
    let used = oneactor(&folder, foreign).exits_with(0);
    assert!(!used.stderr.contains("--prompt"), "{}", used.stderr);
    oneactor(&folder, &line.replace("-o out", "-o parts --shard 1/2")).exits_with(0);
    oneactor(&folder, "evaluate parts --model toy")
        .exits_with(2)
        .says("parts has no manifest.jsonl, because the parts of a run with --shard are not merged: run `oneactor merge parts` first");
}
