//! The layers that a LoRA can be for, as its file names them.

/// The components.
pub(super) const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

/// A layer as a file names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) component: &'static str,
    /// diffusers' name of the module, or the same or the original's with `_` for `.`; without
    /// `text_model`, which newer versions of transformers leave out.
    pub(super) module: String,
}
