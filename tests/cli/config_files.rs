//! Fields of a model's config files: used, ignored with a reason, named in a note, or refused by
//! name.

use std::fs;
use std::path::Path;

use oneactor::pictures::png::{read_png_text, save_png};
use serde_json::{Value, json};

use crate::{copy, folder, oneactor, pixels};

/// Writes the toy as a folder `m`, with fields of one of its files changed; `null` removes a field.
fn toy_with(folder: &Path, file: &str, fields: &Value) {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/toy");
    let _ = fs::remove_dir_all(folder.join("m"));
    copy(&toy, &folder.join("m"));
    change(folder, file, fields);
}

fn change(folder: &Path, file: &str, fields: &Value) {
    let path = folder.join("m").join(file);
    let mut config: Value = crate::json(&path);
    let config = config.as_object_mut().expect("an object");
    for (key, value) in fields.as_object().expect("an object") {
        match value {
            Value::Null => drop(config.remove(key)),
            value => drop(config.insert(key.clone(), value.clone())),
        }
    }
    fs::write(path, json!(config).to_string()).expect("the folder is ours");
}

const SCHEDULER: &str = "scheduler/scheduler_config.json";
const DRAW: &str = "sample --no-actor -p 'a robot' --steps 3 --model m";

#[test]
fn a_sampler_named_by_flag_draws_whatever_class_the_folder_names() {
    let folder = folder("config-scheduler-classes");
    oneactor(
        &folder,
        "sample --no-actor -p 'a robot' --steps 3 --model toy -o own",
    )
    .exits_with(0);
    for class in [
        "EulerAncestralDiscreteScheduler",
        "LCMScheduler",
        "DEISMultistepScheduler",
    ] {
        toy_with(&folder, SCHEDULER, &json!({"_class_name": class}));
        change(
            &folder,
            "model_index.json",
            &json!({"scheduler": ["diffusers", class]}),
        );
        oneactor(&folder, &format!("{DRAW} -o {class}"))
            .exits_with(3)
            .says(&format!("_class_name: found \"{class}\""))
            .says("samplers that can draw on this schedule: euler, dpm++2m, ddim");
        oneactor(&folder, &format!("{DRAW} -o {class} --scheduler euler")).exits_with(0);
        let found = pixels(&folder.join(class).join("0000-0.png"));
        assert!(found == pixels(&folder.join("own/0000-0.png")), "{class}");
    }
}

#[test]
fn an_unsupported_field_of_a_sampler_is_refused_and_other_samplers_draw() {
    let folder = folder("config-sampler-fields");
    for field in ["use_lu_lambdas", "use_flow_sigmas"] {
        let fields = json!({"_class_name": "DPMSolverMultistepScheduler", field: true});
        toy_with(&folder, SCHEDULER, &fields);
        let class = json!(["diffusers", "DPMSolverMultistepScheduler"]);
        change(&folder, "model_index.json", &json!({"scheduler": class}));
        oneactor(&folder, &format!("{DRAW} -o out --dry-run"))
            .exits_with(3)
            .says(&format!("{field}: found true, expected false"))
            .says("samplers that can draw on this schedule: euler, ddim");
        oneactor(
            &folder,
            &format!("{DRAW} -o out --dry-run --scheduler euler"),
        )
        .exits_with(0);
    }
}

#[test]
fn ddim_says_once_that_it_does_not_clip() {
    let folder = folder("config-clip-sample");
    let note = "clip_sample is true or absent";
    toy_with(&folder, SCHEDULER, &json!({"clip_sample": null}));
    let run = oneactor(
        &folder,
        &format!("{DRAW} -o out --num-images 2 --scheduler ddim"),
    );
    let run = run.exits_with(0);
    assert_eq!(run.stderr.matches(note).count(), 1, "{}", run.stderr);
    let run = oneactor(&folder, &format!("{DRAW} -o euler --scheduler euler"));
    assert!(!run.stderr.contains(note), "{}", run.stderr);
    toy_with(&folder, SCHEDULER, &json!({"clip_sample": false}));
    let run = oneactor(&folder, &format!("{DRAW} -o ddim --scheduler ddim"));
    assert!(!run.stderr.contains(note), "{}", run.stderr);
}

