//! The whole CLIP (arXiv 2103.00020), which embeds texts and pictures in one space: `CLIPModel` of
//! transformers.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::clip_vision_model::{self, ClipVisionConfig, ClipVisionModel};
use crate::io::config_file::Field::{Harmless, Read};
use crate::io::config_file::{Class, ConfigFile};
use crate::io::weights::WeightPath;
use crate::models::clip_text_model::{ClipTextConfig, ClipTextModel};
use crate::models::config::{PRETRAINED, PRETRAINED_BEFORE_5};

/// `config.json` of a `CLIPModel`.
#[derive(Clone, Debug)]
pub struct ClipConfig {
    /// The text half.
    pub text: ClipTextConfig,
    /// The vision half.
    pub vision: ClipVisionConfig,
    /// Width of the common space; replaces the value in the two halves.
    pub projection_dim: i64,
}

/// The file's own fields; the two halves are read separately.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClipFields {
    #[serde(default = "projection_dim")]
    projection_dim: i64,
}

fn projection_dim() -> i64 {
    512
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "CLIPConfig",
    fields: &[
        &[
            ("projection_dim", Read),
            ("text_config", Harmless("read separately")),
            ("vision_config", Harmless("read separately")),
            ("logit_scale_init_value", Harmless("only before training")),
            ("initializer_factor", Harmless("only before training")),
        ],
        PRETRAINED,
    ],
    besides: &[
        PRETRAINED_BEFORE_5,
        &[
            ("text_config_dict", Harmless("read separately")),
            ("vision_config_dict", Harmless("read separately")),
        ],
    ],
};

impl ClipConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// When the file is of another class, or a field has an unsupported value.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let classes = file.get("architectures").and_then(Value::as_array);
        if !classes.is_some_and(|classes| classes.contains(&"CLIPModel".into())) {
            return Err(file.wrong("architectures", "CLIPModel"));
        }
        let fields: ClipFields = file.read(&CLASS)?;
        let projection_dim = fields.projection_dim;
        Ok(ClipConfig {
            text: ClipTextConfig::read_half(&half(file, "text_config")?, projection_dim)?,
            vision: half(file, "vision_config")?.read(&clip_vision_model::CLASS)?,
            projection_dim,
        })
    }
}

/// The fields of one half. Older files may repeat them under the key with `_dict` appended; as in
/// transformers, only these are then used.
pub(super) fn half(file: &ConfigFile, key: &str) -> Result<ConfigFile> {
    let old = file.part(&format!("{key}_dict"))?;
    if old.is_empty() {
        file.part(key)
    } else {
        Ok(old)
    }
}

/// Both halves of a CLIP.
pub struct ClipModel {
    text: ClipTextModel,
    vision: ClipVisionModel,
}

impl ClipModel {
    /// Reads both halves.
    ///
    /// # Errors
    /// When sizes in the config do not fit together.
    pub fn new(path: &WeightPath, config: &ClipConfig) -> Result<Self> {
        Ok(ClipModel {
            text: ClipTextModel::new(path, &config.text),
            vision: ClipVisionModel::new(path, &config.vision, config.projection_dim)?,
        })
    }

    /// The side in pixels of the pictures that the network reads.
    pub fn image_size(&self) -> i64 {
        self.vision.image_size()
    }

    /// Text embeddings `[B, projection_dim]` of `input_ids [B, S]`; their length is not normalised.
    pub fn text_embeds(&self, input_ids: &Tensor) -> Tensor {
        self.text.forward(input_ids).pooled
    }

    /// Image embeddings `[B, projection_dim]` of prepared pictures; their length is not normalised.
    pub fn image_embeds(&self, pixel_values: &Tensor) -> Tensor {
        self.vision.forward(pixel_values)
    }
}
