//! A network inside a single-file checkpoint.

use std::path::PathBuf;

use super::ldm_names::LdmNames;

/// A network inside a single file. Its tensors have the original's names, which begin with
/// `prefix`.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) path: PathBuf,
    pub(super) bytes: &'static [u8],
    pub(super) prefix: &'static str,
    pub(super) names: LdmNames,
}
