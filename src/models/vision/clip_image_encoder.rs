//! The vision half of a CLIP with its image processor, which encodes the picture of an image
//! prompt.

use anyhow::{Context, Result};
use image::RgbImage;
use tch::{Device, Kind, Tensor, no_grad};

use super::clip_model::ClipConfig;
use super::clip_vision_model::{self, ClipVisionConfig, ClipVisionModel};
use super::encoder_folder::{EncoderFolder, Unused};
use super::image_processor::ImageProcessor;
use crate::io::config_file::ConfigFile;

/// Tensors of a whole CLIP outside its vision half, and saved position indices.
const UNUSED: Unused = Unused {
    endings: &["logit_scale", "position_ids"],
    modules: &["text_model", "text_projection"],
};

/// A CLIP image encoder.
pub struct ClipImageEncoder {
    network: ClipVisionModel,
    processor: ImageProcessor,
    projection_dim: i64,
    placement: (Device, Kind),
}

impl ClipImageEncoder {
    /// Loads a `CLIPVisionModelWithProjection`, or the vision half of a `CLIPModel`. If the folder
    /// has no image processor settings, those of CLIP's authors are used, as in diffusers.
    ///
    /// # Errors
    /// When a file is missing, damaged, or belongs to another network.
    pub fn load(folder: &EncoderFolder, placement: (Device, Kind)) -> Result<Self> {
        let config = read_config(&folder.config("config.json")?)
            .with_context(|| folder.files.name().to_owned())?;
        let network = folder.network(placement, UNUSED, |path| {
            ClipVisionModel::new(path, &config, config.projection_dim)
        })?;
        let processor = match folder.processor(ImageProcessor::read)? {
            Some(processor) => processor,
            None => ImageProcessor::of_clip(config.image_size as u32),
        };
        processor.check_side(config.image_size, folder.files.name())?;
        Ok(ClipImageEncoder {
            network,
            processor,
            projection_dim: config.projection_dim,
            placement,
        })
    }

    /// Width of an embedding.
    pub fn projection_dim(&self) -> i64 {
        self.projection_dim
    }

    /// The embedding `[1, E]` of a picture in the network's precision; its length is not
    /// normalised.
    pub fn image_embeds(&self, picture: &RgbImage) -> Tensor {
        let (device, kind) = self.placement;
        let pixels = self.processor.pixel_values(picture);
        no_grad(|| {
            self.network
                .forward(&pixels.to_device(device).to_kind(kind))
        })
    }
}

/// The fields of a separate vision half, or of the vision half of a whole CLIP.
fn read_config(file: &ConfigFile) -> Result<ClipVisionConfig> {
    if file.get("vision_config").is_some() {
        let whole = ClipConfig::read(file)?;
        return Ok(ClipVisionConfig {
            projection_dim: whole.projection_dim,
            ..whole.vision
        });
    }
    let config: ClipVisionConfig = file.read(&clip_vision_model::CLASS)?;
    let name = "CLIPVisionModelWithProjection";
    let mut classes = config.architectures.iter().flatten();
    if classes.any(|class| class == name) {
        Ok(config)
    } else {
        Err(file.wrong("architectures", &format!("{name} or CLIPModel")))
    }
}
