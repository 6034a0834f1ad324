//! The methods that the paper compares with, written from their papers and on the same backbone, so that a
//! comparison tells of methods and not of programs.

pub mod ip_adapter;

use std::path::Path;

use anyhow::Result;
use ip_adapter::{ImageSource, IpAdapter};

use crate::sdxl::denoise::Guidance;
use crate::sdxl::{Backbone, Conditioning};
use crate::tokenizer::prompt_tokens::PromptTokens;

/// What a picture is drawn from.
pub struct Scene<'a> {
    /// The model.
    pub backbone: &'a Backbone,
    /// The prompt, which holds the base words.
    pub prompt: &'a PromptTokens,
    /// The branch without the prompt.
    pub negative: &'a Conditioning,
    /// The base words of the subject.
    pub base_words: &'a [String],
    /// Height and width in pixels.
    pub size: [i64; 2],
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
}

/// What a baseline has of its subject, from the file that the flags name; IP-Adapter has it from `image`.
///
/// # Errors
/// When the file can not be used.
pub fn load(
    name: &str,
    path: &Path,
    image: Option<&ImageSource>,
    backbone: &Backbone,
) -> Result<Box<dyn Baseline>> {
    match (name, image) {
        ("ip-adapter", Some(image)) => Ok(Box::new(IpAdapter::load(image, backbone)?)),
        _ => anyhow::bail!("{name}: {} can not be used yet", path.display()),
    }
}

/// A method that keeps one subject the same.
pub trait Baseline {
    /// What guides the pictures of a prompt.
    ///
    /// # Errors
    /// When the prompt does not hold the base word, or the method does not fit the model.
    fn guidance(&self, scene: &Scene) -> Result<Box<dyn Guidance>>;
}
