//! ControlNets in `sweep`, `ablate` and `story`, control images in JPEG, and ControlNets together
//! with actors, LoRAs and long or weighted prompts.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use oneactor::pictures::png::read_png_text;
use serde_json::{Value, json};

use crate::common::toy_files::{disguised, lora, write_controlnet, write_picture};
use crate::{folder, folder_with_actor, names, oneactor, pixels, text};

fn row(manifest: &Path, number: usize) -> Value {
    let rows = text(manifest);
    let row = rows.lines().nth(number).expect("a row");
    serde_json::from_str(row).expect("a row is JSON")
}

const CONTROL: &str = "--controlnet net:0.7 --control-image box.png --guess-mode --control-end 0.9";

/// A folder with the actor `robot`, a ControlNet and a control image.
fn prepared(name: &str) -> std::path::PathBuf {
    let folder = folder_with_actor(name);
    write_controlnet(&folder, "net", 0.05);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    folder
}

#[test]
fn every_cell_of_a_sweep_is_drawn_under_control_as_sample_draws_it() {
    let folder = prepared("control-sweep");
    let line = format!("sweep robot -p [b] --eta-2 0,1 --steps 3 -o out {CONTROL}");
    let run = oneactor(&folder, &line).exits_with(0);
    let loads = run.stderr.matches("loading the ControlNet").count();
    assert_eq!(loads, 1, "{}", run.stderr);
    for (name, flags) in [("eta-2=0", "--eta-2 0"), ("eta-2=1", "--eta-2 1")] {
        let line = format!("sample robot -p [b] {flags} --steps 3 -o {name} {CONTROL}");
        oneactor(&folder, &line).exits_with(0);
        let cell = pixels(&folder.join(format!("out/{name}_0000-0.png")));
        assert!(
            cell == pixels(&folder.join(name).join("0000-0.png")),
            "{name}"
        );
        let plain = format!("sample robot -p [b] {flags} --steps 3 -o {name}-free");
        oneactor(&folder, &plain).exits_with(0);
        let free = pixels(&folder.join(format!("{name}-free/0000-0.png")));
        assert!(cell != free, "{name} is not controlled");
    }
    let first = row(&folder.join("out/manifest.jsonl"), 0);
    assert_eq!(first["controlnet"], json!(["net:0.7"]));
    assert_eq!(first["guess_mode"], json!(true));
    oneactor(&folder, &line).exits_with(0).writes_nothing();

    // Also with --no-actor, and from a batch file.
    let batch = json!({"jobs": [{
        "no_actor": true, "model": "toy", "prompt": "a robot", "guidance_scale": [3, 7.5], "steps": 2,
        "controlnet": "net", "control_image": "box.png", "output_dir": "batch",
    }]});
    fs::write(folder.join("batch.json"), batch.to_string()).expect("the folder is writable");
    oneactor(&folder, "sweep --config batch.json").exits_with(0);
    let again = "sample --from batch/guidance-scale=3_0000-0.png -o again";
    oneactor(&folder, again).exits_with(0);
    let cell = pixels(&folder.join("batch/guidance-scale=3_0000-0.png"));
    assert!(cell == pixels(&folder.join("again/0000-0.png")));

    write_picture(&folder.join("box.png"), 64, 64, 20);
    oneactor(&folder, &line)
        .exits_with(2)
        .says("control_image has changed since")
        .writes_nothing();
}

#[test]
fn an_ablation_draws_all_columns_under_control_and_tunes_without_it() {
    let folder = prepared("control-ablate");
    let line = format!("ablate robot -p [b] --steps 2 {CONTROL}");
    let run = oneactor(&folder, &line).exits_with(0);
    let loads = run.stderr.matches("loading the ControlNet").count();
    assert_eq!(loads, 1, "{}", run.stderr);
    let ablation = folder.join("robot/ablation");
    for (column, flags) in [("full", ""), ("plain", "--no-actor")] {
        let line = format!("sample robot -p [b] --steps 2 {flags} {CONTROL} -o {column}");
        oneactor(&folder, &line).exits_with(0);
        let cell = pixels(&ablation.join(format!("{column}_0000-0.png")));
        assert!(
            cell == pixels(&folder.join(column).join("0000-0.png")),
            "{column}"
        );
    }
    for number in 0..4 {
        let row = row(&ablation.join("manifest.jsonl"), number);
        assert_eq!(row["controlnet"], json!(["net:0.7"]), "{row}");
    }
    let tuned = text(&ablation.join("without-aver/tune.json"));
    assert!(!tuned.contains("control"), "{tuned}");
    oneactor(&folder, &line).exits_with(0).writes_nothing();
    // The variants are already tuned; without control the pictures differ.
    oneactor(&folder, "ablate robot -p [b] --steps 2")
        .exits_with(2)
        .says("controlnet: was [\"net:0.7\"], is now none")
        .writes_nothing();
}

#[test]
fn sweep_and_ablate_refuse_what_sample_refuses() {
    let folder = prepared("control-elsewhere-bad");
    for (flags, message) in [
        (
            "--controlnet net",
            "found 0 --control-image for 1 --controlnet",
        ),
        (
            "--guess-mode",
            "--guess-mode has no effect without --controlnet",
        ),
        (
            "--controlnet net --control-image none.png",
            "there is no file none.png",
        ),
        (
            "--controlnet net:11 --control-image box.png",
            "the scale: found 11",
        ),
    ] {
        for command in ["sweep robot --eta-2 0,1 -o x", "ablate robot -o x"] {
            let line = format!("{command} -p [b] --steps 2 {flags}");
            let run = oneactor(&folder, &line).exits_with(2).says(message);
            let run = run.writes_nothing();
            assert!(!run.stderr.contains("loading"), "{}", run.stderr);
        }
    }
    assert!(!folder.join("x").exists() && !folder.join("robot/ablation").exists());
}

