//! `tune --crop`: an enlarged part of the target is learnt too. The user gives the box, or
//! attention maps find it.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::{Run, folder_with_actor, json, oneactor, text};

#[test]
fn a_crop_of_the_target_is_one_more_variant() {
    let folder = folder_with_actor("crop");
    let line = "tune robot --target 1 --max-steps 3";
    let losses = || text(&folder.join("robot/tune.jsonl"));
    oneactor(&folder, &format!("{line} --crop none"))
        .exits_with(0)
        .says("is there already");
    oneactor(&folder, &format!("{line} --crop 20,10,24,20"))
        .exits_with(2)
        .says("crop: was none, is now \"20,10,24,20\"");
    let without = losses();
    oneactor(&folder, &format!("{line} --crop 20,10,24,20 --overwrite")).exits_with(0);
    assert_ne!(losses(), without);
    assert_eq!(
        json(&folder.join("robot/tune.json"))["parameters"]["crop"],
        "20,10,24,20"
    );
    for (crop, message) in [
        ("head", "expected face, subject, none or a box in pixels"),
        (
            "50,0,20,20",
            "found 50,0,20,20, expected left,top,width,height of a box within",
        ),
        ("-1,0,20,20", "found -1,0,20,20"),
        ("0,0,0,20", "found 0,0,0,20"),
        (
            "0,0,15,15",
            "of 64 x 64 pixels, at least 16 wide or 16 high",
        ),
        (
            "0,0,9223372036854775807,9223372036854775807",
            "expected left,top",
        ),
    ] {
        oneactor(&folder, &format!("{line} --overwrite --crop {crop}"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
}

/// Draws a robot that fills a small part of its picture, at the lower left.
fn small_figure(path: &Path) {
    let boxes = [
        ([0, 50, 64, 14], [190, 190, 195]),
        ([10, 24, 16, 13], [200, 60, 50]),
        ([12, 37, 12, 14], [200, 60, 50]),
        ([12, 28, 4, 4], [255, 255, 255]),
        ([20, 28, 4, 4], [255, 255, 255]),
        ([13, 51, 4, 6], [60, 60, 60]),
        ([19, 51, 4, 6], [60, 60, 60]),
    ];
    let mut picture = RgbImage::from_pixel(64, 64, Rgb([215, 220, 225]));
    for ([left, top, width, height], colour) in boxes {
        for y in top..top + height {
            for x in left..left + width {
                picture.put_pixel(x, y, Rgb(colour));
            }
        }
    }
    picture.save(path).expect("the folder is writable");
}

#[test]
fn the_subject_is_found_in_a_photo_and_its_box_can_be_named_again() {
    let folder = folder_with_actor("crop-found");
    small_figure(&folder.join("small.png"));
    let tune = |crop: &str| -> Run {
        let line = "tune robot --target-image small.png --max-steps 3 --overwrite";
        oneactor(&folder, &format!("{line} --crop {crop}"))
    };
    let actor = || std::fs::read(folder.join("robot/actor.safetensors")).expect("it is there");
    tune("none").exits_with(0);
    let without = actor();
    let run = tune("subject").exits_with(0);
    let tuned = json(&folder.join("robot/tune.json"));
    assert_eq!(tuned["parameters"]["crop"], "subject");
    assert_eq!(tuned["crop_shows"], "subject");
    let part = tuned["crop_box"]
        .as_str()
        .expect("a box was found")
        .to_owned();
    run.says(&format!("--crop subject: the subject is at {part}"));
    let sides: Vec<i64> = part
        .split(',')
        .map(|side| side.parse().expect("a number"))
        .collect();
    // The figure spans columns 10 to 26 and rows 24 to 57.
    let [x, y, w, h] = sides[..] else {
        panic!("{part}")
    };
    assert!(x <= 10 && x + w >= 26 && y <= 24 && y + h >= 57, "{part}");
    assert!(w == h && w <= 50, "{part}");
    let found = actor();
    assert_ne!(found, without, "a crop is one more variant");
    tune(&part).exits_with(0);
    assert_eq!(
        actor(),
        found,
        "the numbers of the box lead to the same actor"
    );
    assert!(json(&folder.join("robot/tune.json"))["crop_box"].is_null());

    // The captions of the toy's training data mention no faces.
    tune("face").exits_with(0).says(&format!(
        "--crop face: the subject is at {part}, because attention shows no plausible face in it"
    ));
    assert_eq!(
        json(&folder.join("robot/tune.json"))["crop_shows"],
        "subject"
    );
    oneactor(
        &folder,
        "tune robot --target-image small.png --max-steps 3 --crop face",
    )
    .exits_with(0)
    .says("is there already");
}

#[test]
fn a_figure_that_fills_its_picture_is_not_enlarged() {
    let folder = folder_with_actor("crop-nothing");
    let line = "tune robot --target 1 --max-steps 3";
    let losses = || -> Vec<f64> {
        text(&folder.join("robot/tune.jsonl"))
            .lines()
            .map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).expect("a row is JSON");
                row["loss"].as_f64().expect("a number")
            })
            .collect()
    };
    let without = losses();
    oneactor(&folder, &format!("{line} --crop subject --overwrite"))
        .exits_with(0)
        .says("is nearly the whole picture of 64 x 64 pixels: there is nothing to enlarge");
    assert_eq!(losses(), without);
    let tuned = json(&folder.join("robot/tune.json"));
    assert_eq!(tuned["crop_box"], "none");
    assert!(tuned["crop_shows"].is_null());
}

#[test]
fn a_crop_of_a_face_is_refused_with_several_subjects() {
    let folder = folder_with_actor("crop-pair");
    let line = "generate-base --model toy -p 'a cat and a robot' --subject cat --subject robot \
                --num-images 2 --steps 2 -o pair";
    oneactor(&folder, line).exits_with(0);
    oneactor(&folder, "tune pair --crop face --max-steps 1")
        .exits_with(2)
        .says("--crop face: the base images show 2 subjects (cat, robot), expected one")
        .writes_nothing();
    oneactor(&folder, "tune pair --crop subject --max-steps 1")
        .exits_with(0)
        .says("--crop subject: ");
}
