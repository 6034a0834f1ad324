//! Pictures that `evaluate` leaves out of its means, and errors that a dry run finds before
//! anything is measured.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::evaluate::{folder_with_pictures, of_kind, rows};
use crate::oneactor;

#[test]
fn the_target_among_the_pictures_counts_in_no_mean() {
    let folder = folder_with_pictures("left-out-target");
    let line = "evaluate out --model toy --metrics clip_i,clip_t --format json --target";
    let run = oneactor(&folder, &format!("{line} out/../out/0001-1.png"))
        .exits_with(0)
        .says("out/0001-1.png is --target itself: it is not compared with other pictures and does not count in means");
    let rows = rows(&run);
    let target = of_kind(&rows, "picture")[1];
    assert_eq!(target["path"], "out/0001-1.png");
    assert_eq!(target["scores"]["clip_i"], Value::Null);
    assert_eq!(target["scores"]["clip_i_pairwise"], Value::Null);
    assert!(target["scores"]["clip_t"].is_f64(), "{target}");
    let overall = of_kind(&rows, "overall")[0];
    assert_eq!(overall["pictures"], 3);
    let count = |name: &str| overall["scores"][name]["count"].as_u64();
    assert_eq!(
        ["clip_i", "clip_i_pairwise", "clip_t"].map(count),
        [Some(3); 3],
        "three pictures, and three pairs of them"
    );
    oneactor(
        &folder,
        "evaluate out/0001-1.png --target out/0001-1.png --model toy",
    )
    .exits_with(2)
    .says("--target: found out/0001-1.png, which is also the only picture: add pictures to compare with it")
    .writes_nothing();
}

#[test]
fn foreground_and_background_are_measured_where_pictures_have_masks() {
    let folder = folder_with_pictures("left-out-masks");
    let mask = RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 255 } else { 0 }; 3]));
    for name in ["0001-1", "0002-2"] {
        mask.save(folder.join(format!("out/{name}-mask-robot.png")))
            .expect("the folder is writable");
    }
    let line = "evaluate out --model toy --metrics clip_i --masks attention --format json";
    let run = oneactor(&folder, line)
        .exits_with(0)
        .says("6 of 8 pictures have no masks: their foreground and background are not measured");
    let rows = rows(&run);
    let has_part: Vec<bool> = of_kind(&rows, "picture")
        .iter()
        .map(|row| row["scores"]["clip_i_foreground_pairwise"].is_f64())
        .collect();
    assert_eq!(
        has_part,
        [false, true, true, false, false, false, false, false]
    );
    let scores = &of_kind(&rows, "overall")[0]["scores"];
    assert_eq!(scores["clip_i_background_pairwise"]["count"], 1);
    assert_eq!(scores["clip_i_pairwise"]["count"], 6);
    fs::remove_file(folder.join("out/0001-1-mask-robot.png")).expect("it was there");
    fs::remove_file(folder.join("out/0002-2-mask-robot.png")).expect("it was there");
    oneactor(&folder, line)
        .exits_with(2)
        .says(
            "there is no 0000-0-mask-….png beside out/0000-0.png and no mask of any other picture",
        )
        .writes_nothing();
}

#[test]
fn a_dry_run_finds_a_broken_picture_and_a_broken_mask() {
    let folder = folder_with_pictures("left-out-broken");
    let line = "evaluate out --model toy --metrics clip_i --masks attention --dry-run";
    let mask = folder.join("out/0000-0-mask-robot.png");
    RgbImage::new(64, 64)
        .save(&mask)
        .expect("the folder is writable");
    oneactor(&folder, line)
        .exits_with(2)
        .says("out/0000-0-mask-robot.png: the mask is all black")
        .writes_nothing();
    fs::remove_file(mask).expect("it was there");
    let picture = folder.join("out/0002-2.png");
    let bytes = fs::read(&picture).expect("it is there");
    fs::write(&picture, &bytes[..bytes.len() * 2 / 3]).expect("the folder is writable");
    oneactor(&folder, "evaluate out --model toy --dry-run")
        .exits_with(2)
        .says("decoding out/0002-2.png")
        .writes_nothing();
}

#[test]
fn rows_of_a_batch_name_their_job() {
    let folder = folder_with_pictures("left-out-jobs");
    let batch = r#"{"defaults": {"clip_model": "toy", "metrics": "clip_i"},
        "jobs": [{"pictures": ["out/0000-0.png"]}, {"pictures": ["out/0001-1.png"]}]}"#;
    fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
    let run = oneactor(&folder, "evaluate --config batch.json --format json").exits_with(0);
    let jobs: Vec<u64> = rows(&run)
        .iter()
        .map(|row| row["job"].as_u64().expect("a number"))
        .collect();
    assert_eq!(jobs, [1, 1, 1, 1, 2, 2, 2, 2]);
}
