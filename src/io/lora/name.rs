//! The names of the layers in LoRA files.

/// The components that a LoRA can change.
pub(super) const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

/// A layer as a file names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) component: &'static str,
    /// The module's name in diffusers, or that name or the original's name with `_` for `.`. Always
    /// without `text_model`, which newer versions of transformers omit.
    pub(super) module: String,
}
