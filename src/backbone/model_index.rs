//! `model_index.json`: the classes of a model's parts, and the parameters of its pipeline.

use anyhow::Result;
use serde::Deserialize;

use super::pipeline::Pipeline;
use crate::io::config_file::Field::{Harmless, Read};
use crate::io::config_file::{Class, ConfigFile, Fields};

/// The parameters of the pipeline.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelIndex {
    /// Whether a missing negative prompt means zeros. SD encodes the empty text and has no such field.
    pub force_zeros_for_empty_prompt: bool,
}

impl Default for ModelIndex {
    fn default() -> Self {
        ModelIndex {
            force_zeros_for_empty_prompt: true,
        }
    }
}

/// Parts of both pipelines. The classes of parts that draw are checked when their own files are read.
const PARTS: &Fields = &[
    ("vae", Harmless("a part")),
    ("text_encoder", Harmless("a part")),
    ("tokenizer", Harmless("a part")),
    ("unet", Harmless("a part")),
    ("scheduler", Harmless("a part")),
    (
        "feature_extractor",
        Harmless("only for the parts that are not run"),
    ),
    (
        "image_encoder",
        Harmless("only for an adapter that the user names"),
    ),
];

/// How each parameter of SDXL's pipeline is treated.
pub const STABLE_DIFFUSION_XL: Class = Class {
    name: "StableDiffusionXLPipeline",
    fields: &[
        PARTS,
        &[
            ("text_encoder_2", Harmless("a part")),
            ("tokenizer_2", Harmless("a part")),
            ("force_zeros_for_empty_prompt", Read),
            ("add_watermarker", Harmless("nothing is hidden in pictures")),
        ],
    ],
    besides: &[],
};

/// How each parameter of SD's pipeline is treated.
pub const STABLE_DIFFUSION: Class = Class {
    name: "StableDiffusionPipeline",
    fields: &[
        PARTS,
        &[
            ("safety_checker", Harmless("it is not run")),
            ("requires_safety_checker", Harmless("it is not run")),
        ],
    ],
    besides: &[],
};

impl ModelIndex {
    /// Reads the file of a model of this architecture.
    ///
    /// # Errors
    /// When a field has the wrong type.
    pub fn read(file: &ConfigFile, pipeline: Pipeline) -> Result<Self> {
        match pipeline {
            Pipeline::StableDiffusionXl => file.read(&STABLE_DIFFUSION_XL),
            Pipeline::StableDiffusion => {
                let _: Self = file.read(&STABLE_DIFFUSION)?;
                Ok(ModelIndex {
                    force_zeros_for_empty_prompt: false,
                })
            }
        }
    }
}

/// Refuses an index in which a part that draws is missing or belongs to another library, or in which a
/// tokenizer has another class. diffusers reads these from the index and never from the part's own file. With
/// `other_vae` the model's own VAE is not checked.
///
/// # Errors
/// Names the part, the value found and the supported value.
pub(super) fn check_parts(file: &ConfigFile, pipeline: Pipeline, other_vae: bool) -> Result<()> {
    let of_diffusers = ["unet", "vae", "scheduler"].map(|name| (name, "diffusers"));
    let texts = [pipeline.text_encoders(), pipeline.tokenizers()].concat();
    let of_transformers = texts.iter().map(|name| (*name, "transformers"));
    for (name, library) in of_diffusers.into_iter().chain(of_transformers) {
        if other_vae && name == "vae" {
            continue;
        }
        let is_tokenizer = pipeline.tokenizers().contains(&name);
        let pair = file
            .get(name)
            .and_then(|pair| <[&str; 2]>::deserialize(pair).ok());
        let is_computed = pair.is_some_and(|[from, class]| {
            from == library && (!is_tokenizer || TOKENIZERS.contains(&class))
        });
        if !is_computed {
            let class = if is_tokenizer {
                TOKENIZERS.map(|name| format!("\"{name}\"")).join(" or ")
            } else {
                "its class".to_owned()
            };
            return Err(file.wrong(name, &format!("[\"{library}\", {class}]")));
        }
    }
    Ok(())
}

/// Classes of transformers for the same tokenizer.
const TOKENIZERS: [&str; 2] = ["CLIPTokenizer", "CLIPTokenizerFast"];
