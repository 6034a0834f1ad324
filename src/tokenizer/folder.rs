//! A tokenizer's folder among a model's files.

use anyhow::{Context, Result};

use super::{ClipTokenizer, TokenizerFiles};
use crate::io::config_file::Notes;
use crate::io::model_files::{ModelFiles, Needs};

/// Vocabulary and merges in one file, which transformers 5 writes and prefers.
const IN_ONE: &str = "tokenizer.json";
/// The same in two files, as in older folders.
const APART: [&str; 2] = ["vocab.json", "merges.txt"];
const EITHER: &str = "a tokenizer has tokenizer.json, or vocab.json and merges.txt";
/// Further files that are read if they exist.
const BESIDE: [&str; 3] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

fn path_in(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

/// Reads the tokenizer in `folder`; `""` if the files belong to a single encoder.
///
/// # Errors
/// When a file is missing, or as [`ClipTokenizer::new`].
pub fn read(files: &ModelFiles, folder: &str) -> Result<ClipTokenizer> {
    let optional = |name: &str| files.optional_text(&path_in(folder, name));
    let tokenizer = optional(IN_ONE)?;
    let [vocab, merges] = match tokenizer {
        Some(_) => [None, None],
        None => {
            let required = |name: &str| files.text(&path_in(folder, name)).context(EITHER);
            [Some(required(APART[0])?), Some(required(APART[1])?)]
        }
    };
    let [config, map, added] = [
        optional(BESIDE[0])?,
        optional(BESIDE[1])?,
        optional(BESIDE[2])?,
    ];
    let what = match folder {
        "" => "the tokenizer",
        folder => folder,
    };
    let notes = Notes::default();
    let tokenizer = ClipTokenizer::new(&TokenizerFiles {
        notes: notes.clone(),
        tokenizer: tokenizer.as_deref(),
        vocab: vocab.as_deref(),
        merges: merges.as_deref(),
        tokenizer_config: config.as_deref(),
        special_tokens_map: map.as_deref(),
        added_tokens: added.as_deref(),
    })
    .with_context(|| format!("loading {what} of {}", files.name()))?;
    for note in notes.take() {
        files.note(format!("{what}: {note}"));
    }
    Ok(tokenizer)
}

/// Adds the files that the tokenizer in `folder` needs.
///
/// # Errors
/// When a file is missing, or the hub cannot be asked.
pub fn require(needs: &mut Needs, folder: &str) -> Result<()> {
    if !take(needs, folder)? {
        for name in APART {
            needs.require(&path_in(folder, name)).context(EITHER)?;
        }
    }
    Ok(())
}

/// As [`require`], for a folder that may have no tokenizer. Returns whether it has all files that a
/// tokenizer needs.
///
/// # Errors
/// When the hub cannot be asked.
pub fn take(needs: &mut Needs, folder: &str) -> Result<bool> {
    let mut take = |name: &str| needs.take(&path_in(folder, name));
    let is_there = take(IN_ONE)? || take(APART[0])? & take(APART[1])?;
    for name in BESIDE {
        take(name)?;
    }
    Ok(is_there)
}
