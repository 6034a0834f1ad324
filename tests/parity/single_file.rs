//! Checkpoints in one file, compared with diffusers' own converters and `from_single_file` on the
//! same files (`scripts/parity/single_files.py`), and files that are refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::bars::LATENTS;
use crate::common::{Expected, Report, fixture, json, latents};
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::backbone::{Backbone, LoadOptions, MemoryOptions};
use oneactor::error::{ErrorKind, kind_of};
use oneactor::io::hub::HubSettings;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::tensors::TensorFile;
use oneactor::io::weights::Weights;
use oneactor::models::unet::unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Bar for two runs with weights that are equal to the bit (another test compares the weights): on
/// some processors the address of a tensor decides which kernel runs, and so the last bits.
const SAME_WEIGHTS: f64 = 1e-5;

fn locate(path: &Path) -> anyhow::Result<ModelFiles> {
    let options = ModelOptions {
        model: path.to_str().expect("plain names").to_owned(),
        offline: true,
        ..ModelOptions::default()
    };
    let cache = std::env::temp_dir().join("oneactor-no-such-cache");
    ModelFiles::locate_with(&options, &|| Ok(HubSettings::new(cache.clone())))
}

fn backbone(files: &ModelFiles) -> anyhow::Result<Backbone> {
    let options = LoadOptions {
        device: Device::Cpu,
        kind: Kind::Float,
        vae: None,
        memory: MemoryOptions::default(),
    };
    Backbone::load(files, &options, &mut |_| ())
}

fn json_of(files: &ModelFiles, name: &str) -> Value {
    serde_json::from_str(&files.text(name).expect("it is made up")).expect("it is JSON")
}

#[test]
fn every_tensor_is_found_under_diffusers_name_and_none_is_left() {
    let sdxl = ["unet", "vae", "text_encoder", "text_encoder_2"];
    for (file, components) in [("sdxl", &sdxl[..]), ("sd15", &sdxl[..3])] {
        let files = locate(&fixture(&format!("single/{file}.safetensors"))).expect("whole");
        let mut report = Report::new(&format!("tensors of {file} in one file"));
        for component in components {
            let expected = Expected::read(&format!("single/{file}.{component}.safetensors"));
            let blobs = files.weights(component).expect("the file has it");
            let weights = Weights::open(&blobs, Device::Cpu, Kind::Float).expect("whole");
            weights.allow_unused("embeddings.position_ids");
            for (name, tensor) in expected.below("") {
                let found = weights.root().tensor(&name, &tensor.size());
                report.check(found == tensor, || format!("{component} {name} differs"));
            }
            if let Err(error) = weights.finish() {
                report.check(false, || format!("{component}: {error:#}"));
            }
        }
        report.finish();
    }
}

/// The components that have a config in the folder; only SDXL has the last one.
const PARTS: [&str; 5] = ["unet", "vae", "text_encoder", "scheduler", "text_encoder_2"];

/// The folder with the same model in diffusers' layout.
fn folder_of(model: &str) -> &'static str {
    match model {
        "sdxl" => "folder",
        _ => "folder_sd15",
    }
}

#[test]
fn sizes_are_read_from_the_tensors() {
    let models = PARTS.map(|part| ("sdxl", part)).into_iter();
    for (model, part) in models.chain(PARTS[..4].iter().map(|part| ("sd15", *part))) {
        let files = locate(&fixture(&format!("single/{model}.safetensors"))).expect("a whole file");
        let name = match part {
            "scheduler" => "scheduler/scheduler_config.json".to_owned(),
            part => format!("{part}/config.json"),
        };
        let found: Value = json_of(&files, &name);
        let expected: Value = json(&format!("single/{}/{name}", folder_of(model)));
        for (key, value) in found.as_object().expect("an object") {
            // No tensor tells the side of pictures: the config gets that of real SDXL. The folder's
            // schedule has fields that Euler does not know.
            if key != "sample_size" && !expected[key].is_null() {
                let same = value == &expected[key];
                assert!(
                    same,
                    "{name}: {key}: found {value}, expected {}",
                    expected[key]
                );
            }
        }
    }
    let sd15 = locate(&fixture("single/sd15.safetensors")).expect("a whole file");
    let config = sd15.config("unet/config.json").expect("it is made up");
    let config = UNet2DConditionConfig::read(&config).expect("it is made up");
    let blobs = sd15.weights("unet").expect("the file has it");
    let weights = Weights::open(&blobs, Device::Cpu, Kind::Float).expect("a whole file");
    UNet2DConditionModel::new(&weights.root(), &config).expect("a known architecture");
    weights.finish().expect("the config fits the tensors");
}

