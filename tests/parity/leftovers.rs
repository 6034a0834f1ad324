//! Checkpoints with tensors that no network reads (`scripts/parity/leftovers.py`): the networks
//! have the same weights as in diffusers, and a note names the unused tensors. A missing tensor is
//! still an error.

use std::path::{Path, PathBuf};

use crate::common::{Report, fixture, json};
use oneactor::backbone::prompt::Tokenizers;
use oneactor::backbone::{Backbone, LoadOptions, MemoryOptions, Pipeline};
use oneactor::error::{ErrorKind, kind_of};
use oneactor::io::hub::HubSettings;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::tensors::TensorFile;
use tch::{Device, Kind, Tensor};

fn locate(path: &Path) -> anyhow::Result<ModelFiles> {
    let options = ModelOptions {
        model: path.to_str().expect("plain names").to_owned(),
        ..ModelOptions::default()
    };
    let no_hub = || -> anyhow::Result<HubSettings> { panic!("the hub was asked for") };
    ModelFiles::locate_with(&options, &no_hub)
}

const OPTIONS: LoadOptions<'static> = LoadOptions {
    device: Device::Cpu,
    kind: Kind::Float,
    vae: None,
    memory: MemoryOptions {
        vae_tile_size: None,
        cpu_offload: false,
    },
};

fn load(files: &ModelFiles) -> anyhow::Result<Backbone> {
    Backbone::load(files, &OPTIONS, &mut |_| ())
}

/// The outputs of all four networks for a prompt and noise.
fn work(backbone: &Backbone) -> Vec<Tensor> {
    let prompt = backbone
        .encode_prompt("a red hobbit", 64, 48)
        .expect("short");
    let latents = backbone.initial_latents(3, 64, 48);
    let timesteps = Tensor::from_slice(&[500.0f32]);
    let noise_pred = tch::no_grad(|| backbone.predict(&latents, &timesteps, &prompt));
    let picture = backbone.decode(&latents).expect("finite");
    vec![prompt.prompt_embeds, noise_pred, picture]
}

/// Bar for equal weights: on some processors the address of a tensor decides which kernel runs, and
/// so the last bits. The script compares the weights themselves to the bit, in diffusers.
const SAME_WEIGHTS: f64 = 1e-5;

/// A checkpoint with unused tensors, the same without them, and the list in `leftovers.json` that
/// names them.
const CHECKPOINTS: [(&str, &str, &str); 4] = [
    ("leftovers/sdxl.safetensors", "single/folder", "sdxl"),
    ("leftovers/sd15.safetensors", "single/folder_sd15", "sd15"),
    ("leftovers/folder", "single/folder_sd15", "folder"),
    (
        "leftovers/linear_projection.safetensors",
        "single/folder",
        "",
    ),
];

