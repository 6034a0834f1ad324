//! Token ids, compared with transformers' CLIPTokenizer on 2,400 prompts and ten tokenizers, and
//! for all layouts that the files of a tokenizer can have in a folder
//! (`scripts/parity/expected_tokenizer_files.py`); places of words, compared with a tokenizer that
//! `scripts/parity/clip_bpe.py` implements.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{fixture, json};
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
    /// One list for each occurrence; null if the limit cuts off the word.
    positions: Vec<Option<Vec<usize>>>,
}

fn tokenizer(folder: &str) -> ClipTokenizer {
    let folder = if folder.starts_with("src/") {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
    } else {
        fixture(folder)
    };
    tokenizer_in(&folder).expect("transformers takes these files")
}

/// The tokenizer of those files that are in a folder.
fn tokenizer_in(folder: &Path) -> anyhow::Result<ClipTokenizer> {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    ClipTokenizer::new(&TokenizerFiles {
        tokenizer: text("tokenizer.json").as_deref(),
        vocab: text("vocab.json").as_deref(),
        merges: text("merges.txt").as_deref(),
        special_tokens_map: text("special_tokens_map.json").as_deref(),
        tokenizer_config: text("tokenizer_config.json").as_deref(),
        added_tokens: text("added_tokens.json").as_deref(),
        ..TokenizerFiles::default()
    })
}

/// The prompt as one text encoder reads it.
fn read(tokenizer: &ClipTokenizer, prompt: &str) -> PromptTokens {
    let tokenizers = std::slice::from_ref(tokenizer);
    PromptTokens::new(tokenizers, prompt, PromptOptions::default(), &[])
        .expect("every text has tokens")
}

#[derive(Deserialize)]
struct Case {
    texts: Vec<String>,
    ids: Vec<Vec<i64>>,
    length: usize,
    tokens: i64,
}

/// Tokens of the toy, whose files all cases are made from.
const TOY_TOKENS: i64 = 1756;

#[test]
fn tokenizer_files_and_added_tokens_are_used_as_in_transformers() {
    let cases: BTreeMap<String, Case> = json("tokenizer_files/expected.json");
    assert!(cases.len() > 15, "found only {} cases", cases.len());
    let mut failures = Vec::new();
    for (name, case) in cases {
        let folder = fixture(&format!("tokenizer_files/{name}"));
        let tokenizer = tokenizer_in(&folder).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(tokenizer.model_max_length(), case.length, "{name}");
        assert!(tokenizer.unused_rows(case.tokens).is_none(), "{name}");
        assert!(tokenizer.unused_rows(case.tokens + 1).is_some(), "{name}");
        assert!(tokenizer.check_encoder(case.tokens, 77).is_ok(), "{name}");
        assert!(
            tokenizer.check_encoder(case.tokens - 1, 77).is_err(),
            "{name}"
        );
        let has_words = case.tokens > TOY_TOKENS && name != "special_token_behind_the_vocabulary";
        assert_eq!(tokenizer.has_added_words(), has_words, "{name}");
        for (text, ids) in case.texts.iter().zip(&case.ids) {
            let tokens = read(&tokenizer, text);
            if tokens.ids(0) != ids {
                let found = tokens.ids(0);
                failures.push(format!(
                    "{name}: {text:?}: found {found:?}, expected {ids:?}"
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} texts differ\n  {}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n  ")
    );
}

#[test]
fn all_tokens_of_a_learnt_word_share_its_place() {
    let tokenizer = tokenizer_in(&fixture("tokenizer_files/vectors")).expect("it is whole");
    let tokens = read(&tokenizer, "a photo of <mychar> at night");
    assert_eq!(tokens.places("<mychar>"), Ok(vec![vec![vec![4, 5, 6]]]));
    let weighted = PromptOptions {
        prompt_weights: true,
        ..PromptOptions::default()
    };
    let prompt = "a photo of (<mychar>:1.5) at night";
    let tokenizers = std::slice::from_ref(&tokenizer);
    let of_weighted = PromptTokens::new(tokenizers, prompt, weighted, &[]).expect("it is short");
    assert_eq!(of_weighted.ids(0), tokens.ids(0));
    let weights = of_weighted.weights(0).expect("three are not 1");
    assert_eq!(weights[3..8], [1.0, 1.5, 1.5, 1.5, 1.0]);
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
