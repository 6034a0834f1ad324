//! The tokenizers of a checkpoint in one file: beside it, or from the hub.

use oneactor::io::tensors::TensorFile;
use tch::{Device, Kind, Tensor};

use super::fetch::{exits_with, lines, oneactor, told};
use super::*;

/// Where diffusers takes the small files of SDXL from.
const BASE: &str = "stabilityai/stable-diffusion-xl-base-1.0";

/// The tensors that sizes are read from, of the smallest SDXL.
const TENSORS: [(&str, &[i64]); 20] = [
    (
        "model.diffusion_model.input_blocks.0.0.weight",
        &[64, 4, 3, 3],
    ),
    (
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
        &[64, 64, 3, 3],
    ),
    (
        "model.diffusion_model.input_blocks.1.0.out_layers.3.weight",
        &[64, 64, 3, 3],
    ),
    (
        "model.diffusion_model.input_blocks.2.0.op.weight",
        &[64, 64, 3, 3],
    ),
    (
        "model.diffusion_model.middle_block.1.proj_in.weight",
        &[64, 64],
    ),
    (
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight",
        &[64, 64],
    ),
    (
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        &[64, 128],
    ),
    ("model.diffusion_model.out.2.weight", &[4, 64, 3, 3]),
    ("model.diffusion_model.label_emb.0.0.weight", &[64, 48]),
    ("first_stage_model.encoder.conv_in.weight", &[32, 3, 3, 3]),
    (
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
        &[32, 32, 3, 3],
    ),
    ("first_stage_model.decoder.conv_in.weight", &[32, 4, 3, 3]),
    ("first_stage_model.decoder.conv_out.weight", &[3, 32, 3, 3]),
    (
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        &[9, 64],
    ),
    (
        "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
        &[7, 64],
    ),
    (
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        &[8, 64],
    ),
    (
        "conditioner.embedders.1.model.token_embedding.weight",
        &[9, 64],
    ),
    (
        "conditioner.embedders.1.model.positional_embedding",
        &[7, 64],
    ),
    (
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight",
        &[8, 64],
    ),
    ("conditioner.embedders.1.model.text_projection", &[64, 24]),
];

/// A folder with the file, and the options that name it.
fn checkpoint() -> (Scratch, ModelOptions) {
    let scratch = Scratch::new();
    let path = scratch.path().join("m.safetensors");
    let mut file = TensorFile::default();
    for (name, shape) in TENSORS {
        file.insert(name, &Tensor::zeros(shape, (Kind::Half, Device::Cpu)));
    }
    std::fs::write(&path, file.to_bytes().unwrap()).unwrap();
    let options = options(path.to_str().unwrap());
    (scratch, options)
}

#[test]
fn tokenizers_come_from_the_base_models_repository_and_nothing_else_does() {
    let hub = FakeHub::start();
    hub.add(
        BASE,
        &[
            ("model_index.json", b"{}"),
            ("unet/config.json", b"{\"of\": \"the repository\"}"),
            ("tokenizer/vocab.json", b"first"),
            ("tokenizer/merges.txt", b"merges"),
            ("tokenizer_2/vocab.json", b"second"),
            ("tokenizer_2/special_tokens_map.json", b"special"),
        ],
    );
    let (scratch, options) = checkpoint();
    let mut settings = settings(&hub, &scratch);
    let files = locate(&options, &settings).unwrap();
    assert_eq!(files.revision(), None);
    let unet = files.config("unet/config.json").unwrap();
    let sizes = unet.get("addition_time_embed_dim").unwrap();
    assert_eq!(sizes, 4, "(48 - 24) / 6");
    assert_eq!(hub.take_requests().len(), 0, "the file tells that itself");

    let texts = |files: &ModelFiles| {
        assert_eq!(files.text("tokenizer/vocab.json").unwrap(), "first");
        assert_eq!(files.text("tokenizer_2/vocab.json").unwrap(), "second");
        let special = "special_tokens_map.json";
        let first = files.optional_text(&format!("tokenizer/{special}"));
        assert_eq!(first.unwrap(), None);
        let second = files.optional_text(&format!("tokenizer_2/{special}"));
        assert_eq!(second.unwrap().as_deref(), Some("special"));
    };
    texts(&files);
    let fetched: Vec<String> = hub
        .take_downloads()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert!(!fetched.is_empty());
    for path in fetched {
        assert!(path.contains("/tokenizer"), "{path} was fetched");
    }
    // The cache has them now.
    settings.offline = Some("HF_HUB_OFFLINE");
    hub.take_requests();
    texts(&locate(&options, &settings).unwrap());
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn tokenizers_beside_the_file_need_no_hub() {
    let (scratch, options) = checkpoint();
    for folder in ["tokenizer", "tokenizer_2"] {
        let folder = scratch.path().join(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("vocab.json"), "beside").unwrap();
    }
    let no_hub = || panic!("the hub was asked for");
    let files = ModelFiles::locate_with(&options, &no_hub).unwrap();
    assert_eq!(files.text("tokenizer_2/vocab.json").unwrap(), "beside");
    let none = files.optional_text("tokenizer/special_tokens_map.json");
    assert_eq!(none.unwrap(), None);
    assert_says(
        &message(files.text("tokenizer/merges.txt")),
        &["no file tokenizer/merges.txt", "m.safetensors"],
    );
}

#[test]
fn a_base_model_that_can_not_be_reached_is_named_with_the_way_out() {
    let hub = FakeHub::start();
    let (scratch, options) = checkpoint();
    hub.go_down();
    let files = locate(&options, &settings(&hub, &scratch)).unwrap();
    let said = message(files.text("tokenizer/vocab.json"));
    assert_says(
        &said,
        &["m.safetensors", BASE, "tokenizer and tokenizer_2", "beside"],
    );
}

#[test]
fn fetch_lists_the_vocabulary_of_a_checkpoint_in_one_file() {
    let hub = FakeHub::start();
    let names = [
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer_2/vocab.json",
        "tokenizer_2/merges.txt",
        "tokenizer_2/special_tokens_map.json",
    ];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
    hub.add(BASE, &files);
    hub.change(BASE, |repository| {
        let unread = ("unet/config.json".to_owned(), b"{}".to_vec());
        repository.files.extend([unread]);
    });
    let (scratch, _) = checkpoint();
    let listed = |line: &str| {
        let output = exits_with(oneactor(&hub, &scratch, line), 0);
        assert_says(
            &told(&output),
            &["m.safetensors is a file on this machine", BASE],
        );
        lines(&output)
    };
    let planned = listed("fetch m.safetensors --dry-run");
    for name in names {
        let found = planned.iter().filter(|path| path.ends_with(name)).count();
        assert_eq!(found, 1, "{name}: {planned:?}");
    }
    assert_eq!(planned.len(), names.len());
    assert_eq!(listed("fetch m.safetensors"), planned);
    assert!(planned.iter().all(|path| Path::new(path).is_file()));

    // With those files beside it nothing is wanted of the hub.
    for folder in ["tokenizer", "tokenizer_2"] {
        std::fs::create_dir(scratch.path().join(folder)).unwrap();
        std::fs::write(scratch.path().join(folder).join("vocab.json"), "{}").unwrap();
    }
    let beside = exits_with(oneactor(&hub, &scratch, "fetch m.safetensors"), 0);
    assert_says(&told(&beside), &["there is nothing to fetch"]);
    assert_eq!(lines(&beside).len(), 0);
}
