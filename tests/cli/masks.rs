//! Masks of `evaluate` by Segment Anything, with a tiny random SAM of the fixtures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};
use serde_json::Value;
use tch::Tensor;

use crate::common::fixture;
use crate::{Run, folder_with_actor, oneactor};

/// The flags that make the masks with the tiny SAM.
fn by_sam() -> String {
    format!(
        "--masks sam --sam-model {}",
        fixture("sam/padded").display()
    )
}

/// The scores of the row `overall`.
fn overall(run: &Run) -> Value {
    let rows = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"));
    let found = rows
        .into_iter()
        .find(|row: &Value| row["kind"] == "overall");
    found.expect("there is a row of all pictures")["scores"].clone()
}

fn levels(path: &Path) -> GrayImage {
    image::open(path).expect("it is a picture").into_luma8()
}

#[test]
fn masks_by_sam_give_the_same_scores_as_the_same_masks_read_from_a_folder() {
    let folder = folder_with_actor("masks-sam");
    let pictures = "evaluate robot/base/00.png robot/base/01.png --target robot/base/02.png --model toy --metrics clip_i --format json";
    let line = format!("{pictures} {} --save-masks seen", by_sam());
    let run = oneactor(&folder, &line).exits_with(0);
    let names: Vec<String> = overall(&run)
        .as_object()
        .expect("scores")
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        names,
        [
            "clip_i",
            "clip_i_background",
            "clip_i_background_pairwise",
            "clip_i_foreground",
            "clip_i_foreground_pairwise",
            "clip_i_pairwise"
        ]
    );
    for name in ["00", "01", "target"] {
        let mask = levels(&folder.join(format!("seen/{name}.png")));
        assert_eq!(mask.dimensions(), (64, 64));
        let white = mask.pixels().filter(|level| level.0[0] == 255).count();
        let black = mask.pixels().filter(|level| level.0[0] == 0).count();
        assert!(
            white > 0 && black > 0 && white + black == 64 * 64,
            "{name}: {white} white, {black} black"
        );
    }
    let read = format!("{pictures} --masks seen --target-mask seen/target.png");
    assert_eq!(oneactor(&folder, &read).exits_with(0).stdout, run.stdout);
    let unsaved = oneactor(&folder, &format!("{pictures} {}", by_sam())).exits_with(0);
    assert_eq!(unsaved.stdout, run.stdout);

    // A target's mask that the user gives is used.
    let whole = overall(&run);
    let given = format!("{pictures} {} --target-mask seen/00.png", by_sam());
    let given = overall(&oneactor(&folder, &given).exits_with(0));
    assert_ne!(given["clip_i_foreground"], whole["clip_i_foreground"]);
    assert_eq!(
        given["clip_i_foreground_pairwise"],
        whole["clip_i_foreground_pairwise"]
    );

    oneactor(&folder, &line)
        .exits_with(2)
        .says("--save-masks: seen/00.png exists already: give a new folder, or measure with these masks: --masks seen")
        .writes_nothing();
}

#[test]
fn a_dry_run_lists_the_masks_and_writes_none() {
    let folder = folder_with_actor("masks-dry");
    let line = format!(
        "evaluate robot/base/00.png --target robot/base/02.png --model toy --metrics clip_i {} --save-masks seen --dry-run",
        by_sam()
    );
    let run = oneactor(&folder, &line).exits_with(0);
    assert_eq!(run.paths(), ["seen/00.png", "seen/target.png"]);
    assert!(!folder.join("seen").exists());
}

