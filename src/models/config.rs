//! Values of a `config.json` that come in more than one form.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::model;

/// One number for all blocks, or one for each.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same for every block.
    Same(i64),
    /// One for each block, from the outermost.
    Each(Vec<i64>),
}

impl PerBlock {
    /// One number for each of `blocks` blocks.
    ///
    /// # Errors
    /// When the list has another length; the message names `key`.
    pub fn expand(&self, blocks: usize, key: &str) -> Result<Vec<i64>> {
        match self {
            PerBlock::Same(n) => Ok(vec![*n; blocks]),
            PerBlock::Each(list) if list.len() == blocks => Ok(list.clone()),
            PerBlock::Each(list) => Err(model(format!(
                "{key}: found {} values, expected {blocks}, one for each block",
                list.len()
            ))),
        }
    }
}

/// Refuses a value that this port does not know, so that no option of a checkpoint is ignored.
///
/// # Errors
/// When `found` is not `expected`.
pub fn expect<T: PartialEq + std::fmt::Debug>(key: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(model(format!(
        "{key}: found {found:?}, this port knows {expected:?} only"
    )))
}

/// Layers that a network may have: several times as many as the largest that is known.
pub const LAYERS: RangeInclusive<i64> = 1..=256;
/// Width of a token, channels of a map, side of a picture.
pub const WIDTHS: RangeInclusive<i64> = 1..=1 << 18;

/// Refuses sizes that no network has: a config of a few bytes could ask for more layers than there is memory for.
/// Whether the weights have them is seen when they are read. `sizes` are a key, what was found and what is allowed.
///
/// # Errors
/// Names the first key that is outside.
pub fn expect_sizes(file: &str, sizes: &[(&str, i64, RangeInclusive<i64>)]) -> Result<()> {
    match sizes
        .iter()
        .find(|(_, found, range)| !range.contains(found))
    {
        None => Ok(()),
        Some((key, found, range)) => Err(model(format!(
            "{file}: {key}: found {found}, expected {} to {}",
            range.start(),
            range.end()
        ))),
    }
}

/// Refuses numbers of layers that no U-Net has, `layers_per_block` and `transformer_layers_per_block` of so many blocks.
///
/// # Errors
/// As [`expect_sizes`], or when a list has another length.
pub fn expect_layers(
    file: &str,
    blocks: usize,
    (layers, transformers): (&PerBlock, &PerBlock),
) -> Result<()> {
    for (key, values, range) in [
        ("layers_per_block", layers, 1..=8),
        ("transformer_layers_per_block", transformers, 0..=32),
    ] {
        for value in values.expand(blocks, &format!("{file}: {key}"))? {
            expect_sizes(file, &[(key, value, range.clone())])?;
        }
    }
    Ok(())
}

/// Refuses widths of added conditions that no U-Net has, `addition_time_embed_dim` and
/// `projection_class_embeddings_input_dim`, where there are any.
///
/// # Errors
/// As [`expect_sizes`].
pub fn expect_added(file: &str, (time, projection): (Option<i64>, Option<i64>)) -> Result<()> {
    let widths = [
        ("addition_time_embed_dim", time),
        ("projection_class_embeddings_input_dim", projection),
    ];
    let sizes = widths.map(|(key, value)| (key, value.unwrap_or(1), WIDTHS));
    expect_sizes(file, &sizes)
}

/// Refuses any field of `rest` that has another value than the one that this port computes. `fixed`
/// lists fields with that value as JSON; null and absence mean the same. `file` is for the message.
///
/// # Errors
/// When a field has a value that changes the architecture.
pub fn expect_fixed(
    file: &str,
    rest: &serde_json::Map<String, serde_json::Value>,
    fixed: &[(&str, &str)],
) -> Result<()> {
    for (key, only) in fixed {
        let found = rest.get(*key).map(ToString::to_string);
        let same_number = |a: &str| a.parse::<f64>().ok().is_some_and(|a| only.parse() == Ok(a));
        match found.as_deref() {
            None | Some("null") => {}
            Some(value) if value == *only || same_number(value) => {}
            Some(value) => {
                return Err(model(format!(
                    "{file}: {key}: found {value}, this port knows {only} only"
                )));
            }
        }
    }
    Ok(())
}
