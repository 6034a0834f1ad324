//! LoRA files of every key style, compared with diffusers' `load_lora_weights` and `fuse_lora` on
//! the same files (`scripts/parity/loras.py`), and files that are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bars::{LATENTS, NETWORK};
use crate::common::{Expected, Report, fixture, json};
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::backbone::{Backbone, Conditioning, LoadOptions, MemoryOptions};
use oneactor::error::{ErrorKind, kind_of};
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::tensors::TensorFile;
use oneactor::libtorch::seeded;
use oneactor::models::unet::unet_2d_condition::AddedConditions;
use oneactor::schedulers::new_scheduler;
use serde::Deserialize;
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Deserialize)]
struct Run {
    prompt: String,
    height: i64,
    width: i64,
    seed: i64,
    steps: usize,
    guidance_scale: f64,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    loras: Vec<(String, f64)>,
}

#[derive(Deserialize)]
struct Cases {
    run: Run,
    cases: Vec<Case>,
}

/// The checkpoint with these LoRA files.
fn model(model: &str, files: &[(&Path, f64)]) -> anyhow::Result<Backbone> {
    let mut located = ModelFiles::locate(&ModelOptions {
        model: model.to_owned(),
        ..ModelOptions::default()
    })?;
    located.add_loras(files)?;
    let options = LoadOptions {
        device: Device::Cpu,
        kind: Kind::Float,
        vae: None,
        memory: MemoryOptions::default(),
    };
    Backbone::load(&located, &options, &mut |_| ())
}

fn narrow(files: &[(&Path, f64)]) -> anyhow::Result<Backbone> {
    model(fixture("narrow").to_str().expect("plain names"), files)
}

fn file(name: &str) -> PathBuf {
    fixture(&format!("lora/{name}.safetensors"))
}

#[test]
fn every_key_style_gives_what_diffusers_gives() {
    let Cases { run, cases } = json("lora/cases.json");
    let expected = Expected::read("lora/expected.safetensors");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let files: Vec<(PathBuf, f64)> = case.loras.iter().map(|(n, s)| (file(n), *s)).collect();
        let files: Vec<(&Path, f64)> = files.iter().map(|(p, s)| (p.as_path(), *s)).collect();
        let backbone = narrow(&files).expect("every key is used");
        let get = |key: &str| expected.get(&format!("{}.{key}", case.name));
        let mut report = Report::new(&format!("LoRA {}", case.name));
        let Run { height, width, .. } = run;
        let prompt = backbone
            .encode_prompt(&run.prompt, height, width)
            .expect("short");
        let added = prompt.added.as_ref().expect("SDXL has a pooled embedding");
        for (key, found) in [
            ("prompt_embeds", &prompt.prompt_embeds),
            ("pooled_prompt_embeds", &added.text_embeds),
        ] {
            report.close(key, found, &get(key), NETWORK);
        }
        let conditioning = Conditioning {
            prompt_embeds: get("prompt_embeds"),
            added: Some(AddedConditions {
                text_embeds: get("pooled_prompt_embeds"),
                time_ids: get("time_ids"),
            }),
            image: None,
        };
        let noise_pred =
            no_grad(|| backbone.predict(&get("sample"), &get("timesteps"), &conditioning));
        report.close("noise_pred", &noise_pred, &get("noise_pred"), NETWORK);

        let negative = backbone
            .encode_negative(None, height, width)
            .expect("short");
        let guidance = PlainGuidance::new(&negative, &prompt, run.guidance_scale);
        let initial = backbone.initial_latents(run.seed, height, width);
        let config = &backbone.scheduler_file;
        let kind = config.own_kind().expect("a known class");
        let mut scheduler = new_scheduler(kind, config, run.steps).expect("8 steps");
        let sampler = scheduler.as_mut();
        let drawn = denoise(&backbone, sampler, &initial, &guidance, None, &mut |_| {
            Ok(())
        });
        let latents = drawn.expect("finite").latents;
        report.close("latents", &latents, &get("latents"), LATENTS);
        report.finish();
    }
}

