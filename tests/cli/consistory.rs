//! `sample --method consistory`: pictures are drawn together with anchors, which have the seeds of
//! base images.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{copy, folder, folder_with_actor, json, names, oneactor, pixels, text};

const DRAW: &str = "sample robot --method consistory -p 'a robot in the snow' --steps 3";

/// The rows of a manifest.
fn rows(path: &Path) -> Vec<Value> {
    text(path)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

/// The largest difference of two pictures, in levels of 255.
fn gap(a: &Path, b: &Path) -> u8 {
    let pairs = pixels(a).into_iter().zip(pixels(b));
    pairs.map(|(a, b)| a.abs_diff(b)).max().expect("pixels")
}

#[test]
fn a_picture_records_its_method_and_target_and_is_redrawn_from_them() {
    let folder = folder_with_actor("consistory");
    oneactor(&folder, &format!("{DRAW} --seed 7 --compare -o out")).exits_with(0);
    let out = folder.join("out");
    let row = &rows(&out.join("manifest.jsonl"))[0];
    // The folder was tuned to base image 1.
    assert_eq!(
        (&row["method"], &row["target"]),
        (&Value::from("consistory"), &Value::from(1))
    );
    assert_eq!(row["actors"][0], "robot/base.safetensors");
    for key in ["eta_1", "semantic_scale", "guided_steps", "no_actor"] {
        assert_eq!(row[key], Value::Null, "{key}");
    }
    let shared = out.join("0000-7.png");
    assert!(
        gap(&shared, &out.join("plain/0000-7.png")) > 8,
        "shared attention changes the picture"
    );
    oneactor(&folder, &format!("{DRAW} --seed 7 --compare -o out"))
        .exits_with(0)
        .says("2 of 2 images are there already")
        .writes_nothing();

    // The target is in the picture's metadata: tune.json is not needed any more.
    fs::remove_file(folder.join("robot/tune.json")).expect("it is there");
    oneactor(&folder, "sample --from out/0000-7.png -o again").exits_with(0);
    assert_eq!(pixels(&shared), pixels(&folder.join("again/0000-7.png")));
    oneactor(&folder, "sample --from out/0000-7.png --target 2 -o other").exits_with(0);
    let other = folder.join("other/0000-7.png");
    assert!(
        gap(&shared, &other) > 8,
        "another target gives another picture"
    );
    oneactor(&folder, "sample --from out/0000-7.png --target 2 -o out")
        .exits_with(2)
        .says("target");
}

#[test]
fn a_picture_depends_neither_on_its_batch_nor_on_what_is_drawn_before_it() {
    let folder = folder_with_actor("consistory-batch");
    let many =
        format!("{DRAW} -p 'a robot at the beach' --num-images 2 --batch-size 2 --seed 4 -o many");
    oneactor(&folder, &many).exits_with(0);
    oneactor(&folder, &format!("{DRAW} --seed 5 -o one")).exits_with(0);
    // Batches of other sizes use other kernels, which add in another order.
    assert!(
        gap(
            &folder.join("many/0001-5.png"),
            &folder.join("one/0000-5.png")
        ) <= 1
    );
}

#[test]
fn without_a_tuned_target_the_most_typical_image_is_taken_and_named() {
    let folder = folder_with_actor("consistory-untuned");
    for file in ["actor.safetensors", "tune.json", "tune.jsonl"] {
        fs::remove_file(folder.join("robot").join(file)).expect("it is there");
    }
    oneactor(&folder, &format!("{DRAW} -o out"))
        .exits_with(0)
        .says("the most typical of 3 images; choose another with --target N");
    oneactor(&folder, &format!("{DRAW} --dry-run --target 3 -o out"))
        .exits_with(2)
        .says("--target: found 3, expected 0 to 2");
    // A tuning of other base images does not choose the target of these.
    let other = folder_with_actor("consistory-other-set");
    let tuned = text(&other.join("robot/tune.json"));
    let crc32 = json(&other.join("robot/tune.json"))["parameters"]["base_crc32"].clone();
    let foreign = tuned.replace(crc32.as_str().expect("a checksum"), "00000000");
    fs::write(folder.join("robot/tune.json"), foreign).expect("the folder is writable");
    oneactor(&folder, &format!("{DRAW} -o out"))
        .exits_with(0)
        .says("1 of 1 images are there already");
}

#[test]
fn flags_that_shared_attention_does_not_support_are_refused_by_name() {
    let folder = folder_with_actor("consistory-bad");
    copy(&folder.join("robot"), &folder.join("robot-2"));
    for (more, message) in [
        (
            "--controlnet x --control-image y.png",
            "--controlnet would steer the anchors to its image too",
        ),
        (
            "--guidance-interval 1-2",
            "--guidance-interval leaves out rows whose attention is shared",
        ),
        (
            "--feature-reuse 2",
            "--feature-reuse leaves out layers whose attention is shared",
        ),
        ("--long-prompts", "--long-prompts makes prompts longer"),
        ("--eta-2 0", "--eta-2 is only for --method oneactor"),
        ("--save-masks", "--save-masks"),
    ] {
        oneactor(&folder, &format!("{DRAW} {more} -o out"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    oneactor(&folder, &DRAW.replace("robot --", "robot robot-2 --"))
        .exits_with(2)
        .says("--method consistory draws one subject: found 2 folders, expected one");
    oneactor(&folder, &DRAW.replace("a robot in", "a cat in"))
        .exits_with(2)
        .says("\"robot\"");
    oneactor(&folder, "sample robot -p 'a robot' --target 1 -o out")
        .exits_with(2)
        .says("--target is only for --method consistory and ip-adapter");
    oneactor(&folder, &DRAW.replace("sample robot", "sample elsewhere"))
        .exits_with(2)
        .says("elsewhere");
    assert_eq!(names(&folder), ["robot", "robot-2"]);
}

#[test]
fn several_subjects_in_one_folder_are_refused() {
    let folder = folder("consistory-joint");
    let base = "generate-base --model toy -p 'a cat and a frog' --subject cat --subject frog --num-images 2 --steps 1";
    oneactor(&folder, &format!("{base} -o pair")).exits_with(0);
    oneactor(
        &folder,
        "sample pair --method consistory -p 'a cat and a frog' -o out",
    )
    .exits_with(2)
    .says("consistory draws one subject")
    .says("\"cat\", \"frog\"");
}

#[test]
fn a_folder_that_was_tuned_to_a_photo_needs_a_target_with_a_seed() {
    let folder = folder_with_actor("consistory-photo");
    let path = folder.join("robot/tune.json");
    let tuned = text(&path).replace("\"target\": 1", "\"target\": 3");
    fs::write(&path, tuned).expect("the folder is writable");
    oneactor(&folder, &format!("{DRAW} --dry-run -o out"))
        .exits_with(2)
        .says("tune was run with the photo")
        .says("--target N");
    oneactor(&folder, &format!("{DRAW} --dry-run --target 0 -o out")).exits_with(0);

    // The photo of a baseline's tuning is ignored.
    fs::rename(&path, folder.join("robot/dreambooth-lora.json")).expect("it is there");
    oneactor(&folder, &format!("{DRAW} --dry-run -o out")).exits_with(0);
}
