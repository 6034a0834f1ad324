//! The tokenizers of a checkpoint in one file: beside the file, or in the program; never from the
//! hub.

use oneactor::io::tensors::TensorFile;
use tch::{Device, Kind, Tensor};

use super::fetch::{exits_with, lines, oneactor, told};
use super::*;

/// The tensors that sizes are read from, in the smallest SDXL.
const TENSORS: [(&str, &[i64]); 21] = [
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
        "model.diffusion_model.input_blocks.3.0.out_layers.3.weight",
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
fn a_file_without_tokenizers_needs_no_hub() {
    let (_scratch, options) = checkpoint();
    let files = ModelFiles::locate_with(&options, &|| panic!("the hub was asked for")).unwrap();
    assert_eq!(files.revision(), None);
    let unet = files.config("unet/config.json").unwrap();
    let sizes = unet.get("addition_time_embed_dim").unwrap();
    assert_eq!(sizes, 4, "(48 - 24) / 6");
    for (folder, pad) in [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")] {
        let special = files
            .config(&format!("{folder}/special_tokens_map.json"))
            .unwrap();
        assert_eq!(special.text("pad_token"), Some(pad));
        let vocabulary = files.text(&format!("{folder}/vocab.json")).unwrap();
        assert!(vocabulary.contains("\"hobbit</w>\":"), "it is CLIP's");
        let none = files.optional_text(&format!("{folder}/tokenizer.json"));
        assert_eq!(none.unwrap(), None);
    }
}

/// The vocabulary used to be fetched from a repository. Its files in the cache are ignored.
#[test]
fn the_vocabulary_in_the_program_is_taken_before_one_in_the_cache() {
    const BASE: &str = "stabilityai/stable-diffusion-xl-base-1.0";

    let hub = FakeHub::start();
    hub.add(BASE, &[("tokenizer/vocab.json", b"{\"cached\": 0}")]);
    let (scratch, options) = checkpoint();
    let settings = settings(&hub, &scratch);
    let repository = locate(&super::options(BASE), &settings).unwrap();
    repository.text("tokenizer/vocab.json").unwrap();
    hub.take_requests();
    let files = locate(&options, &settings).unwrap();
    let vocabulary = files.text("tokenizer/vocab.json").unwrap();
    assert!(!vocabulary.contains("cached"));
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
fn a_checkpoint_in_one_file_needs_no_fetch() {
    let hub = FakeHub::start();
    let (scratch, _) = checkpoint();
    for line in ["fetch m.safetensors --dry-run", "fetch m.safetensors"] {
        let output = exits_with(oneactor(&hub, &scratch, line), 0);
        assert_says(
            &told(&output),
            &["m.safetensors is a file on this machine: there is nothing to fetch"],
        );
        assert_eq!(lines(&output).len(), 0);
    }
    assert_eq!(hub.take_requests().len(), 0);
}
