//! The vision half of a CLIP by itself, with its preparation of pictures: what an image prompt is seen with.

use anyhow::Result;
use image::RgbImage;
use serde::Deserialize;
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor, no_grad};

use super::clip_vision_model::{ClipVisionConfig, ClipVisionModel};
use super::encoder_folder::{EncoderFolder, Unused};
use super::image_processor::ImageProcessor;
use crate::error::model;

/// What a whole CLIP has besides its vision half, and saved position indices.
const UNUSED: Unused = Unused {
    endings: &["logit_scale", "position_ids"],
    modules: &["text_model", "text_projection"],
};

/// The fields of `config.json` that say where the vision half's own fields stand.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architectures: Vec<String>,
    /// Of a whole CLIP; a vision half alone has the fields at the top.
    vision_config: Option<ClipVisionConfig>,
    /// Of transformers' `CLIPVisionConfig` where the file has none.
    #[serde(default = "projection_dim")]
    projection_dim: i64,
}

fn projection_dim() -> i64 {
    512
}

/// A CLIP's eyes.
pub struct ClipImageEncoder {
    network: ClipVisionModel,
    processor: ImageProcessor,
    projection_dim: i64,
    placement: (Device, Kind),
}

impl ClipImageEncoder {
    /// Loads a `CLIPVisionModelWithProjection`, or the vision half of a `CLIPModel`. Where the folder does not say how
    /// pictures are prepared, it is as CLIP's authors prepare them, which is what diffusers takes.
    ///
    /// # Errors
    /// When a file is missing or damaged, or is that of another network.
    pub fn load(folder: &EncoderFolder, placement: (Device, Kind)) -> Result<Self> {
        let fields: Map<String, Value> = folder.json("config.json")?;
        let raw: Raw = folder.json("config.json")?;
        let known = ["CLIPVisionModelWithProjection", "CLIPModel"];
        if !raw
            .architectures
            .iter()
            .any(|name| known.contains(&name.as_str()))
        {
            return Err(model(format!(
                "{}: config.json: architectures: found {:?}, expected {}",
                folder.files.name(),
                raw.architectures,
                known.join(" or ")
            )));
        }
        let config = match raw.vision_config {
            Some(config) => config,
            None => serde_json::from_value(Value::Object(fields))
                .map_err(|error| model(format!("{}: config.json: {error}", folder.files.name())))?,
        };
        let network = folder.network(placement, UNUSED, |path| {
            ClipVisionModel::new(path, &config, raw.projection_dim)
        })?;
        let processor = match folder.processor(ImageProcessor::from_json)? {
            Some(processor) => processor,
            None => ImageProcessor::of_clip(config.image_size as u32),
        };
        processor.check_side(config.image_size, folder.files.name())?;
        Ok(ClipImageEncoder {
            network,
            processor,
            projection_dim: raw.projection_dim,
            placement,
        })
    }

    /// Width of an embedding.
    pub fn projection_dim(&self) -> i64 {
        self.projection_dim
    }

    /// The embedding `[1, E]` of a picture, not of unit length, in the network's precision.
    pub fn image_embeds(&self, picture: &RgbImage) -> Tensor {
        let (device, kind) = self.placement;
        let pixels = self.processor.pixel_values(picture);
        no_grad(|| {
            self.network
                .forward(&pixels.to_device(device).to_kind(kind))
        })
    }
}
