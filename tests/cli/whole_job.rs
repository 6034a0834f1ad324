//! Good input: the whole job, and the files that it writes.

use std::fs;

use oneactor::io::tensors::TensorFile;
use oneactor::pictures::png::read_png_text;
use serde_json::Value;

use crate::{BASE, folder, folder_with_actor, json, names, oneactor, pixels, program, text};

#[test]
fn generate_base_writes_images_grid_tensors_and_config() {
    let folder = folder("base");
    let run = oneactor(&folder, &format!("{BASE} -o robot --seed 5")).exits_with(0);
    let expected = [
        "robot/base/00.png",
        "robot/base/01.png",
        "robot/base/02.png",
        "robot/base.safetensors",
        "robot/grid.png",
        "robot/base.json",
    ];
    assert_eq!(run.paths(), expected);
    let robot = folder.join("robot");
    assert_eq!(
        names(&robot),
        ["base", "base.json", "base.safetensors", "grid.png"]
    );
    let tensors = TensorFile::read(&robot.join("base.safetensors")).expect("it is readable");
    let shape = |name: &str| tensors.tensors[name].size();
    assert_eq!(shape("latents"), [3, 4, 16, 16]);
    assert_eq!(shape("encoder_features")[0], 3);
    assert_eq!(
        Vec::<i64>::try_from(&tensors.tensors["seeds"]).expect("whole numbers"),
        [5, 6, 7]
    );
    let config = json(&robot.join("base.json"));
    assert_eq!(config["parameters"]["prompt"], "a robot");
    assert_eq!(config["parameters"]["width"], 64, "the model's own size");
    assert_eq!(config["images"][2]["seed"], 7);
    oneactor(&folder, &format!("{BASE} -o robot --seed 5"))
        .exits_with(0)
        .writes_nothing();
}

