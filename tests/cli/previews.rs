//! `--preview-every`: unfinished pictures are written to a sheet, and nothing else changes.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::{folder_with_actor, names, oneactor, program};

#[test]
fn previews_change_no_picture_and_are_removed() {
    let folder = folder_with_actor("previews");
    let sample = "sample robot -p 'a robot' -p 'a robot at night' --num-images 2 --batch-size 3 --steps 4 --compare";
    oneactor(&folder, &format!("{sample} -o plain")).exits_with(0);
    let run = oneactor(&folder, &format!("{sample} -o shown --preview-every 1")).exits_with(0);
    assert!(!run.stdout.contains("preview"), "{}", run.stdout);
    let sweep = "sweep robot -p 'a robot' --eta-2 0,1 --steps 2";
    oneactor(&folder, &format!("{sweep} -o sweep")).exits_with(0);
    oneactor(
        &folder,
        &format!("{sweep} -o sweep-shown --preview-every 1"),
    )
    .exits_with(0);
    let base = "generate-base --model toy -p 'a robot' --subject robot --num-images 3 --steps 4";
    oneactor(&folder, &format!("{base} -o shown-base --preview-every 2")).exits_with(0);
    for (a, b) in [
        ("plain", "shown"),
        ("plain/plain", "shown/plain"),
        ("sweep", "sweep-shown"),
        ("robot/base", "shown-base/base"),
    ] {
        let [a, b] = [a, b].map(|name| folder.join(name));
        assert_eq!(names(&a), names(&b));
        for name in names(&a).iter().filter(|name| name.ends_with(".png")) {
            let [a, b] = [&a, &b].map(|folder| fs::read(folder.join(name)).expect("it is there"));
            assert!(a == b, "{name}");
        }
    }
    let expected = ["base", "base.json", "base.safetensors", "grid.png"];
    assert_eq!(names(&folder.join("shown-base")), expected);
    // Finished pictures are found again, with or without --preview-every.
    oneactor(&folder, &format!("{sample} -o plain --preview-every 2"))
        .exits_with(0)
        .says("8 of 8 images are there already")
        .writes_nothing();
    oneactor(&folder, &format!("{sample} -o other --preview-every 0"))
        .exits_with(2)
        .says("--preview-every: found 0, expected a whole number from 1 to 1000");
}

#[test]
fn while_pictures_are_drawn_a_sheet_shows_them_whole_at_any_time() {
    let folder = folder_with_actor("previews-live");
    let start = |line: &str| {
        program(&folder, line.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts")
    };
    let [killed, preview] =
        ["killed", "out"].map(|out| folder.join(out).join("preview-1-of-2.png"));
    let line = "sample robot -p robot --num-images 4 --preview-every 1 --shard 1/2";
    let mut child = start(&format!("{line} --steps 999 -o killed"));
    while !killed.is_file() && child.try_wait().expect("it is ours").is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    fs::create_dir(folder.join("out")).expect("the folder is writable");
    fs::copy(&killed, &preview).expect("the killed run has left it");
    let left = fs::read(&preview).expect("it is there");
    let mut child = start(&format!("{line} --steps 30 -o out"));
    let mut seen = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
        match fs::read(&preview) {
            Ok(bytes) if bytes != left => {
                let sheet =
                    image::load_from_memory(&bytes).expect("a preview is whole at any time");
                let sheet = sheet.into_rgb8();
                // Two cells of 16 x 16 latents, each enlarged to 160 pixels, with a gap of 8.
                assert_eq!(sheet.dimensions(), (328, 160));
                if seen.last() != Some(&sheet) {
                    seen.push(sheet);
                }
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success());
    assert!(seen.len() > 2, "found {} states of the sheet", seen.len());
    assert!(!preview.exists());
    // The first state shows one picture, the last state both.
    let is_white = |sheet: &image::RgbImage| sheet.get_pixel(300, 100).0 == [255, 255, 255];
    assert!(is_white(&seen[0]) && !is_white(&seen[seen.len() - 1]));
}

#[test]
fn a_file_that_the_program_did_not_write_is_left_unchanged() {
    let folder = folder_with_actor("previews-foreign");
    for (line, out) in [
        ("sample robot -p robot --steps 2 -o out", "out"),
        (
            "generate-base --model toy -p robot --subject robot --num-images 2 --steps 2 -o base",
            "base",
        ),
    ] {
        fs::create_dir(folder.join(out)).expect("the folder is writable");
        let path = folder.join(out).join("preview.png");
        image::RgbImage::new(8, 8)
            .save(&path)
            .expect("the folder is writable");
        let foreign = fs::read(&path).expect("it is there");
        oneactor(&folder, &format!("{line} --preview-every 1"))
            .exits_with(0)
            .says("preview.png is no preview of this program");
        assert!(fs::read(&path).is_ok_and(|there| there == foreign));
    }
}
