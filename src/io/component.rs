//! A network inside a checkpoint of one file.

use std::path::PathBuf;

use super::ldm_names::LdmNames;

/// A network inside a single file: its tensors begin with `prefix` and have the original's names.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) path: PathBuf,
    pub(super) bytes: &'static [u8],
    pub(super) prefix: &'static str,
    pub(super) names: LdmNames,
}
