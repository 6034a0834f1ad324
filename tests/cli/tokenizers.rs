//! Tokenizers with words from textual inversion, and text encoders that do not fit their tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::Tensor;

use crate::{common, copy, folder, json as json_of, oneactor, text};

/// Writes the toy as a folder, and returns its number of tokens.
fn toy(folder: &Path) -> (PathBuf, u64) {
    let model = folder.join("model");
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/toy");
    copy(&toy, &model);
    let config = json_of(&model.join("text_encoder/config.json"));
    (
        model,
        config["vocab_size"].as_u64().expect("it is a number"),
    )
}

/// Sets a key of a JSON file.
fn set(path: &Path, key: &str, value: Value) {
    let mut changed = json_of(path);
    changed[key] = value;
    fs::write(path, changed.to_string()).expect("the folder is writable");
}

const PLAN: &str = "sample --no-actor --model model -p 'a <mychar>' --dry-run -o out";

#[test]
fn a_text_encoder_that_lacks_a_row_for_a_token_is_refused_before_anything_is_loaded() {
    let folder = folder("row-missing");
    let (model, tokens) = toy(&folder);
    let added = json!({"<mychar>": tokens}).to_string();
    fs::write(model.join("tokenizer_2/added_tokens.json"), added).expect("it is writable");
    let said = format!("the tokenizer has a token {tokens}, expected less than {tokens}");
    for line in [PLAN.to_owned(), PLAN.replace(" --dry-run", "")] {
        let run = oneactor(&folder, &line).exits_with(3).says(&said);
        run.says("text_encoder_2 of model: ").writes_nothing();
    }
}

#[test]
fn a_text_encoder_with_more_rows_than_tokens_gives_a_note() {
    let folder = folder("rows-unused");
    let (model, tokens) = toy(&folder);
    let rows = json!(tokens + 2);
    set(&model.join("text_encoder/config.json"), "vocab_size", rows);
    let path = model.join("text_encoder/model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).expect("it is whole");
    let embeddings = tensors
        .iter_mut()
        .find(|(name, _)| name.ends_with("token_embedding.weight"));
    let (_, embeddings) = embeddings.expect("a text encoder has them");
    let further = embeddings.narrow(0, 0, 2);
    *embeddings = Tensor::cat(&[&*embeddings, &further], 0);
    Tensor::write_safetensors(&tensors, &path).expect("the folder is writable");
    let said = format!(
        "{} embeddings for the {tokens} tokens of its tokenizer",
        tokens + 2
    );
    let run = oneactor(&folder, PLAN).exits_with(0).says(&said);
    assert_eq!(
        run.stderr.matches("embeddings for the").count(),
        1,
        "{}",
        run.stderr
    );
}

#[test]
fn a_folder_without_a_tokenizer_is_refused_with_the_files_it_needs() {
    let folder = folder("no-tokenizer");
    let (model, _) = toy(&folder);
    fs::remove_file(model.join("tokenizer/vocab.json")).expect("it is there");
    let run = oneactor(&folder, PLAN).exits_with(3);
    run.says("a tokenizer has tokenizer.json, or vocab.json and merges.txt: no file tokenizer/vocab.json");
}

#[test]
fn a_learnt_word_of_two_vectors_is_a_base_word_in_every_command() {
    let folder = folder("learnt-word");
    copy(&common::fixture("folders/learnt"), &folder.join("model"));
    let small = "--steps 2 --width 64 --height 64";
    let base =
        "generate-base --model model -p 'a photo of <figure>' --subject '<figure>' --num-images 2";
    oneactor(&folder, &format!("{base} {small} -o robot --dry-run"))
        .exits_with(0)
        .says("prompt \"a photo of <figure>\": 8 of at most ")
        .says("<figure> at 7-8");
    oneactor(&folder, &format!("{base} {small} -o robot")).exits_with(0);
    oneactor(
        &folder,
        "tune robot --target 1 --max-steps 2 --num-auxiliary 1",
    )
    .exits_with(0);
    let sample = "sample robot -p 'a (<figure>:1.2) at night' --prompt-weights --long-prompts";
    oneactor(&folder, &format!("{sample} {small} -o out")).exits_with(0);
    let manifest = text(&folder.join("out/manifest.jsonl"));
    assert!(manifest.contains("<figure>"), "{manifest}");
}
