//! Values of a `config.json` that come in more than one form.

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
