//! The methods that the paper compares with, written from their papers on the same backbone, so that a
//! comparison shows differences of methods and not of programs.

pub mod consistory;
pub mod dreambooth_lora;
pub mod ip_adapter;
pub mod textual_inversion;

use std::path::Path;

use anyhow::Result;
use tch::Tensor;

use ip_adapter::{ImageSource, IpAdapter};

use crate::backbone::guidance::Guidance;
use crate::backbone::{Backbone, Conditioning};
use crate::error::usage;
use crate::method::base_set::BaseSet;
use crate::method::learner::Course;
use crate::method::templates;
use crate::tokenizer::prompt_tokens::PromptTokens;

/// The inputs of a picture.
pub struct Scene<'a> {
    /// The model.
    pub backbone: &'a Backbone,
    /// The prompt, which contains the base words.
    pub prompt: &'a PromptTokens,
    /// The branch without the prompt.
    pub negative: &'a Conditioning,
    /// Height and width in pixels.
    pub size: [i64; 2],
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// The number of the base image whose subject is drawn, for methods that use one.
    pub target: Option<usize>,
}

/// Loads a baseline's data about its subject from the file that the flags name; for IP-Adapter from `image`.
///
/// # Errors
/// When the file cannot be used.
pub fn load(
    name: &str,
    path: &Path,
    image: Option<&ImageSource>,
    backbone: &Backbone,
) -> Result<Box<dyn Baseline>> {
    Ok(match (name, image) {
        ("consistory", _) => Box::new(consistory::Consistory::read(path)?),
        ("textual-inversion", _) => Box::new(textual_inversion::LearntWord::read(path, backbone)?),
        ("dreambooth-lora", _) => Box::new(dreambooth_lora::TunedNetworks::new(path, backbone)?),
        ("ip-adapter", Some(image)) => Box::new(IpAdapter::load(image, backbone)?),
        _ => unreachable!("the command line knows no other method"),
    })
}

/// A method that keeps one subject the same.
pub trait Baseline {
    /// The guidance for the pictures of a prompt.
    ///
    /// # Errors
    /// When the prompt does not contain the base word, or the method does not fit the model.
    fn guidance(&self, scene: &Scene) -> Result<Box<dyn Guidance>>;
}

/// The settings with which a baseline is tuned on a base set.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// The target among the base images.
    pub target: usize,
    /// The kind of the subject, which decides the templates.
    pub kind: templates::SubjectKind,
    /// Steps, learning rate and seed.
    pub course: Course,
}

impl Lesson {
    /// The only base word of the base set. Also checks that the base set fits the model and contains the target.
    fn base_word<'b>(&self, backbone: &Backbone, base: &'b BaseSet) -> Result<&'b str> {
        base.facts.check_model(&backbone.facts, "the base set")?;
        let n = base.num_base_images();
        if self.target >= n {
            return Err(usage(format!(
                "target {}: expected 0 to {}",
                self.target,
                n - 1
            )));
        }
        match &base.facts.base_words[..] {
            [word] => Ok(word),
            words => Err(usage(format!(
                "the base images show {} subjects ({}), expected one",
                words.len(),
                words.join(", ")
            ))),
        }
    }

    /// z_0 of the target `[1, C, H, W]`.
    fn target(&self, backbone: &Backbone, base: &BaseSet) -> Tensor {
        let target = base.latents.narrow(0, self.target as i64, 1);
        target.to_device(backbone.device())
    }

    /// The other images, as indices of base images.
    fn others(&self, base: &BaseSet) -> Vec<i64> {
        let others = (0..base.num_base_images()).filter(|&i| i != self.target);
        others.map(|i| i as i64).collect()
    }
}