#[test]
fn a_lora_changes_neither_the_fingerprint_nor_at_scale_zero_the_picture() {
    let plain = narrow(&[]).expect("a whole folder");
    let with = narrow(&[(&file("peft"), 1.0)]).expect("every key is used");
    assert_eq!(plain.facts.fingerprint, with.facts.fingerprint);
    assert_eq!(with.facts.loras.len(), 1);
    assert_eq!(with.facts.loras[0].crc32.len(), 8);
    let none = narrow(&[(&file("peft"), 0.0)]).expect("every key is used");
    let embeds = |backbone: &Backbone| {
        let prompt = backbone.encode_prompt("a hobbit", 64, 64).expect("short");
        prompt.prompt_embeds
    };
    assert!(embeds(&plain) == embeds(&none));
    assert!(embeds(&plain) != embeds(&with));
}

/// A LoRA file with these tensors. If `start` names a good file, its tensors are changed.
fn changed(name: &str, start: &str, change: &dyn Fn(&mut BTreeMap<String, Tensor>)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lora");
    std::fs::create_dir_all(&folder).expect("writable");
    let path = folder.join(format!("{name}.safetensors"));
    let mut file = match start {
        "" => TensorFile::default(),
        start => TensorFile::read(&file(start)).expect("whole"),
    };
    change(&mut file.tensors);
    std::fs::write(&path, file.to_bytes().expect("floats")).expect("writable");
    path
}

fn refused(path: &Path) -> String {
    refused_as(ErrorKind::Model, path)
}

fn refused_as(kind: ErrorKind, path: &Path) -> String {
    let error = narrow(&[(path, 1.0)]).err().expect("it was not refused");
    assert_eq!(kind_of(&error), kind, "{error:#}");
    format!("{error:#}")
}

#[track_caller]
fn says(message: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(message.contains(piece), "`{piece}` is not in: {message}");
    }
}

const MID: &str = "unet.mid_block.attentions.0.proj_in";

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn keys_that_cannot_be_used_are_refused_in_one_error() {
    let path = changed("together", "peft", &|tensors| {
        let good = tensors.remove(&format!("{MID}.lora_A.weight"));
        let up = format!("{MID}.lora_B.weight");
        tensors.insert("something.else".into(), good.expect("it is there"));
        let nan = &tensors[&up] * f64::NAN;
        tensors.insert("unet.conv_in.lora_A.weight".into(), nan);
        tensors.insert("unet.conv_out.lora_B.bias".into(), zeros(&[4]));
    });
    says(
        &refused(&path),
        &[
            "together.safetensors: something.else: not a known key",
            "unet.conv_in.lora_A.weight: holds a value that is not finite",
            "unet.conv_out.lora_B.bias: not a known key",
            "down (A) matrix is missing",
        ],
    );
    let path = changed("layers", "peft", &|tensors| {
        for (key, shape) in [("A", [4, 7]), ("B", [96, 4])] {
            tensors.insert(format!("{MID}.lora_{key}.weight"), zeros(&shape));
        }
        for (key, shape) in [("down", [4, 96]), ("up", [96, 4])] {
            tensors.insert(
                format!("unet.mid_block.other.lora.{key}.weight"),
                zeros(&shape),
            );
            tensors.insert(
                format!("text_encoder.text_model.encoder.layers.9.mlp.fc1.lora_linear_layer.{key}.weight"),
                zeros(&shape),
            );
        }
    });
    says(
        &refused(&path),
        &[
            "the LoRA may be for another model",
            &format!(
                "layers.safetensors: {MID}.lora_A.weight: found down [4, 7] and up [96, 4] for a weight of [96, 96], expected [4, 96] and [96, 4]"
            ),
            "unet.mid_block.other.lora.down.weight: the model has no such layer",
            "layers.9.mlp.fc1.lora_linear_layer.down.weight: the model has no such layer",
        ],
    );
}

