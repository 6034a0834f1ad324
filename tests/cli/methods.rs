//! The baselines by `tune --method` and `sample --method`, from the command line and batch files.

use std::fs;

use oneactor::io::tensors::TensorFile;
use oneactor::method::base_set::BaseSet;
use serde_json::{Value, json as value};
use tch::Tensor;

use crate::{folder, folder_with_actor, json, names, oneactor, pixels, text};

const TUNED: [&str; 2] = ["textual-inversion", "dreambooth-lora"];

#[test]
fn a_baseline_is_tuned_beside_the_actor_and_draws() {
    let folder = folder_with_actor("methods");
    let robot = folder.join("robot");
    let before = names(&robot);
    let plain = "sample -p 'a robot reading' --no-actor --model toy --steps 2 -o plain";
    oneactor(&folder, plain).exits_with(0);
    for method in TUNED {
        let tune = format!("tune robot --method {method} --target 1 --max-steps 3");
        let planned = oneactor(&folder, &format!("{tune} --dry-run")).exits_with(0);
        let files = ["jsonl", "safetensors", "json"].map(|end| format!("robot/{method}.{end}"));
        assert_eq!(planned.paths(), files);
        let run = oneactor(&folder, &tune)
            .exits_with(0)
            .says("stopped at --max-steps 3 before converging");
        assert_eq!(run.paths(), files);
        let config = json(&robot.join(format!("{method}.json")));
        assert_eq!(config["parameters"]["method"], method);
        assert_eq!(config["parameters"]["lambda_1"], Value::Null);
        assert_eq!(config["result"]["steps"], 3);
        let log = text(&robot.join(format!("{method}.jsonl")));
        let rows: Vec<Value> = log
            .lines()
            .map(|row| serde_json::from_str(row).expect("a row is JSON"))
            .collect();
        let is_numbered = |(i, row): (usize, &Value)| row["step"] == i + 1;
        assert!(
            rows.len() == 3 && rows.iter().enumerate().all(is_numbered),
            "{log}"
        );
        assert_eq!(
            rows[0]["loss_prior"].is_number(),
            method == "dreambooth-lora"
        );

        oneactor(&folder, &tune).exits_with(0).writes_nothing();
        oneactor(&folder, &format!("{tune} --learning-rate 0.1"))
            .exits_with(2)
            .says(&format!(
                "robot/{method}.safetensors was tuned with other settings"
            ));

        let sample =
            format!("sample robot --method {method} -p '[b] reading' --steps 2 -o {method}");
        // `[b]` is replaced by the base word alone.
        let sample = sample.replace("[b]", "a [b]");
        oneactor(&folder, &sample).exits_with(0);
        oneactor(&folder, &sample).exits_with(0).writes_nothing();
        let picture = folder.join(method).join("0000-0.png");
        assert_ne!(pixels(&picture), pixels(&folder.join("plain/0000-0.png")));
        let row = text(&folder.join(method).join("manifest.jsonl"));
        let row: Value = serde_json::from_str(&row).expect("one row");
        assert_eq!(row["method"], method);
        // The row has the prompt as the user wrote it, and no LoRA, because the user named none.
        assert_eq!(
            (&row["prompt"], &row["lora"]),
            (&value!("a robot reading"), &Value::Null)
        );
        let again = format!("sample --from {method}/0000-0.png -o again-{method}");
        oneactor(&folder, &again).exits_with(0);
        assert_eq!(
            pixels(&folder.join(format!("again-{method}/0000-0.png"))),
            pixels(&picture)
        );
    }
    let kept = names(&robot);
    assert!(before.iter().all(|name| kept.contains(name)), "{kept:?}");
    // For each method: result, log, settings, and a checkpoint of two files.
    assert_eq!(kept.len(), before.len() + 2 * 5, "{kept:?}");
}

#[test]
fn dreambooths_file_is_a_lora_for_prompts_with_the_identifier() {
    let folder = folder_with_actor("dreambooth-as-lora");
    let tune = "tune robot --method dreambooth-lora --max-steps 3 --learning-rate 0.01";
    oneactor(&folder, tune).exits_with(0);
    let sample =
        "sample robot --method dreambooth-lora -p 'a Robot and a robot' --steps 2 -o method";
    oneactor(&folder, sample).exits_with(0);
    let plain = "sample --no-actor --model toy --steps 2 -p 'a sks Robot and a sks robot'";
    let lora = "--lora robot/dreambooth-lora.safetensors -o lora";
    oneactor(&folder, &format!("{plain} {lora}")).exits_with(0);
    oneactor(&folder, &format!("{plain} -o plain")).exits_with(0);
    let picture = |place: &str| pixels(&folder.join(place).join("0000-0.png"));
    assert_eq!(picture("method"), picture("lora"));
    assert_ne!(picture("method"), picture("plain"));
}

