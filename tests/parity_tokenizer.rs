//! Token ids against transformers' CLIPTokenizer on 2,400 prompts and ten tokenizers, and places
//! of words against a tokenizer that `scripts/parity/clip_bpe.py` writes out.

mod common;

use common::{fixture, json};
use oneactor::tokenizer::prompt_tokens::{PromptOptions, PromptTokens};
use oneactor::tokenizer::{ClipTokenizer, TokenizerFiles, WordError};
use serde::Deserialize;

const TOKENIZERS: [(&str, &str); 10] = [
    ("toy_tokenizer", "src/io/toy/tokenizer"),
    ("toy_tokenizer_2", "src/io/toy/tokenizer_2"),
    ("narrow_tokenizer", "narrow/tokenizer"),
    ("narrow_tokenizer_2", "narrow/tokenizer_2"),
    ("words_tokenizer", "words/tokenizer"),
    ("words_tokenizer_2", "words/tokenizer_2"),
    ("convproj_tokenizer", "convproj/tokenizer"),
    ("convproj_tokenizer_2", "convproj/tokenizer_2"),
    ("sd15_tokenizer", "sd15/tokenizer"),
    ("sd21_tokenizer", "sd21/tokenizer"),
];

#[derive(Deserialize)]
struct ExpectedIds {
    prompts: Vec<String>,
    ids: Vec<Vec<i64>>,
    words: Vec<WordCase>,
}

#[derive(Deserialize)]
struct WordCase {
    word: String,
    prompt: String,
    /// One list for each occurrence, null where the limit cuts it off.
    positions: Vec<Option<Vec<usize>>>,
}

fn tokenizer(folder: &str) -> ClipTokenizer {
    let folder = if folder.starts_with("src/") {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
    } else {
        fixture(folder)
    };
    let text = |name: &str| {
        std::fs::read_to_string(folder.join(name)).expect("tokenizer folders are whole")
    };
    let (vocab, merges) = (text("vocab.json"), text("merges.txt"));
    let (map, config) = (
        text("special_tokens_map.json"),
        text("tokenizer_config.json"),
    );
    let files = TokenizerFiles {
        vocab: &vocab,
        merges: &merges,
        special_tokens_map: Some(&map),
        tokenizer_config: Some(&config),
    };
    ClipTokenizer::new(&files).expect("transformers takes these files")
}

/// The prompt as one text encoder reads it.
fn read(tokenizer: &ClipTokenizer, prompt: &str) -> PromptTokens {
    let tokenizers = std::slice::from_ref(tokenizer);
    PromptTokens::new(tokenizers, prompt, PromptOptions::default(), &[])
        .expect("every text has tokens")
}

#[test]
fn ids_are_equal_on_every_prompt() {
    let mut failures = Vec::new();
    for (name, folder) in TOKENIZERS {
        let tokenizer = tokenizer(folder);
        let expected: ExpectedIds = json(&format!("tokenizers/{name}.json"));
        let distinct: std::collections::BTreeSet<&String> = expected.prompts.iter().collect();
        assert!(
            distinct.len() >= 2000,
            "{name}: only {} different prompts",
            distinct.len()
        );
        let before = failures.len();
        for (prompt, ids) in expected.prompts.iter().zip(&expected.ids) {
            let tokens = read(&tokenizer, prompt);
            let found = tokens.ids(0);
            if found != ids {
                let at = found.iter().zip(ids).position(|(a, b)| a != b);
                let some: String = prompt.chars().take(60).collect();
                let near = |ids: &[i64]| ids[..ids.len().min(16)].to_vec();
                failures.push(format!(
                    "{name}: {some:?}: first difference at {at:?}: found {:?}, expected {:?}",
                    near(found),
                    near(ids)
                ));
            }
        }
        println!(
            "parity {name}: {} prompts, {} differ",
            distinct.len(),
            failures.len() - before
        );
    }
    assert!(
        failures.is_empty(),
        "{} prompts differ\n  {}",
        failures.len(),
        failures[..failures.len().min(30)].join("\n  ")
    );
}

#[test]
fn words_have_the_places_of_their_own_tokens() {
    let mut failures = Vec::new();
    for (name, folder) in TOKENIZERS {
        let tokenizer = tokenizer(folder);
        for case in json::<ExpectedIds>(&format!("tokenizers/{name}.json")).words {
            let tokens = read(&tokenizer, &case.prompt);
            let found = tokens.places(&case.word).map(|places| places[0].clone());
            let whole: Vec<Vec<usize>> = case.positions.iter().flatten().cloned().collect();
            let error = found.as_ref().err().copied();
            let as_expected = match (&found, case.positions.is_empty(), whole.is_empty()) {
                (Ok(found), false, false) => *found == whole,
                (Err(_), true, _) => error == Some(WordError::Missing),
                (Err(_), false, true) => error == Some(WordError::CutOff),
                _ => false,
            };
            if !as_expected {
                let found = found.map_err(|e| e.to_string());
                failures.push(format!(
                    "{name}: {:?} in {:?}: found {found:?}, expected {:?}",
                    case.word, case.prompt, case.positions
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} fail\n  {}",
        failures.len(),
        failures.join("\n  ")
    );
}