#[test]
fn unsupported_fields_of_networks_are_refused_by_name_before_anything_is_loaded() {
    let folder = folder("config-networks");
    let unet = "unet/config.json";
    for (file, field, value) in [
        (unet, "time_embedding_act_fn", json!("silu")),
        (unet, "timestep_post_act", json!("silu")),
        (unet, "num_attention_heads", json!(2)),
        (unet, "time_embedding_dim", json!(64)),
        (unet, "resnet_skip_time_act", json!(true)),
        (unet, "class_embeddings_concat", json!(true)),
        ("vae/config.json", "shift_factor", json!(0.1)),
        (
            "vae/config.json",
            "latents_mean",
            json!([0.0, 0.0, 0.0, 0.0]),
        ),
    ] {
        toy_with(&folder, file, &json!({field: value}));
        let message = match field {
            // Only one of the two fields is given.
            "latents_mean" => "latents_std: found",
            field => field,
        };
        let line = format!("{DRAW} -o out --dry-run");
        oneactor(&folder, &line)
            .exits_with(3)
            .says(message)
            .says(file);
    }
    for (component, class) in [
        ("unet", "UNet3DConditionModel"),
        ("vae", "AutoencoderTiny"),
        ("text_encoder", "T5EncoderModel"),
    ] {
        toy_with(
            &folder,
            "model_index.json",
            &json!({component: ["a library", class]}),
        );
        oneactor(&folder, &format!("{DRAW} -o out --dry-run"))
            .exits_with(3)
            .says(component)
            .says(class);
    }
    // `null` means no middle block. A missing field means the usual middle block.
    toy_with(&folder, unet, &json!({}));
    let path = folder.join("m").join(unet);
    let mut config = crate::json(&path);
    config["mid_block_type"] = Value::Null;
    fs::write(path, config.to_string()).expect("the folder is ours");
    oneactor(&folder, &format!("{DRAW} -o out --dry-run"))
        .exits_with(3)
        .says("mid_block_type: found null");
}

#[test]
fn a_picture_that_an_older_version_drew_differently_is_reported() {
    let folder = folder("config-older-version");
    let statistics = json!({
        "latents_mean": [0.1, 0.0, 0.0, 0.0], "latents_std": [1.0, 1.0, 1.0, 1.0],
    });
    let note = "by oneactor 0.1.0, which did not read latents_mean and latents_std";
    for (fields, notes) in [(statistics, 1), (json!({}), 0)] {
        let _ = fs::remove_dir_all(folder.join("out"));
        toy_with(&folder, "vae/config.json", &fields);
        oneactor(&folder, &format!("{DRAW} -o out --num-images 2")).exits_with(0);
        for name in ["0000-0.png", "0001-1.png"] {
            older(&folder.join("out").join(name));
        }
        let rerun = format!("{DRAW} -o out --num-images 2");
        for line in [
            &rerun[..],
            "sample --from out/0000-0.png -o again --overwrite",
        ] {
            let run = oneactor(&folder, line).exits_with(0);
            assert_eq!(run.stderr.matches(note).count(), notes, "{}", run.stderr);
        }
    }
}

/// Rewrites the metadata of a picture to name the version before this one.
fn older(path: &Path) {
    let texts = read_png_text(path).expect("it has its metadata");
    let texts: Vec<(&str, String)> = texts
        .iter()
        .map(|(keyword, text)| {
            let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
            (
                &keyword[..],
                text.replace(&version, "\"version\":\"0.1.0\""),
            )
        })
        .collect();
    let picture = image::open(path).expect("it is a picture").into_rgb8();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (*key, &text[..])).collect();
    save_png(path, &picture, &texts).expect("the folder is ours");
}

