//! CLIP whole (arXiv 2103.00020): texts and pictures in one space, `CLIPModel` of transformers.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::clip_text_model::{ClipTextConfig, ClipTextModel};
use super::clip_vision_model::{ClipVisionConfig, ClipVisionModel};
use crate::error::model;
use crate::io::weights::WeightPath;

/// `config.json` of a `CLIPModel`.
#[derive(Clone, Debug, Deserialize)]
pub struct ClipConfig {
    /// Class names.
    pub architectures: Vec<String>,
    /// The text half, as it stands in the file.
    pub text_config: Map<String, Value>,
    /// The vision half.
    pub vision_config: ClipVisionConfig,
    /// Width of the common space; overrules that of the halves.
    pub projection_dim: i64,
}

impl ClipConfig {
    /// The text half with transformers' defaults of `CLIPTextConfig` where the file has no value: older
    /// files leave out what is default.
    ///
    /// # Errors
    /// When a field has the wrong type.
    pub fn text(&self) -> Result<ClipTextConfig> {
        let mut text = Map::from_iter([
            ("hidden_size".to_owned(), json!(512)),
            ("intermediate_size".to_owned(), json!(2048)),
            ("num_hidden_layers".to_owned(), json!(12)),
            ("num_attention_heads".to_owned(), json!(8)),
            ("hidden_act".to_owned(), json!("quick_gelu")),
            ("layer_norm_eps".to_owned(), json!(1e-5)),
            ("max_position_embeddings".to_owned(), json!(77)),
            ("vocab_size".to_owned(), json!(49408)),
            // Not transformers' 49407: a file without it is old, and was made with 2.
            ("eos_token_id".to_owned(), json!(2)),
        ]);
        text.extend(self.text_config.clone());
        text.insert("projection_dim".to_owned(), json!(self.projection_dim));
        text.insert(
            "architectures".to_owned(),
            json!(["CLIPTextModelWithProjection"]),
        );
        serde_json::from_value(Value::Object(text))
            .map_err(|error| model(format!("config.json: text_config: {error}")))
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
    /// When the config is of another class, or its sizes can not go together.
    pub fn new(path: &WeightPath, config: &ClipConfig) -> Result<Self> {
        if !config.architectures.iter().any(|name| name == "CLIPModel") {
            return Err(model(format!(
                "config.json: architectures: found {:?}, expected CLIPModel",
                config.architectures
            )));
        }
        Ok(ClipModel {
            text: ClipTextModel::new(path, &config.text()?)?,
            vision: ClipVisionModel::new(path, &config.vision_config, config.projection_dim)?,
        })
    }

    /// The side of the pictures that it reads, in pixels.
    pub fn image_size(&self) -> i64 {
        self.vision.image_size()
    }

    /// Text embeddings `[B, projection_dim]` of `input_ids [B, S]`, not of unit length.
    pub fn text_embeds(&self, input_ids: &Tensor) -> Tensor {
        self.text.forward(input_ids).pooled
    }

    /// Image embeddings `[B, projection_dim]` of prepared pictures, not of unit length.
    pub fn image_embeds(&self, pixel_values: &Tensor) -> Tensor {
        self.vision.forward(pixel_values)
    }
}
