//! `--lora` and `--model FILE.safetensors`, used from the command line and batch files.

use std::fs;

use oneactor::io::tensors::TensorFile;
use serde_json::{Value, json as value};
use tch::{Device, Kind, Tensor};

use crate::common::toy_files::lora;
use crate::{BASE, folder, folder_with_actor, json, oneactor, pixels, text};

#[test]
fn a_lora_changes_the_picture_and_is_recorded_everywhere() {
    let folder = folder("lora");
    lora(&folder.join("style.safetensors"), 0.5);
    oneactor(&folder, &format!("{BASE} -o plain")).exits_with(0);
    oneactor(
        &folder,
        &format!("{BASE} -o robot --lora style.safetensors:0.5"),
    )
    .exits_with(0);
    let picture = |place: &str| pixels(&folder.join(place));
    assert_ne!(picture("plain/base/00.png"), picture("robot/base/00.png"));
    let base = json(&folder.join("robot/base.json"));
    let bytes = fs::read(folder.join("style.safetensors")).expect("it is there");
    let sum = format!("{:08x}", crc32fast::hash(&bytes));
    let wanted = value!(["style.safetensors:0.5"]);
    assert_eq!(base["parameters"]["lora"], wanted);
    assert_eq!(base["parameters"]["lora_crc32"], sum.as_str());
    let plain = json(&folder.join("plain/base.json"));
    assert_eq!(base["model_fingerprint"], plain["model_fingerprint"]);

    let with = "--lora style.safetensors:0.5";
    let run = oneactor(
        &folder,
        &format!("tune robot --target 1 --max-steps 1 {with}"),
    );
    assert!(!run.exits_with(0).stderr.contains("warning"));
    assert_eq!(
        json(&folder.join("robot/tune.json"))["parameters"]["lora"],
        wanted
    );
    let line = format!("sample robot -p [b] --steps 2 -o out --compare {with}");
    let run = oneactor(&folder, &line).exits_with(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    for row in text(&folder.join("out/manifest.jsonl")).lines() {
        let row: Value = serde_json::from_str(row).expect("a row is JSON");
        assert_eq!((&row["lora"], &row["lora_crc32"]), (&wanted, &value!(sum)));
    }
    oneactor(&folder, &line).exits_with(0).writes_nothing();
    oneactor(&folder, "sample --from out/0000-0.png -o again").exits_with(0);
    assert_eq!(picture("again/0000-0.png"), picture("out/0000-0.png"));

    // An ablation uses the LoRAs of the actor's tuning.
    let run = oneactor(&folder, "ablate robot -p [b] --steps 2").exits_with(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert_eq!(
        picture("robot/ablation/full_0000-0.png"),
        picture("out/0000-0.png")
    );
    let variant = json(&folder.join("robot/ablation/without-aver/tune.json"));
    assert_eq!(variant["parameters"]["lora"], wanted);

    // A LoRA of the same file name with other content: the picture is not taken as finished.
    lora(&folder.join("style.safetensors"), 0.6);
    let run = oneactor(&folder, &line).exits_with(2);
    run.says("lora has changed since")
        .says("warning: the actor");
    let plain = "sample -p 'a robot' --no-actor --model toy --steps 2 -o out";
    let plain = format!("{plain}/plain {with}");
    oneactor(&folder, &plain)
        .exits_with(2)
        .says("lora has changed since");
}

#[test]
fn loras_that_differ_from_those_of_the_actor_are_reported_and_allowed() {
    let folder = folder_with_actor("other-loras");
    lora(&folder.join("style.safetensors"), 0.3);
    let line = "sample robot -p [b] --steps 2 -o out --lora style.safetensors";
    oneactor(&folder, line)
        .exits_with(0)
        .says("warning: the actor robot/actor.safetensors was made with no LoRA")
        .says("but this run uses LoRA style.safetensors at 1 (");
    let line = "tune robot --max-steps 1 --overwrite --lora style.safetensors:-1";
    oneactor(&folder, line)
        .exits_with(0)
        .says("warning: the base set robot/base.safetensors was made with no LoRA");
    // The actor records the LoRAs of its tuning, not those of its base images.
    let line = "sample robot -p [b] --steps 2 -o tuned --lora style.safetensors:-1";
    let run = oneactor(&folder, line).exits_with(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

#[test]
fn loras_stand_in_a_batch_file_as_one_text_or_a_list() {
    let folder = folder_with_actor("lora-batch");
    lora(&folder.join("a.safetensors"), 0.3);
    lora(&folder.join("b.safetensors"), 0.4);
    let batch = r#"{"defaults": {"actors": "robot", "prompt": "[b]", "steps": 1}, "jobs": [
        {"output_dir": "one", "lora": "a.safetensors:2"},
        {"output_dir": "two", "lora": ["a.safetensors", "b.safetensors:-0.5"]}]}"#;
    fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
    oneactor(&folder, "sample --config batch.json").exits_with(0);
    let lora_of = |place: &str| {
        let row = text(&folder.join(place).join("manifest.jsonl"));
        serde_json::from_str::<Value>(&row).expect("one row")["lora"].clone()
    };
    assert_eq!(lora_of("one"), value!(["a.safetensors:2"]));
    let both = value!(["a.safetensors:1", "b.safetensors:-0.5"]);
    assert_eq!(lora_of("two"), both);
}

#[test]
fn loras_that_cannot_be_used_are_refused() {
    let folder = folder_with_actor("bad-loras");
    lora(&folder.join("good.safetensors"), 0.3);
    fs::write(folder.join("text.safetensors"), "hello").expect("the folder is writable");
    fs::write(folder.join("style.ckpt"), "hello").expect("the folder is writable");
    let mut other = TensorFile::default();
    for (key, shape) in [("lora_A", [2, 9]), ("lora_B", [9, 2])] {
        let zeros = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        other.insert(&format!("unet.nowhere.to_q.{key}.weight"), &zeros);
    }
    fs::write(
        folder.join("other.safetensors"),
        other.to_bytes().expect("floats"),
    )
    .expect("the folder is writable");
    for (flag, code, message) in [
        (
            "none.safetensors",
            2,
            "there is no file none.safetensors: expected FILE.safetensors or",
        ),
        (
            "good.safetensors:much",
            2,
            "found the scale \"much\" after good.safetensors",
        ),
        (
            "good.safetensors:11",
            2,
            "found 11, expected a number from -10 to 10",
        ),
        (
            "text.safetensors",
            2,
            "text.safetensors: not a whole safetensors file (found 5 bytes): copy or download it again",
        ),
        (
            "robot/grid.png",
            2,
            "LoRA robot/grid.png: not a safetensors file (found a PNG picture): check the path, or download the file again",
        ),
        (
            "robot/actor.safetensors",
            2,
            "found an actor of this program, expected a LoRA: give the file as an actor instead",
        ),
        ("style.ckpt", 2, "LoRA: style.ckpt is pickled: refused"),
        (
            "robot/base.safetensors",
            2,
            "robot/base.safetensors: found none of a LoRA's tensors (lora_down and lora_up, or lora_A and lora_B) among its 3 tensors",
        ),
        (
            "other.safetensors",
            3,
            "other.safetensors: unet.nowhere.to_q.lora_A.weight: the model has no such layer",
        ),
    ] {
        let line = format!("sample robot -p [b] --steps 1 -o x --lora {flag}");
        oneactor(&folder, &line)
            .exits_with(code)
            .says(message)
            .writes_nothing();
    }
    assert!(!folder.join("x").exists());
}

#[test]
fn files_that_are_not_checkpoints_are_refused_as_models() {
    let folder = folder("bad-single-files");
    lora(&folder.join("style.safetensors"), 0.3);
    fs::write(folder.join("text.safetensors"), "hello").expect("the folder is writable");
    fs::write(folder.join("model.ckpt"), "hello").expect("the folder is writable");
    for (model, message) in [
        (
            "style.safetensors",
            "this is a LoRA, expected a whole checkpoint",
        ),
        (
            "text.safetensors",
            "text.safetensors: not a whole safetensors file",
        ),
        ("model.ckpt", "model.ckpt is pickled: refused"),
        (
            "none.safetensors",
            "there is no file or folder none.safetensors",
        ),
    ] {
        let line = format!("{} --model {model} -o x", BASE.replace("--model toy", ""));
        oneactor(&folder, &line)
            .exits_with(3)
            .says(message)
            .writes_nothing();
    }
}