#[test]
fn tensors_that_no_network_reads_change_nothing_and_are_named_once() {
    let leftovers: serde_json::Value = json("leftovers/leftovers.json");
    for (path, plain, list) in CHECKPOINTS {
        let path = fixture(path);
        let files = locate(&path).expect("whole");
        assert_eq!(files.take_notes(), [""; 0], "nothing was read yet");
        load(&files.outlined()).expect("all tensors are there");
        let told_by_headers = files.take_notes();
        let backbone = load(&files).expect("all tensors are there");
        assert_eq!(files.take_notes(), told_by_headers);

        let expected = leftovers[list].as_array().map_or(&[][..], Vec::as_slice);
        let note = expected.iter().map(|key| key.as_str().expect("a key"));
        let note: Vec<&str> = note.collect();
        match &note[..] {
            [] => assert_eq!(told_by_headers, [""; 0]),
            [a, b, c, more @ ..] => assert_eq!(
                told_by_headers,
                [format!(
                    "{}: {} tensors are not used, because no network reads them: {a}, {b}, {c} and {} more",
                    path.display(),
                    note.len(),
                    more.len()
                )]
            ),
            few => panic!("{few:?}"),
        }

        let plain_files = locate(&fixture(plain)).expect("whole");
        let plain_backbone = load(&plain_files).expect("whole");
        assert_eq!(plain_files.take_notes(), [""; 0]);
        let mut report = Report::new(&format!("leftovers of {list}"));
        for (found, expected) in work(&backbone).iter().zip(work(&plain_backbone)) {
            report.close("work", found, &expected, SAME_WEIGHTS);
        }
        report.finish();
    }
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("leftovers-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("writable");
    folder
}

/// The error message for the checkpoint with these changes.
fn refused(path: &Path, change: &dyn Fn(&mut TensorFile)) -> String {
    let name = path.file_name().expect("a file");
    let mut file = TensorFile::read(&fixture("single").join(name)).expect("whole");
    change(&mut file);
    std::fs::write(path, file.to_bytes().expect("known kinds")).expect("writable");
    let checked = locate(path).and_then(|files| load(&files.outlined()).map(drop));
    let error = checked.expect_err("it does not fit");
    assert_eq!(kind_of(&error), ErrorKind::Model, "{error:#}");
    format!("{error:#}")
}

fn with_tokenizers(folder: &Path) {
    for part in ["tokenizer", "tokenizer_2"] {
        let to = folder.join(part);
        std::fs::create_dir(&to).expect("writable");
        for entry in std::fs::read_dir(fixture("single").join(part)).expect("readable") {
            let entry = entry.expect("readable");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("writable");
        }
    }
}

/// Sizes are read from the tensors. A lost tensor must not make the network smaller and leave the
/// rest of its layer unused.
#[test]
fn a_lost_tensor_is_reported_missing_even_if_sizes_are_read_from_it() {
    let folder = scratch("lost");
    with_tokenizers(&folder);
    let cases = [
        (
            "sdxl",
            "model.diffusion_model.middle_block.1.transformer_blocks.1.attn1.to_q.weight",
        ),
        (
            "sdxl",
            "model.diffusion_model.input_blocks.7.0.in_layers.2.weight",
        ),
        (
            "sdxl",
            "model.diffusion_model.input_blocks.8.0.in_layers.2.weight",
        ),
        (
            "sdxl",
            "model.diffusion_model.output_blocks.0.1.proj_in.weight",
        ),
        (
            "sdxl",
            "first_stage_model.encoder.down.2.block.0.conv1.weight",
        ),
        (
            "sdxl",
            "first_stage_model.decoder.up.0.block.1.conv1.weight",
        ),
        ("sdxl", "first_stage_model.quant_conv.weight"),
        ("sdxl", "first_stage_model.post_quant_conv.weight"),
        (
            "sdxl",
            "conditioner.embedders.0.transformer.text_model.encoder.layers.2.mlp.fc1.weight",
        ),
        (
            "sdxl",
            "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_fc.weight",
        ),
        ("sdxl", "conditioner.embedders.1.model.text_projection"),
        (
            "sd15",
            "model.diffusion_model.input_blocks.5.0.in_layers.2.weight",
        ),
        (
            "sd15",
            "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.to_q.weight",
        ),
        (
            "sd15",
            "first_stage_model.encoder.down.0.block.1.conv1.weight",
        ),
        (
            "sd15",
            "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
        ),
    ];
    for (model, lost) in cases {
        let path = folder.join(format!("{model}.safetensors"));
        let said = refused(&path, &|file| {
            assert!(file.tensors.remove(lost).is_some(), "{lost}");
        });
        assert!(said.contains(lost), "{lost} is not in: {said}");
    }
}

#[test]
fn markers_of_another_schedule_are_refused_by_name_whatever_else_the_file_has() {
    let folder = scratch("markers");
    let path = folder.join("sdxl.safetensors");
    let markers = [
        "v_pred",
        "ztsnr",
        "edm_vpred.sigma_max",
        "edm_std",
        "edm_mean",
    ];
    for marker in markers {
        let said = refused(&path, &|file| {
            let nothing = Tensor::zeros([0], (Kind::Float, Device::Cpu));
            file.insert(marker, &nothing);
            file.insert("global_step", &nothing);
        });
        assert!(said.contains(marker), "{said}");
    }
    for field in ["modelspec.prediction_type", "modelspec.predict_key"] {
        let said = refused(&path, &|file| {
            file.metadata.insert(field.to_owned(), "v".to_owned());
        });
        assert!(said.contains(&format!("{field} \"v\"")), "{said}");
        assert!(said.contains("give a diffusers folder"), "{said}");
    }
}

/// Without tokenizers beside it, a file uses CLIP's own vocabulary, numbered as in the package
/// open_clip_torch (`scripts/parity/expected_vocabulary.py`), and texts have the same ids as in
/// transformers.
#[test]
fn a_file_without_tokenizers_uses_clip_s_vocabulary() {
    #[derive(serde::Deserialize)]
    struct Ids {
        prompts: Vec<String>,
        ids: Vec<Vec<i64>>,
    }
    let parts = ["tokenizer", "tokenizer_2"];
    let models = [
        ("sdxl", Pipeline::StableDiffusionXl, &parts[..]),
        ("sd15", Pipeline::StableDiffusion, &parts[..1]),
    ];
    for (model, pipeline, parts) in models {
        let path = scratch(&format!("alone-{model}")).join("m.safetensors");
        std::fs::hard_link(fixture(&format!("single/{model}.safetensors")), &path)
            .or_else(|_| {
                std::fs::copy(fixture(&format!("single/{model}.safetensors")), &path).map(drop)
            })
            .expect("writable");
        let files = locate(&path).expect("whole");
        let tokenizers = Tokenizers::load(&files, pipeline).expect("it is in the program");
        for (i, part) in parts.iter().enumerate() {
            let text = |name: &str| files.text(&format!("{part}/{name}")).expect("it is there");
            let expected = |name: &str| {
                let path = fixture(&format!("clip/{part}/{name}"));
                std::fs::read_to_string(path).expect("readable")
            };
            let value =
                |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
            assert!(text("merges.txt") == expected("merges.txt"), "{part}");
            let vocabulary = value(&text("vocab.json"));
            assert_eq!(
                vocabulary.as_object().map(serde_json::Map::len),
                Some(49_408)
            );
            assert!(vocabulary == value(&expected("vocab.json")), "{part}");
            let special = "special_tokens_map.json";
            assert_eq!(value(&text(special)), value(&expected(special)));

            let ids: Ids = json(&format!("tokenizers/clip_{part}.json"));
            assert!(ids.prompts.len() > 2000);
            for (prompt, expected) in ids.prompts.iter().zip(&ids.ids) {
                let tokens = tokenizers.plain_tokens(prompt).expect("short");
                assert_eq!(tokens.ids(i), expected, "{part}: {prompt:?}");
            }
        }
    }
}