#[test]
fn if_two_files_name_different_classes_the_index_is_used_and_a_note_says_so() {
    let folder = folder("config-two-classes");
    toy_with(&folder, SCHEDULER, &json!({"_class_name": "DDIMScheduler"}));
    oneactor(&folder, &format!("{DRAW} -o out"))
        .exits_with(0)
        .says("DDIMScheduler is written here, but model_index.json has EulerDiscreteScheduler, which is used");
    let manifest = crate::text(&folder.join("out/manifest.jsonl"));
    assert!(manifest.contains("\"scheduler\":\"euler\""), "{manifest}");
}

#[test]
fn keys_that_no_class_has_are_named_in_one_note() {
    let folder = folder("config-strange-keys");
    let fields = json!({"ema_decay": 0.99, "update_after_step": 3});
    toy_with(&folder, "unet/config.json", &fields);
    let run = oneactor(&folder, &format!("{DRAW} -o out --num-images 2")).exits_with(0);
    let note = "unet/config.json: not read, because no class has such a field: ema_decay, update_after_step";
    assert_eq!(run.stderr.matches(note).count(), 1, "{}", run.stderr);
}

#[test]
fn parts_that_the_index_lacks_or_names_differently_are_refused() {
    let folder = folder("config-index-parts");
    let refused = |fields: Value, told: &str| {
        toy_with(&folder, "model_index.json", &fields);
        oneactor(&folder, &format!("{DRAW} -o out --dry-run"))
            .exits_with(3)
            .says(&format!("m: model_index.json: {told}"))
            .writes_nothing();
    };
    refused(
        json!({"tokenizer_2": ["transformers", "T5TokenizerFast"]}),
        "tokenizer_2: found [\"transformers\",\"T5TokenizerFast\"], expected [\"transformers\", \"CLIPTokenizer\" or \"CLIPTokenizerFast\"]",
    );
    refused(
        json!({"text_encoder_2": [null, null]}),
        "text_encoder_2: found [null,null], expected [\"transformers\", its class]",
    );
    refused(
        json!({"scheduler": null}),
        "scheduler: found no value, expected [\"diffusers\", its class]",
    );
    refused(
        json!({"unet": ["my_networks", "UNet2DConditionModel"]}),
        "unet: found [\"my_networks\",\"UNet2DConditionModel\"], expected [\"diffusers\", its class]",
    );
    // A VAE given by --vae replaces that of the index, which then need not be known.
    let fields = json!({"vae": [null, null], "tokenizer": ["transformers", "CLIPTokenizerFast"]});
    toy_with(&folder, "model_index.json", &fields);
    oneactor(&folder, &format!("{DRAW} -o out --dry-run --vae toy")).exits_with(0);
}

#[test]
fn the_class_of_a_text_encoder_comes_from_the_index_if_its_file_names_none() {
    let folder = folder("config-text-encoders");
    oneactor(&folder, &DRAW.replace("--model m", "--model toy -o own")).exits_with(0);
    let own = pixels(&folder.join("own/0000-0.png"));
    let file = "text_encoder_2/config.json";
    toy_with(&folder, file, &json!({"architectures": null}));
    oneactor(&folder, &format!("{DRAW} -o unnamed")).exits_with(0);
    assert!(pixels(&folder.join("unnamed/0000-0.png")) == own);
    // transformers reads the text encoder's fields from the config file of a whole CLIP.
    let half: Value = crate::json(&folder.join("m").join(file));
    let whole = json!({"architectures": ["CLIPModel"], "model_type": "clip", "text_config": half, "projection_dim": 512});
    fs::write(folder.join("m").join(file), whole.to_string()).expect("the folder is ours");
    oneactor(&folder, &format!("{DRAW} -o whole")).exits_with(0);
    assert!(pixels(&folder.join("whole/0000-0.png")) == own);
}