/// Compares the run of the file with that of the folder and with diffusers' `from_single_file` on
/// the same file.
#[test]
fn a_single_file_draws_what_its_folder_and_diffusers_draw() {
    let draw = |path: &str| {
        let backbone = backbone(&locate(&fixture(path)).expect("whole")).expect("it loads");
        let prompt = backbone.encode_prompt("a red hobbit", 64, 48);
        let negative = backbone.encode_negative(None, 64, 48).expect("short");
        let guidance = PlainGuidance::new(&negative, &prompt.expect("short"), 5.0);
        let latents = latents(&backbone, &guidance, 8, (3, [64, 48]));
        (latents, backbone.facts.fingerprint)
    };
    let expected = Expected::read("single/latents.safetensors");
    for model in ["sdxl", "sd15"] {
        let file = draw(&format!("single/{model}.safetensors"));
        let folder = draw(&format!("single/{}", folder_of(model)));
        assert_eq!(file.1, folder.1, "both have the same fingerprint");
        let mut report = Report::new(&format!("single file of {model}"));
        report.close("folder", &file.0, &folder.0, SAME_WEIGHTS);
        report.close("latents", &file.0, &expected.get(model), LATENTS);
        report.finish();
    }
}

/// A file of that many bytes that has only a header; the rest is a hole on the disk.
fn header_only(path: &Path, shapes: &BTreeMap<String, Vec<u64>>) {
    let mut at = 0;
    let entries = shapes.iter().map(|(key, shape)| {
        let start = at;
        at += 2 * shape.iter().product::<u64>();
        let entry =
            serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, at]});
        (key.clone(), entry)
    });
    let header = serde_json::Value::Object(entries.collect()).to_string();
    let padding = header.len().next_multiple_of(8) - header.len();
    let header = header + &" ".repeat(padding);
    let mut file = File::create(path).expect("writable");
    let length = header.len() as u64;
    file.write_all(&length.to_le_bytes()).expect("writable");
    file.write_all(header.as_bytes()).expect("writable");
    file.set_len(8 + length + at).expect("holes are allowed");
}

/// Names and shapes of the real files, from diffusers' classes at full size.
#[test]
fn the_real_checkpoints_are_recognised_by_their_names_and_shapes() {
    let shapes: BTreeMap<String, BTreeMap<String, Vec<u64>>> = json("single/full_size.json");
    let folder = scratch("full-size");
    for (name, expected) in [
        (
            "sdxl",
            r#"{"block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
                "transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048,
                "use_linear_projection": true, "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816, "sample_size": 128,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}"#,
        ),
        (
            "sd15",
            r#"{"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8,
                "transformer_layers_per_block": [1, 1, 1, 1], "cross_attention_dim": 768,
                "use_linear_projection": false, "sample_size": 64, "layers_per_block": 2}"#,
        ),
    ] {
        let path = folder.join(format!("{name}.safetensors"));
        header_only(&path, &shapes[name]);
        if name == "sdxl" {
            assert_eq!(
                shapes[name].len(),
                2515,
                "as many tensors as the published file"
            );
        }
        let files = locate(&path).expect("a whole file");
        let unet = json_of(&files, "unet/config.json");
        let expected: Value = serde_json::from_str(expected).expect("the test's JSON");
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&unet[key], value, "{name}: {key}");
        }
        let vae = json_of(&files, "vae/config.json");
        assert_eq!(
            vae["block_out_channels"],
            serde_json::json!([128, 256, 512, 512])
        );
        std::fs::remove_file(path).expect("it is there");
    }
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("single-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("writable");
    folder
}

/// A file with these tensors.
fn file_of(path: &Path, tensors: &[(&str, &[i64])]) {
    let mut file = TensorFile::default();
    for (name, shape) in tensors {
        file.insert(name, &Tensor::zeros(*shape, (Kind::Half, Device::Cpu)));
    }
    std::fs::write(path, file.to_bytes().expect("halves")).expect("writable");
}

