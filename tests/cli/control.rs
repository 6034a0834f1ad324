//! Drawing with ControlNets.

use std::fs;
use std::path::Path;

use oneactor::pictures::png::read_png_text;
use serde_json::{Value, json};

use crate::common::toy_files::{write_controlnet, write_picture};
use crate::{folder, folder_with_actor, json as read_json, names, oneactor, pixels, text};

const PLAIN: &str = "sample -p 'a robot' --no-actor --model toy --steps 3";

fn picture_of(folder: &Path, line: &str, out: &str) -> Vec<u8> {
    oneactor(folder, &format!("{line} -o {out}")).exits_with(0);
    pixels(&folder.join(out).join("0000-0.png"))
}

#[test]
fn an_untrained_controlnet_changes_no_bit_of_the_picture() {
    let folder = folder_with_actor("control-zero");
    write_controlnet(&folder, "zero", 0.0);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    let with = "--controlnet zero --control-image box.png";
    for (line, name) in [
        (PLAIN, "plain"),
        ("sample robot -p [b] --steps 3", "guided"),
    ] {
        let expected = picture_of(&folder, line, name);
        for (i, more) in ["", "--guess-mode", "--control-preprocess canny"]
            .iter()
            .enumerate()
        {
            let found = picture_of(
                &folder,
                &format!("{line} {with} {more}"),
                &format!("{name}{i}"),
            );
            assert!(found == expected, "{name} {more}");
        }
    }
}

#[test]
fn scale_image_mode_window_and_preprocessing_all_change_the_picture() {
    let folder = folder("control-counts");
    write_controlnet(&folder, "net", 0.05);
    write_controlnet(&folder, "other", 0.03);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    write_picture(&folder.join("right.png"), 64, 64, 40);
    let plain = picture_of(&folder, PLAIN, "plain");
    let lines = [
        "--controlnet net --control-image box.png",
        "--controlnet net:0.5 --control-image box.png",
        "--controlnet net --control-image right.png",
        "--controlnet net --control-image box.png --guess-mode",
        "--controlnet net --control-image box.png --control-end 0.5",
        "--controlnet net --control-image box.png --control-start 0.3",
        "--controlnet net --control-image box.png --control-preprocess canny",
        "--controlnet net --control-image box.png --controlnet other --control-image right.png",
    ];
    let mut seen = vec![plain.clone()];
    for (i, line) in lines.iter().enumerate() {
        let found = picture_of(&folder, &format!("{PLAIN} {line}"), &format!("out{i}"));
        assert!(
            !seen.contains(&found),
            "{line} gives a picture that was seen before"
        );
        seen.push(found);
    }
    for (name, line) in [
        ("scale", "--controlnet net:0 --control-image box.png"),
        (
            "window",
            "--controlnet net --control-image box.png --control-end 0.3",
        ),
    ] {
        let found = picture_of(&folder, &format!("{PLAIN} {line}"), name);
        assert!(found == plain, "{line} changes the picture");
    }
}