/// The tiny SAM with weights of 0 in its mask head: its masks are empty.
fn blind_sam(folder: &Path) -> PathBuf {
    let blind = folder.join("blind");
    fs::create_dir(&blind).expect("the folder is writable");
    for name in ["config.json", "preprocessor_config.json"] {
        fs::copy(fixture("sam/padded").join(name), blind.join(name)).expect("it is there");
    }
    let weights = Tensor::read_safetensors(fixture("sam/padded/model.safetensors"));
    let weights: BTreeMap<String, Tensor> = weights.expect("it is whole").into_iter().collect();
    let weights: Vec<(String, Tensor)> = weights
        .into_iter()
        .map(|(key, tensor)| {
            let makes_masks = key.contains("output_hypernetworks_mlps") && key.contains("proj_out");
            let tensor = if makes_masks {
                tensor.zeros_like()
            } else {
                tensor
            };
            (key, tensor)
        })
        .collect();
    Tensor::write_safetensors(&weights, blind.join("model.safetensors"))
        .expect("the folder is writable");
    blind
}

#[test]
fn a_picture_without_a_subject_is_named_and_what_was_saved_before_stays() {
    let folder = folder_with_actor("masks-blind");
    let blind = blind_sam(&folder);
    let line = format!(
        "evaluate robot/base/00.png --model toy --metrics clip_i --masks sam --sam-model {} --save-masks seen",
        blind.display()
    );
    oneactor(&folder, &line)
        .exits_with(1)
        .says("robot/base/00.png: Segment Anything finds no subject in the middle of the picture")
        .says("give --masks a folder")
        .writes_nothing();
    assert!(!folder.join("seen").exists());
}

#[test]
fn wrong_flags_and_networks_are_refused_with_what_to_do() {
    let folder = folder_with_actor("masks-bad");
    fs::create_dir(folder.join("other")).expect("the folder is writable");
    RgbImage::new(16, 16)
        .save(folder.join("other/00.png"))
        .expect("the folder is writable");
    let sam = by_sam();
    let clip = fixture("evaluate/clip");
    let one = "evaluate robot/base/00.png --model toy --metrics clip_i";
    for (line, code, message) in [
        (
            format!("{one} --save-masks seen"),
            2,
            "--save-masks has no effect without --masks sam",
        ),
        (
            format!("{one} --masks attention --sam-model a/b"),
            2,
            "--sam-model has no effect without --masks sam",
        ),
        (
            format!("{one} --masks sam --sam-model toy"),
            2,
            "--sam-model: found toy, which contains only a CLIP model",
        ),
        (format!("{one} --masks sam"), 3, "facebook/sam-vit-base"),
        (
            format!("{one} --masks samm"),
            2,
            "there is no folder samm, expected a folder with masks, attention or sam",
        ),
        (
            format!("{one} --masks sam --sam-model {}", clip.display()),
            3,
            "model_type: found \"clip\", expected sam",
        ),
        (
            format!("{one} other/00.png {sam} --save-masks seen"),
            2,
            "two pictures would have the mask seen/00.png",
        ),
        (
            format!("{one} {sam} --save-masks robot/base"),
            2,
            "robot/base/00.png exists already",
        ),
        (
            format!("evaluate robot/base/00.png --model toy --metrics clip_t {sam}"),
            2,
            "--masks has no effect with --metrics",
        ),
    ] {
        oneactor(&folder, &line)
            .exits_with(code)
            .says(message)
            .writes_nothing();
    }
    fs::write(
        folder.join("other/manifest.jsonl"),
        "{\"path\": \"../other/00.png\"}\n",
    )
    .expect("the folder is writable");
    oneactor(
        &folder,
        &format!("evaluate other --model toy --metrics clip_i {sam} --save-masks seen"),
    )
    .exits_with(2)
    .says("would lie outside seen")
    .writes_nothing();
    let batch = format!(
        r#"{{"defaults": {{"clip_model": "toy", "metrics": "clip_i", "masks": "sam", "sam_model": "{}", "save_masks": "seen"}},
        "jobs": [{{"pictures": "robot/base/00.png"}}, {{"pictures": "robot/base/01.png"}}]}}"#,
        fixture("sam/padded").display()
    );
    fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
    oneactor(&folder, "evaluate --config batch.json")
        .exits_with(5)
        .says("job 2 of batch.json: seen is the folder of an earlier job too");
}