#[test]
fn files_of_unknown_model_families_are_refused() {
    let path = scratch("families").join("m.safetensors");
    const CONV_IN: &str = "model.diffusion_model.input_blocks.0.0.weight";
    const VAE: (&str, &[i64]) = ("first_stage_model.encoder.conv_in.weight", &[8, 3, 3, 3]);
    const CLIP: (&str, &[i64]) = ("cond_stage_model.transformer.text_model.x", &[1]);
    type Tensors<'a> = &'a [(&'a str, &'a [i64])];
    let cases: [(Tensors, &[&str]); 15] = [
        (
            &[("decoder.up.0.block.0.conv1.weight", &[8, 8, 3, 3])],
            &["VAE alone", "scaling factor"],
        ),
        (
            &[(CONV_IN, &[8, 9, 3, 3])],
            &["inpainting", "9 channels, expected 4"],
        ),
        (
            &[(CONV_IN, &[8, 8, 3, 3])],
            &["instruct-pix2pix", "8 channels"],
        ),
        (
            &[
                (CONV_IN, &[8, 4, 3, 3]),
                ("conditioner.embedders.0.model.text_projection", &[4, 4]),
            ],
            &["refiner"],
        ),
        (
            &[
                (CONV_IN, &[8, 4, 3, 3]),
                ("cond_stage_model.model.ln_final.bias", &[4]),
            ],
            &["SD 2", "diffusers folder"],
        ),
        (
            &[(CONV_IN, &[8, 4, 3, 3]), ("edm_mean", &[4])],
            &["Playground"],
        ),
        (
            &[(CONV_IN, &[8, 4, 3, 3]), VAE],
            &["not a whole checkpoint", "found first_stage_model."],
        ),
        (
            &[("lora_unet_x.lora_up.weight", &[4, 4])],
            &["this is a LoRA", "beside the model"],
        ),
        (
            &[("control_model.input_blocks.0.0.weight", &[4, 4, 3, 3])],
            &["ControlNet"],
        ),
        (
            &[("model.diffusion_model.joint_blocks.0.x.weight", &[4, 4])],
            &["Stable Diffusion 3", "SDXL or SD 1.5"],
        ),
        (
            &[("model.diffusion_model.double_blocks.0.x.weight", &[4, 4])],
            &["FLUX", "SDXL or SD 1.5"],
        ),
        (
            &[("double_blocks.0.img_attn.qkv.weight", &[4, 4])],
            &["FLUX", "SDXL or SD 1.5"],
        ),
        (
            &[("model.layers.0.weight", &[4, 4])],
            &["not a whole checkpoint", "model.layers.0.weight"],
        ),
        (
            &[(CONV_IN, &[8, 4, 3, 3]), VAE, CLIP, ("v_pred", &[1])],
            &["v_pred", "another schedule", "diffusers folder"],
        ),
        (
            &[
                (CONV_IN, &[8, 4, 3, 3]),
                ("control_model.input_blocks.0.0.weight", &[4, 4, 3, 3]),
            ],
            &["a ControlNet together with the model", "as the ControlNet"],
        ),
    ];
    for (tensors, pieces) in cases {
        file_of(&path, tensors);
        says(&refused(locate(&path)), pieces);
    }
    file_of(&path, &[(CONV_IN, &[8, 4, 3, 3]), VAE, CLIP]);
    says(
        &refused(locate(&path)),
        &["m.safetensors", "cannot be determined", "input_blocks"],
    );
}

#[test]
fn damaged_files_are_refused_with_file_and_tensor() {
    let folder = scratch("damaged");
    let whole = fixture("single/sdxl.safetensors");
    let bytes = std::fs::read(&whole).expect("readable");
    let path = folder.join("m.safetensors");
    std::fs::write(&path, &bytes[..bytes.len() - 100]).expect("writable");
    says(
        &refused(locate(&path)),
        &["m.safetensors", "not a whole safetensors file"],
    );
    std::fs::write(&path, b"").expect("writable");
    says(&refused(locate(&path)), &["m.safetensors", "empty"]);
    std::fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n").expect("writable");
    says(&refused(locate(&path)), &["m.safetensors", "git-lfs"]);

    for part in ["tokenizer", "tokenizer_2"] {
        let to = folder.join(part);
        std::fs::create_dir(&to).expect("writable");
        for entry in std::fs::read_dir(fixture(&format!("single/{part}"))).expect("readable") {
            let entry = entry.expect("readable");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("writable");
        }
    }
    const IN_PROJ: &str =
        "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_weight";
    const TO_Q: &str = "first_stage_model.decoder.mid.attn_1.q.weight";
    let changed = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut file = TensorFile::read(&whole).expect("whole");
        change(&mut file.tensors);
        std::fs::write(&path, file.to_bytes().expect("floats")).expect("writable");
        let loaded = locate(&path).and_then(|files| backbone(&files));
        refused(loaded.and_then(|backbone| backbone.weights_are_finite()))
    };
    let said = changed(&|tensors| {
        tensors.remove(IN_PROJ);
    });
    says(&said, &["missing", IN_PROJ, "m.safetensors"]);
    let said = changed(&|tensors| {
        let wide = tensors[IN_PROJ].repeat([2, 1]);
        tensors.insert(IN_PROJ.into(), wide);
    });
    says(
        &said,
        &[
            "misshapen",
            IN_PROJ,
            "found [768, 128], expected [384, 128]",
        ],
    );
    let said = changed(&|tensors| {
        tensors.insert(TO_Q.into(), &tensors[TO_Q] * f64::NAN);
    });
    says(&said, &["non-finite", TO_Q]);
}

fn refused<T>(result: anyhow::Result<T>) -> String {
    let Err(error) = result else {
        panic!("it was not refused");
    };
    assert_eq!(kind_of(&error), ErrorKind::Model, "{error:#}");
    format!("{error:#}")
}

#[track_caller]
fn says(message: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(message.contains(piece), "`{piece}` is not in: {message}");
    }
}
