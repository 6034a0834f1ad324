//! The user's own photo as the target.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use oneactor::io::tensors::TensorFile;

use crate::{folder_with_actor, json, oneactor};

/// Writes a picture of 90 x 70 pixels that the toy did not draw.
fn photo(path: &Path) {
    RgbImage::from_fn(90, 70, |x, y| Rgb([x as u8 * 2, y as u8 * 3, 99]))
        .save(path)
        .expect("the folder is writable");
}

fn metadata(folder: &Path) -> std::collections::BTreeMap<String, String> {
    TensorFile::read(&folder.join("robot/actor.safetensors"))
        .expect("it is readable")
        .metadata
}

#[test]
fn with_a_photo_as_target_all_base_images_are_auxiliary() {
    let folder = folder_with_actor("photo");
    photo(&folder.join("me.jpg"));
    let line = "tune robot --target-image me.jpg --max-steps 2 --overwrite";
    oneactor(&folder, line)
        .exits_with(0)
        .says("me.jpg: 90 x 70 pixels; its centre is used, at 64 x 64");
    let actor = TensorFile::read(&folder.join("robot/actor.safetensors")).expect("it is readable");
    assert_eq!(actor.tensors["encoder_features"].size()[0], 4);
    assert_eq!(actor.metadata["target"], "3");
    assert_eq!(actor.metadata["target_image"], "me.jpg");
    let sum = format!(
        "{:08x}",
        crc32fast::hash(&fs::read(folder.join("me.jpg")).expect("it is readable"))
    );
    assert_eq!(actor.metadata["target_image_crc32"], sum);
    let config = json(&folder.join("robot/tune.json"));
    assert_eq!(config["parameters"]["target_image_crc32"], sum);
    assert_eq!(config["parameters"]["num_auxiliary"], 3);
    assert_eq!(config["target_image"], "me.jpg");
    oneactor(&folder, "sample robot -p [b] --steps 2 -o out").exits_with(0);
}

#[test]
fn a_changed_photo_counts_as_another_target() {
    let folder = folder_with_actor("photo-changed");
    photo(&folder.join("me.png"));
    let line = "tune robot --target-image me.png --max-steps 2";
    oneactor(&folder, line)
        .exits_with(2)
        .says("target: was image 1, is now the photo with CRC-32 ");
    oneactor(&folder, &format!("{line} --overwrite")).exits_with(0);
    fs::rename(folder.join("me.png"), folder.join("moved.png")).expect("it is there");
    oneactor(&folder, "tune robot --target-image moved.png --max-steps 2")
        .exits_with(0)
        .says("is there already")
        .writes_nothing();
    let other = RgbImage::from_pixel(90, 70, Rgb([9, 9, 9]));
    other
        .save(folder.join("me.png"))
        .expect("the folder is writable");
    oneactor(&folder, line).exits_with(2).says(
        "robot/actor.safetensors was tuned with other settings (target: was the photo with CRC-32 ",
    );
    oneactor(&folder, "tune robot --target 1 --max-steps 2")
        .exits_with(2)
        .says("target: was the photo with CRC-32 ");
}

#[test]
fn a_base_image_as_photo_has_nearly_its_own_features() {
    let folder = folder_with_actor("photo-own");
    let line = "tune robot --target-image robot/base/01.png --max-steps 1 --overwrite";
    oneactor(&folder, line).exits_with(0);
    let actor = TensorFile::read(&folder.join("robot/actor.safetensors")).expect("it is readable");
    let h = &actor.tensors["encoder_features"];
    let distance = |i: i64| {
        let gap = (h.get(3) - h.get(i)).norm().double_value(&[]);
        gap / h.get(i).norm().double_value(&[])
    };
    // Measured 0.1: the picture has passed the VAE twice and 8 bits once, and the noise left before
    // the last step differs. The other images lie at 0.8 to 1.0.
    let others = distance(0).min(distance(2));
    assert!(distance(1) < 0.3 * others, "{} {others}", distance(1));
}

#[test]
fn a_photo_that_cannot_be_used_is_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("photo-bad");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).expect("the folder is writable");
    };
    write("text.png", b"hello");
    write("empty.jpg", b"");
    RgbImage::new(15, 64)
        .save(folder.join("tiny.png"))
        .expect("the folder is writable");
    photo(&folder.join("whole.png"));
    let whole = fs::read(folder.join("whole.png")).expect("it is readable");
    write("half.png", &whole[..whole.len() / 2]);
    let cases = [
        (
            "none.png",
            "--target-image: there is no file none.png, expected a PNG or JPEG: check the path",
        ),
        ("robot", "robot is not a file, expected a PNG or JPEG"),
        ("text.png", "text.png is not a picture of a known kind"),
        ("empty.jpg", "empty.jpg is not a picture of a known kind"),
        ("half.png", "decoding half.png"),
        (
            "tiny.png",
            "tiny.png: found 15 x 64 pixels, expected at least 16 x 16",
        ),
        (
            "whole.png --target 1",
            "found --target 1 and --target-image whole.png, expected only one of them",
        ),
        (
            "whole.png --num-auxiliary 4",
            "--num-auxiliary: found 4, expected at most 3, because there are 3 base images",
        ),
    ];
    let before = metadata(&folder);
    for (flags, message) in cases {
        let run = oneactor(
            &folder,
            &format!("tune robot --overwrite --target-image {flags}"),
        )
        .exits_with(2)
        .says(message)
        .writes_nothing();
        assert!(!run.stderr.contains("loading"), "{}", run.stderr);
    }
    assert_eq!(metadata(&folder), before);
    fs::remove_file(folder.join("robot/base.json")).expect("it is there");
    oneactor(&folder, "tune robot --overwrite --target-image whole.png")
        .exits_with(2)
        .says("robot/base.json");
}

#[test]
fn a_photo_with_transparency_and_a_small_one_are_taken() {
    let folder = folder_with_actor("photo-alpha");
    RgbaImage::from_fn(32, 32, |x, y| {
        Rgba([200, 30, 30, if x > y { 255 } else { 0 }])
    })
    .save(folder.join("cut.png"))
    .expect("the folder is writable");
    oneactor(
        &folder,
        "tune robot --target-image cut.png --max-steps 1 --overwrite",
    )
    .exits_with(0)
    .says("warning: cut.png is small and has to be enlarged 2.0 times");
}