#[test]
fn a_controlled_picture_is_drawn_again_from_its_own_metadata() {
    let folder = folder_with_actor("control-from");
    write_controlnet(&folder, "net", 0.05);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    let line = "sample robot -p [b] --steps 3 --compare --controlnet net:0.7 --control-image box.png \
                --control-preprocess canny --canny-low 50 --guess-mode --control-end 0.9";
    let first = picture_of(&folder, line, "out");
    oneactor(&folder, "sample --from out/0000-0.png -o again").exits_with(0);
    assert!(pixels(&folder.join("again/0000-0.png")) == first);
    // The picture of the plain model beside the first is controlled in the same way.
    oneactor(&folder, "sample --from out/plain/0000-0.png -o plain").exits_with(0);
    let plain = pixels(&folder.join("out/plain/0000-0.png"));
    assert!(pixels(&folder.join("plain/0000-0.png")) == plain);

    let row: Value = serde_json::from_str(
        text(&folder.join("out/manifest.jsonl"))
            .lines()
            .next()
            .expect("a row"),
    )
    .expect("a row is JSON");
    assert_eq!(row["controlnet"], json!(["net:0.7"]));
    assert_eq!(row["control_image"], json!(["box.png"]));
    assert_eq!(row["control_preprocess"], json!(["canny"]));
    assert_eq!(
        (&row["canny_low"], &row["canny_high"]),
        (&json!(50.0), &json!(200.0))
    );
    assert_eq!(
        (&row["guess_mode"], &row["control_end"]),
        (&json!(true), &json!(0.9))
    );
    let texts = read_png_text(&folder.join("out/0000-0.png")).expect("it is a PNG");
    assert!(
        texts[0].1.contains("OneActor ControlNet: \"net:0.7\""),
        "{}",
        texts[0].1
    );

    oneactor(&folder, &format!("{line} -o out"))
        .exits_with(0)
        .writes_nothing();
    write_picture(&folder.join("box.png"), 64, 64, 9);
    oneactor(&folder, &format!("{line} -o out"))
        .exits_with(2)
        .says("control_image has changed since");
    oneactor(
        &folder,
        &format!("{} -o out", line.replace("net:0.7", "net:0.6")),
    )
    .exits_with(2)
    .says("controlnet: was [\"net:0.7\"], is now [\"net:0.6\"]");
}

#[test]
fn base_images_are_drawn_under_control_too() {
    let folder = folder("control-base");
    write_controlnet(&folder, "net", 0.05);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    let line = "generate-base --model toy -p 'a robot' --subject robot --num-images 2 --steps 3 \
                --controlnet net --control-image box.png -o robot";
    oneactor(&folder, line)
        .exits_with(0)
        .says("loading the ControlNet net");
    let config = read_json(&folder.join("robot/base.json"));
    assert_eq!(config["parameters"]["controlnet"], json!(["net:1"]));
    assert!(config["sources"]["control_image_crc32"][0].is_string());
    oneactor(&folder, "sample --from robot/base/01.png -o again").exits_with(0);
    let base = pixels(&folder.join("robot/base/01.png"));
    assert!(pixels(&folder.join("again/0000-1.png")) == base);
    oneactor(&folder, line).exits_with(0).writes_nothing();
    write_picture(&folder.join("box.png"), 64, 64, 20);
    oneactor(&folder, line)
        .exits_with(2)
        .says("control_image has changed since");
    oneactor(&folder, "tune robot --target 0 --max-steps 1").exits_with(0);
}

#[test]
fn a_batch_loads_each_controlnet_once_and_takes_one_or_many() {
    let folder = folder("control-batch");
    write_controlnet(&folder, "net", 0.05);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    let batch = json!({
        "defaults": {"model": "toy", "no_actor": true, "prompt": "a robot", "steps": 2},
        "jobs": [
            {"output_dir": "a", "controlnet": "net", "control_image": "box.png"},
            {"output_dir": "b", "controlnet": ["net:0.5"], "control_image": ["box.png"], "guess_mode": true},
            {"output_dir": "c", "controlnet": ["net", "net"], "control_image": "box.png"},
        ],
    });
    fs::write(folder.join("batch.json"), batch.to_string()).expect("the folder is writable");
    let run = oneactor(&folder, "sample --config batch.json")
        .exits_with(5)
        .says("job 3 of batch.json: found 1 --control-image for 2 --controlnet");
    assert_eq!(
        run.stderr.matches("loading the ControlNet").count(),
        1,
        "{}",
        run.stderr
    );
    assert!(pixels(&folder.join("a/0000-0.png")) != pixels(&folder.join("b/0000-0.png")));
}

#[test]
fn a_control_image_of_another_size_is_resized_and_another_shape_is_reported() {
    let folder = folder("control-size");
    write_controlnet(&folder, "net", 0.05);
    write_picture(&folder.join("large.png"), 128, 128, 16);
    write_picture(&folder.join("wide.png"), 128, 64, 16);
    let line = format!("{PLAIN} --controlnet net --control-image");
    let run = oneactor(&folder, &format!("{line} large.png -o a")).exits_with(0);
    assert!(!run.stderr.contains("stretched"), "{}", run.stderr);
    oneactor(&folder, &format!("{line} wide.png -o b"))
        .exits_with(0)
        .says("wide.png is 128 x 64 and will be stretched to 64 x 64");
    let run = oneactor(&folder, &format!("{line} wide.png -W 128 -H 64 -o c")).exits_with(0);
    assert!(!run.stderr.contains("stretched"), "{}", run.stderr);
}