#[test]
fn a_layer_under_two_names_is_refused() {
    let path = changed("twice", "", &|tensors| {
        for start in [
            "lora_unet_mid_block_attentions_0_proj_in",
            "lora_unet_middle_block_1_proj_in",
        ] {
            tensors.insert(format!("{start}.lora_down.weight"), zeros(&[2, 96]));
            tensors.insert(format!("{start}.lora_up.weight"), zeros(&[96, 2]));
        }
    });
    says(
        &refused(&path),
        &["middle_block_1_proj_in", "the same layer as"],
    );
}

#[test]
fn other_adapters_are_refused_by_name() {
    let layer = "lora_unet_mid_block_attentions_0_proj_in";
    for (ending, name) in [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_mid.weight", "CP decomposition"),
        ("diff", "whole weights"),
    ] {
        let path = changed("other", "kohya", &|tensors| {
            tensors.insert(format!("{layer}.{ending}"), zeros(&[4, 4]));
        });
        says(
            &refused(&path),
            &["other.safetensors", ending, name, "not supported"],
        );
    }
}

#[test]
fn damaged_and_pickled_files_are_refused() {
    let wrong = |path: &Path| refused_as(ErrorKind::Usage, path);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lora");
    std::fs::create_dir_all(&folder).expect("writable");
    let whole = std::fs::read(file("peft")).expect("readable");
    let path = folder.join("cut.safetensors");
    std::fs::write(&path, &whole[..whole.len() - 9]).expect("writable");
    says(
        &wrong(&path),
        &["cut.safetensors", "not a whole safetensors file"],
    );
    let path = folder.join("style.pt");
    std::fs::write(&path, "x").expect("writable");
    says(&wrong(&path), &["style.pt", "pickled"]);
    let path = folder.join("empty.safetensors");
    std::fs::write(&path, b"\x08\0\0\0\0\0\0\0{}      ").expect("writable");
    says(&wrong(&path), &["empty.safetensors", "among its 0 tensors"]);
    let path = changed("checkpoint", "", &|tensors| {
        tensors.insert("model.diffusion_model.out.2.weight".into(), zeros(&[4, 4]));
    });
    says(
        &wrong(&path),
        &[
            "checkpoint.safetensors",
            "among its 1 tensor: this is not a LoRA",
        ],
    );
}

/// Merging into a single file gives the same weights as merging into its folder.
#[test]
fn a_lora_fits_a_single_file_as_it_fits_the_folder() {
    let path = changed("single", "", &|tensors| {
        for (start, wide, high) in [
            ("lora_unet_middle_block_1_proj_in", 128, 128),
            (
                "lora_unet_output_blocks_2_1_transformer_blocks_0_attn2_to_k",
                192,
                128,
            ),
            ("lora_te1_text_model_encoder_layers_1_mlp_fc1", 64, 96),
            (
                "lora_te2_text_model_encoder_layers_3_self_attn_v_proj",
                128,
                128,
            ),
            ("lora_te2_text_projection", 128, 48),
        ] {
            let _drawing = seeded(wide + high);
            let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
            tensors.insert(format!("{start}.lora_down.weight"), random([2, wide]));
            tensors.insert(format!("{start}.lora_up.weight"), random([high, 2]));
        }
    });
    let embeds = |place: &str, scale: f64| {
        let place = fixture(&format!("single/{place}"));
        let backbone = model(place.to_str().expect("plain names"), &[(&path, scale)]);
        let backbone = backbone.expect("every key is used");
        let prompt = backbone.encode_prompt("a hobbit", 64, 64).expect("short");
        let sample = backbone.initial_latents(1, 64, 64);
        let at = Tensor::from_slice(&[500.0f32]);
        no_grad(|| backbone.predict(&sample, &at, &prompt))
    };
    let folder = embeds("folder", 1.0);
    assert!(embeds("sdxl.safetensors", 1.0) == folder);
    assert!(embeds("sdxl.safetensors", 0.5) != folder);
}