#[test]
fn a_story_says_that_its_scenes_have_no_controlnets_and_its_base_images_may() {
    let folder = prepared("control-story");
    let story = |drawing: Value, scene: Value| {
        let mut story = json!({
            "title": "Snow", "model": "toy", "drawing": {"steps": 2},
            "characters": {"cat": {
                "prompt": "a cat", "subject": "cat", "controlnet": "net", "control_image": "box.png",
            }},
            "scenes": [{"prompt": "a [cat]"}],
        });
        let mut add = |place: &str, value: &Value| {
            let place = story.pointer_mut(place).and_then(Value::as_object_mut);
            place
                .expect("an object")
                .extend(value.as_object().expect("an object").clone());
        };
        add("/drawing", &drawing);
        add("/scenes/0", &scene);
        fs::write(folder.join("story.json"), story.to_string()).expect("the folder is writable");
        let line = "story story.json -o book --num-images 2 --max-steps 1";
        oneactor(&folder, line)
    };
    let refusal = "scenes of a story cannot use ControlNets. Leave out the key, and draw such a \
                   picture with `oneactor sample`";
    story(json!({"controlnet": "net"}), json!({}))
        .exits_with(2)
        .says("`drawing`: key `controlnet`: ")
        .says(refusal)
        .writes_nothing();
    story(json!({}), json!({"control_image": "box.png"}))
        .exits_with(2)
        .says("scene 1: key `control_image`: ")
        .says(refusal)
        .writes_nothing();
    story(json!({}), json!({})).exits_with(0);
    let base = text(&folder.join("book/characters/cat/base.json"));
    assert!(base.contains("\"net:1\""), "{base}");
    let scene = row(&folder.join("book/manifest.jsonl"), 0);
    assert!(scene.get("controlnet").is_none(), "{scene}");
}

#[test]
fn a_jpeg_is_a_control_image_like_a_png() {
    let folder = folder("control-jpeg");
    write_controlnet(&folder, "net", 0.05);
    let grey = RgbImage::from_pixel(64, 64, Rgb([80; 3]));
    for name in ["grey.jpg", "grey.png"] {
        grey.save(folder.join(name))
            .expect("the folder is writable");
    }
    // The format comes from the content of the file, not from its name.
    fs::rename(folder.join("grey.jpg"), folder.join("photo.png")).expect("it is there");
    let line =
        "sample -p 'a robot' --no-actor --model toy --steps 2 --controlnet net --control-image";
    for (image, out) in [("photo.png", "jpeg"), ("grey.png", "png")] {
        oneactor(&folder, &format!("{line} {image} -o {out}")).exits_with(0);
    }
    let picture = |out: &str| pixels(&folder.join(out).join("0000-0.png"));
    assert!(
        picture("jpeg") == picture("png"),
        "an even grey survives JPEG"
    );
    fs::write(folder.join("broken.jpg"), [0xff, 0xd8, 0xff, 0xe0, 0, 16]).expect("writable");
    oneactor(&folder, &format!("{line} broken.jpg -o x"))
        .exits_with(2)
        .says("--control-image: decoding broken.jpg")
        .writes_nothing();
}

/// Two actors with a ControlNet, a LoRA, and a weighted prompt of several chunks.
#[test]
fn actors_controlnet_lora_and_long_weighted_prompts_are_drawn_at_once() {
    let folder = prepared("control-all");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    lora(&folder.join("style.safetensors"), 0.4);
    let many = "and a tree and a ball ".repeat(12);
    let whole = [
        format!("-p 'a (robot:1.3) {many} beside a (cat:0.8), a robot'"),
        "--long-prompts".to_owned(),
        "--prompt-weights".to_owned(),
        "--controlnet net --control-image box.png".to_owned(),
        "--lora style.safetensors".to_owned(),
        "--steps 3 --guided-steps 1-2".to_owned(),
    ];
    let draw = |flags: &[String], out: &str| {
        let line = format!("sample robot cat --save-masks -o {out} {}", flags.join(" "));
        oneactor(&folder, &line).exits_with(0);
        pixels(&folder.join(out).join("0000-0.png"))
    };
    let picture = draw(&whole, "out");
    let expected = [
        "0000-0-mask-cat.png",
        "0000-0-mask-robot.png",
        "0000-0.png",
        "grid.png",
        "manifest.jsonl",
    ];
    assert_eq!(names(&folder.join("out")), expected);
    oneactor(&folder, "sample --from out/0000-0.png -o again").exits_with(0);
    assert!(pixels(&folder.join("again/0000-0.png")) == picture);
    let records = read_png_text(&folder.join("out/0000-0.png")).expect("it is a PNG");
    for part in ["lora_crc32", "control_image_crc32", "actor_crc32"] {
        assert!(records[1].1.contains(part), "{}", records[1].1);
    }
    // Each of these flags changes the picture. (Without --long-prompts the prompt is cut before the
    // cat, and is refused.)
    for left_out in [2, 3, 4] {
        let mut flags = whole.to_vec();
        let flag = flags.remove(left_out);
        let other = draw(&flags, &format!("without{left_out}"));
        assert!(other != picture, "{flag} changes nothing");
    }
    let mut flags = whole.to_vec();
    flags.remove(1);
    let line = format!("sample robot cat -o x {}", flags.join(" "));
    oneactor(&folder, &line).exits_with(2).says("cat");
}