#[test]
fn controlnets_that_cannot_be_used_are_refused_before_the_model_is_loaded() {
    let folder = folder("control-refusals");
    write_controlnet(&folder, "net", 0.0);
    write_picture(&folder.join("box.png"), 64, 64, 8);
    fs::write(folder.join("text.png"), "hello").expect("the folder is writable");
    let config = read_json(&folder.join("net/config.json"));
    let changed = |name: &str, key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        fs::create_dir_all(folder.join(name)).expect("the folder is writable");
        fs::write(folder.join(name).join("config.json"), config.to_string())
            .expect("the folder is writable");
    };
    changed("union", "num_control_type", json!(8));
    changed("bgr", "controlnet_conditioning_channel_order", json!("bgr"));
    changed("wide", "cross_attention_dim", json!(768));
    changed("plain", "addition_embed_type", Value::Null);
    changed(
        "eight",
        "conditioning_embedding_out_channels",
        json!([8, 12, 16, 20]),
    );
    changed("flux", "_class_name", json!("FluxControlNetModel"));
    let image = "--control-image box.png";
    let cases = [
        (
            2,
            "--control-image box.png".to_owned(),
            "--control-image has no effect without --controlnet",
        ),
        (
            2,
            "--controlnet net".to_owned(),
            "found 0 --control-image for 1 --controlnet",
        ),
        (
            2,
            "--controlnet net --control-image none.png".to_owned(),
            "there is no file none.png",
        ),
        (
            2,
            "--controlnet net --control-image text.png".to_owned(),
            "text.png is not a picture of a known kind, expected a PNG or JPEG",
        ),
        (
            2,
            format!("--controlnet net:11 {image}"),
            "the scale: found 11, expected a number from 0 to 10",
        ),
        (
            2,
            format!("--controlnet net {image} --canny-low 3"),
            "--canny-low has no effect without",
        ),
        (
            2,
            format!("--controlnet net {image} --control-preprocess depth"),
            "'depth'",
        ),
        (
            3,
            format!("--controlnet nowhere {image}"),
            "`nowhere` is not a folder here",
        ),
        (
            3,
            format!("--controlnet toy {image}"),
            "no file config.json in the toy model",
        ),
        (
            3,
            format!("--controlnet union {image}"),
            "a union of several kinds of control",
        ),
        (
            3,
            format!("--controlnet bgr {image}"),
            "found \"bgr\", expected \"rgb\"",
        ),
        (
            3,
            format!("--controlnet flux {image}"),
            "found \"FluxControlNetModel\", expected ControlNetModel",
        ),
        (
            2,
            format!("--controlnet wide {image}"),
            "the ControlNet wide does not fit the model toy: cross_attention_dim is 768 in the ControlNet and 192 in the model",
        ),
        (
            2,
            format!("--controlnet plain {image}"),
            "addition_embed_type is none in the ControlNet and text_time in the model",
        ),
        (
            2,
            format!("--controlnet eight {image}"),
            "pixels to a latent is 8 in the ControlNet and 4 in the model",
        ),
    ];
    for (code, flags, message) in cases {
        let run = oneactor(&folder, &format!("{PLAIN} -o x {flags}"))
            .exits_with(code)
            .says(message)
            .writes_nothing();
        assert!(!run.stderr.contains("loading"), "{}", run.stderr);
    }
    changed("empty", "freq_shift", json!(0));
    oneactor(&folder, &format!("{PLAIN} -o x --controlnet empty {image}"))
        .exits_with(3)
        .says("empty has no weights of the network: found config.json");
    assert!(!names(&folder).contains(&"x".to_owned()));
}