#[test]
fn tune_writes_an_actor_a_log_and_a_config() {
    let robot = folder_with_actor("tune").join("robot");
    let rows: Vec<Value> = text(&robot.join("tune.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect();
    assert_eq!(rows.len(), 3);
    for key in [
        "loss",
        "loss_target",
        "loss_auxiliary",
        "loss_average",
        "seconds",
    ] {
        assert!(rows[0][key].is_f64(), "{key}");
    }
    assert_eq!(rows[2]["step"], 3);
    assert!(rows[2]["validation"].is_f64());
    let config = json(&robot.join("tune.json"));
    assert_eq!(config["parameters"]["target"], 1);
    assert_eq!(config["parameters"]["lambda_1"], 0.5);
}

#[test]
fn target_auto_names_the_image_it_chose() {
    let folder = folder_with_actor("auto");
    oneactor(&folder, "tune robot --max-steps 1 --overwrite")
        .exits_with(0)
        .says("robot: the target is image ");
}

#[test]
fn sample_writes_pictures_a_grid_and_a_manifest() {
    let folder = folder_with_actor("sample");
    let line = "sample robot -p 'a [b] at the beach' -p '[b] in the snow' --num-images 2 --seed 3 \
                --steps 4 -o out --save-latents";
    oneactor(&folder, line).exits_with(0);
    let out = folder.join("out");
    let rows: Vec<Value> = text(&out.join("manifest.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect();
    let of = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("path"),
        ["0000-3.png", "0001-4.png", "0002-5.png", "0003-6.png"]
    );
    assert_eq!(of("seed"), [3, 4, 5, 6]);
    assert_eq!(rows[0]["prompt"], "a robot at the beach");
    assert_eq!(rows[2]["prompt"], "robot in the snow");
    assert_eq!(rows[0]["eta_1"], 8.5);
    assert_eq!(rows[0]["guided_steps"], "1-4");
    assert!(rows[0]["seconds"].is_f64());
    for row in &rows {
        let name = row["path"].as_str().expect("a path is text");
        let latents = TensorFile::read(&out.join(name).with_extension("safetensors"));
        assert_eq!(
            latents.expect("it is readable").tensors["latents"].size(),
            [1, 4, 16, 16]
        );
    }
    assert!(out.join("grid.png").is_file());
    oneactor(&folder, line)
        .exits_with(0)
        .writes_nothing()
        .says("4 of 4 images are there already");
}

#[test]
fn only_missing_pictures_are_drawn_again_and_they_are_the_same() {
    let folder = folder_with_actor("missing");
    let line = "sample robot -p [b] --num-images 2 --steps 3 -o out";
    oneactor(&folder, line).exits_with(0);
    let picture = folder.join("out/0001-1.png");
    let before = pixels(&picture);
    fs::remove_file(&picture).expect("it is there");
    let run = oneactor(&folder, line).exits_with(0);
    assert_eq!(
        run.paths(),
        ["out/0001-1.png", "out/manifest.jsonl", "out/grid.png"]
    );
    assert_eq!(pixels(&picture), before);
}

#[test]
fn results_of_other_settings_are_refused_and_overwrite_redoes_them() {
    let folder = folder_with_actor("other-settings");
    oneactor(&folder, "sample robot -p [b] --steps 3 -o out").exits_with(0);
    oneactor(&folder, "sample robot -p [b] --steps 2 -o out")
        .exits_with(2)
        .says("out/0000-0.png was drawn with other settings")
        .says("steps: was 3, is now 2");
    oneactor(&folder, "sample robot -p [b] --steps 2 -o out --overwrite").exits_with(0);
    oneactor(&folder, "tune robot --target 0 --max-steps 3")
        .exits_with(2)
        .says("target: was image 1, is now image 0");
    oneactor(&folder, "tune robot --target 0 --max-steps 3 --overwrite").exits_with(0);
    oneactor(&folder, "sample robot -p [b] --steps 2 -o out")
        .exits_with(2)
        .says("actor has changed since");
}

#[test]
fn a_picture_is_drawn_again_from_its_own_metadata() {
    let folder = folder_with_actor("from");
    let line = "sample robot -p 'a [b] at night' --seed 9 --steps 4 --eta-2 0.5 \
                --scheduler ddim -n '' -o out";
    oneactor(&folder, line).exits_with(0);
    oneactor(&folder, "sample --from out/0000-9.png -o again").exits_with(0);
    let picture = folder.join("out/0000-9.png");
    assert_eq!(pixels(&folder.join("again/0000-9.png")), pixels(&picture));
    oneactor(&folder, "sample --from out/0000-9.png --seed 8 -o other").exits_with(0);
    assert_ne!(pixels(&folder.join("other/0000-8.png")), pixels(&picture));

    let texts = read_png_text(&picture).expect("it is a PNG");
    let of = |keyword: &str| {
        &texts
            .iter()
            .find(|(name, _)| name == keyword)
            .expect("it is there")
            .1
    };
    let parameters = of("parameters");
    assert!(parameters.starts_with("a robot at night\nSteps: 4, Sampler: DDIM"));
    assert!(
        parameters.contains("OneActor eta1: 8.0, OneActor eta2: 0.5"),
        "{parameters}"
    );
    let record: Value = serde_json::from_str(of("oneactor")).expect("the chunk is JSON");
    assert_eq!(record["schema"], "oneactor.image/v1");
}

#[test]
fn a_base_image_is_drawn_again_from_its_own_metadata() {
    let folder = folder_with_actor("from-base");
    oneactor(&folder, "sample --from robot/base/02.png -o again").exits_with(0);
    assert_eq!(
        pixels(&folder.join("again/0000-2.png")),
        pixels(&folder.join("robot/base/02.png"))
    );
}

#[test]
fn without_the_actor_the_plain_model_draws() {
    let folder = folder_with_actor("no-actor");
    let line = "sample robot -p 'a robot' --num-images 3 --steps 4 --no-actor -o plain";
    oneactor(&folder, line).exits_with(0);
    for index in 0..3 {
        assert_eq!(
            pixels(&folder.join(format!("plain/000{index}-{index}.png"))),
            pixels(&folder.join(format!("robot/base/0{index}.png"))),
            "the same prompt and seed give the base image"
        );
    }
    oneactor(
        &folder,
        "sample -p 'a cat' --no-actor --model toy --steps 1 -o cat",
    )
    .exits_with(0);
}

#[test]
fn compare_draws_both_and_puts_them_side_by_side() {
    let folder = folder_with_actor("compare");
    let line = "sample robot -p [b] --num-images 2 --steps 3 --compare -o out";
    oneactor(&folder, line).exits_with(0);
    let expected = [
        "0000-0.png",
        "0001-1.png",
        "comparison.png",
        "grid.png",
        "manifest.jsonl",
        "plain",
    ];
    assert_eq!(names(&folder.join("out")), expected);
    assert_eq!(
        names(&folder.join("out/plain")),
        ["0000-0.png", "0001-1.png"]
    );
    assert_eq!(text(&folder.join("out/manifest.jsonl")).lines().count(), 4);
    oneactor(&folder, line).exits_with(0).writes_nothing();
}

#[test]
fn batch_size_does_not_change_the_files() {
    let folder = folder_with_actor("batch-size");
    let line = "sample robot -p [b] --num-images 3 --steps 3 --seed 4";
    oneactor(&folder, &format!("{line} -o one")).exits_with(0);
    oneactor(&folder, &format!("{line} -o two --batch-size 2")).exits_with(0);
    assert_eq!(names(&folder.join("one")), names(&folder.join("two")));
    let (one, two) = (
        pixels(&folder.join("one/0001-5.png")),
        pixels(&folder.join("two/0001-5.png")),
    );
    let largest = one.iter().zip(&two).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(
        largest <= Some(1),
        "the largest difference is {largest:?} of 255"
    );
}

#[test]
fn json_lines_list_the_written_files() {
    let folder = folder_with_actor("json-lines");
    let run = oneactor(
        &folder,
        "sample robot -p [b] --steps 2 -o out --format json",
    )
    .exits_with(0);
    let rows: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    assert_eq!(rows[0]["path"], "out/0000-0.png");
    assert_eq!(rows[0]["kind"], "image");
    assert_eq!(rows[0]["seed"], 0);
    assert_eq!(rows.len(), 3);
}

#[test]
fn a_dry_run_lists_files_and_writes_none() {
    let folder = folder("dry-run");
    let run = oneactor(&folder, &format!("{BASE} -o robot --dry-run")).exits_with(0);
    assert_eq!(run.paths().len(), 6);
    assert_eq!(run.paths()[0], "robot/base/00.png");
    assert!(!folder.join("robot").exists());
}

#[test]
fn quiet_prints_nothing_and_verbose_prints_more() {
    let folder = folder_with_actor("quiet");
    let run = oneactor(&folder, "sample robot -p [b] --steps 2 -o a --quiet").exits_with(0);
    assert_eq!(run.stderr, "");
    oneactor(&folder, "sample robot -p [b] --steps 2 -o b --verbose")
        .exits_with(0)
        .says("settings: {")
        .says("loading unet of toy");
}

#[test]
fn help_version_and_doctor_print_to_stdout() {
    let folder = folder("help");
    for line in [
        "--help",
        "-h",
        "sample --help",
        "tune -h",
        "generate-base --help",
        "sweep --help",
        "ablate --help",
    ] {
        let run = oneactor(&folder, line).exits_with(0);
        assert!(run.stdout.contains("Usage: oneactor"), "{line}");
        assert_eq!(run.stderr, "");
    }
    let run = oneactor(&folder, "--version").exits_with(0);
    assert_eq!(
        run.stdout,
        concat!("oneactor ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let run = oneactor(&folder, "doctor --format json").exits_with(0);
    let report: Value = serde_json::from_str(&run.stdout).expect("the report is JSON");
    for key in [
        "oneactor",
        "libtorch",
        "cuda_linked",
        "gpus",
        "hub_cache",
        "hub_token",
    ] {
        assert!(report[key].is_string(), "{key}");
    }
    let token = program(&folder, ["doctor"])
        .env("HF_TOKEN", "hf_secret")
        .output();
    let shown = token.expect("the program starts").stdout;
    assert!(
        !String::from_utf8_lossy(&shown).contains("hf_secret"),
        "a token is never shown"
    );
}