#[test]
fn jobs_of_one_batch_do_not_change_each_others_model() {
    let folder = folder_with_actor("method-batch");
    let batch = r#"{"defaults": {"dir": "robot", "max_steps": 2, "learning_rate": 0.01}, "jobs": [
        {"method": "dreambooth-lora"}, {"method": "textual-inversion", "dir": "other"}]}"#;
    fs::write(folder.join("tune.json"), batch).expect("the folder is writable");
    crate::copy(&folder.join("robot"), &folder.join("other"));
    oneactor(&folder, "tune --config tune.json").exits_with(0);
    let alone = "tune robot --method textual-inversion --max-steps 2 --learning-rate 0.01";
    oneactor(&folder, alone).exits_with(0);
    let vectors = |place: &str| {
        let path = folder.join(place).join("textual-inversion.safetensors");
        TensorFile::read(&path).expect("a whole file").tensors
    };
    assert_eq!(vectors("robot"), vectors("other"));

    let batch = r#"{"defaults": {"prompt": "a robot", "steps": 2, "actors": "robot"}, "jobs": [
        {"method": "dreambooth-lora", "output_dir": "a"}, {"no_actor": true, "output_dir": "b"},
        {"method": "textual-inversion", "output_dir": "c"}]}"#;
    fs::write(folder.join("sample.json"), batch).expect("the folder is writable");
    oneactor(&folder, "sample --config sample.json").exits_with(0);
    let plain = "sample robot -p 'a robot' --no-actor --steps 2 -o plain";
    oneactor(&folder, plain).exits_with(0);
    let picture = |place: &str| pixels(&folder.join(place).join("0000-0.png"));
    assert_eq!(picture("b"), picture("plain"));
    assert!(picture("a") != picture("b") && picture("c") != picture("b"));
}

#[test]
fn settings_that_a_baseline_lacks_are_refused_by_name() {
    let folder = folder_with_actor("method-refusals");
    for (flags, message) in [
        (
            "--num-auxiliary 2",
            "--num-auxiliary is only for --method oneactor",
        ),
        ("--lambda-1 0.5", "--lambda-1 is only for --method oneactor"),
        (
            "--without-aver",
            "--without-aver is only for --method oneactor",
        ),
        ("--preset release", "--preset is only for --method oneactor"),
        ("--crop subject", "--crop is only for --method oneactor"),
    ] {
        for method in TUNED {
            oneactor(&folder, &format!("tune robot --method {method} {flags}"))
                .exits_with(2)
                .says(&format!("{message}: leave it out with --method {method}"))
                .writes_nothing();
        }
    }
    for (line, message) in [
        (
            "tune robot --method textual-inversion --cpu-offload",
            "--cpu-offload cannot be used with --method textual-inversion",
        ),
        (
            "tune robot --method ip-adapter",
            "--method ip-adapter needs no tuning",
        ),
        (
            "sample robot --method textual-inversion -p [b]",
            "there is no robot/textual-inversion.safetensors: run `oneactor tune robot --method textual-inversion` first",
        ),
        (
            "sample robot/base.safetensors --method dreambooth-lora -p [b]",
            "found oneactor.base/v1, expected oneactor.dreambooth-lora/v1",
        ),
        (
            "sample robot/actor.safetensors --method textual-inversion -p [b] -o x",
            "found oneactor.actor/v1, expected oneactor.textual-inversion/v1",
        ),
        (
            "sample robot --method dreambooth-lora --compare -p [b]",
            "--compare cannot be used with --method dreambooth-lora",
        ),
    ] {
        oneactor(&folder, line)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    let pair = "generate-base --model toy --num-images 2 --steps 2 -o pair --subject cat --subject frog -p 'a cat and a frog'";
    oneactor(&folder, pair).exits_with(0);
    for method in TUNED {
        oneactor(&folder, &format!("tune pair --method {method}"))
            .exits_with(2)
            .says("shows 2 subjects (cat, frog), expected one base word");
    }
}

#[test]
fn a_photo_can_be_the_target_of_a_baseline() {
    let folder = folder_with_actor("method-photo");
    for method in TUNED {
        let tune = format!("tune robot --max-steps 1 --method {method}");
        let photo = "--target-image robot/base/00.png";
        oneactor(&folder, &format!("{tune} {photo}")).exits_with(0);
        let file = TensorFile::read(&folder.join(format!("robot/{method}.safetensors")));
        let metadata = file.expect("a whole file").metadata;
        assert_eq!(metadata["target_image"], "00.png");
        assert_eq!(metadata["base_word"], "robot");
    }
}

#[test]
fn a_cut_base_prompt_of_a_baseline_is_reported() {
    let folder = folder("method-long-prompt");
    let end = ", very tall".repeat(40);
    let base = "generate-base --model toy --subject robot --num-images 2 --steps 1 --long-prompts -o robot -p";
    oneactor(&folder, &format!("{base} 'a robot{end}'")).exits_with(0);
    let told = "uses the prompt of the base images, but only its first";
    for (line, whose) in [
        (
            "tune robot --method dreambooth-lora",
            "the prior of --method dreambooth-lora",
        ),
        (
            "sample robot --method consistory -p 'a robot' -o out",
            "each anchor of --method consistory",
        ),
    ] {
        oneactor(&folder, &format!("{line} --dry-run"))
            .exits_with(0)
            .says(&format!("{whose} {told}"))
            .says("very tall, very tall");
    }
}

#[test]
fn dreambooth_without_a_prior_is_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("method-one-image");
    let path = folder.join("robot/base.safetensors");
    let base = BaseSet::read(&path).expect("a base set");
    let first = |all: &Tensor| all.narrow(0, 0, 1).copy();
    let one = BaseSet {
        latents: first(&base.latents),
        encoder_features: first(&base.encoder_features),
        seeds: vec![base.seeds[0]],
        facts: base.facts,
    };
    fs::write(&path, one.to_bytes().expect("it is whole")).expect("the folder is writable");
    let tune = "tune robot --target 0 --max-steps 1 --method";
    let refused = oneactor(&folder, &format!("{tune} dreambooth-lora")).exits_with(2);
    assert!(!refused.stderr.contains("loading"), "{}", refused.stderr);
    refused
        .says("robot holds 1 base image, expected at least 2")
        .writes_nothing();
}
