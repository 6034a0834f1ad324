//! The networks of the measures, each with its preparation of pictures, from a folder in Hugging Face's layout:
//! `config.json`, `preprocessor_config.json` or `processor_config.json` (not for LPIPS), `model.safetensors`,
//! and for CLIP its tokenizer.

use anyhow::{Context, Result};
use image::RgbImage;
use tch::{Device, Kind, Tensor, no_grad};

use crate::io::model_files::{ModelFiles, TOY};
use crate::models::vision::clip_model::{ClipConfig, ClipModel};
use crate::models::vision::encoder_folder::{EncoderFolder, Unused};
use crate::models::vision::image_processor::ImageProcessor;
use crate::models::vision::lpips::{self, Lpips, LpipsConfig, LpipsFeatures};
use crate::models::vision::vit::{VitConfig, VitKind, VitModel};
use crate::tokenizer::{self, ClipTokenizer};

/// Tensors of a CLIP model that are not needed for embeddings: the scale of its training loss, and saved
/// position indices.
const UNUSED_OF_CLIP: Unused = Unused {
    endings: &["logit_scale", "position_ids"],
    modules: &[],
};

/// The two encoders of CLIP.
pub struct ClipEncoder {
    network: ClipModel,
    tokenizer: ClipTokenizer,
    processor: ImageProcessor,
    device: Device,
}

/// A DINO, DINOv2 or DreamSim encoder.
pub struct VitEncoder {
    network: VitModel,
    kind: VitKind,
    processor: ImageProcessor,
    device: Device,
}

/// LPIPS, which compares maps of features by its own distance instead of directions.
pub struct LpipsEncoder {
    network: Lpips,
    device: Device,
}

/// Computes embeddings of pictures, whose directions are compared.
pub trait ImageEncoder {
    /// How pictures are prepared.
    fn processor(&self) -> &ImageProcessor;

    /// Embeddings `[N, D]` of pictures, f32.
    fn image_embeds(&self, pictures: &[RgbImage]) -> Tensor;
}

impl ClipEncoder {
    /// Loads the network in f32.
    ///
    /// # Errors
    /// When a file is missing, damaged or belongs to another network.
    pub fn load(files: &ModelFiles, device: Device) -> Result<Self> {
        let folder = folder(files);
        let config = ClipConfig::read(&folder.config("config.json")?)
            .with_context(|| format!("loading {}", files.name()))?;
        let network = folder.network((device, Kind::Float), UNUSED_OF_CLIP, |path| {
            ClipModel::new(path, &config)
        })?;
        let tokenizer = tokenizer::folder::read(files, folder.path)?;
        let text = &config.text;
        tokenizer
            .check_encoder(text.vocab_size, text.max_position_embeddings)
            .with_context(|| format!("loading {}", files.name()))?;
        let processor = folder.required_processor(ImageProcessor::read)?;
        processor.check_side(network.image_size(), files.name())?;
        if let Some(unused) = tokenizer.unused_rows(text.vocab_size) {
            files.note(format!("{}: {unused}", files.name()));
        }
        Ok(ClipEncoder {
            network,
            tokenizer,
            processor,
            device,
        })
    }

    /// The embedding `[1, D]` of a text, f32, and the number of tokens beyond the limit, which are not read.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn text_embeds(&self, text: &str) -> Result<(Tensor, usize)> {
        let tokens = self.tokenizer.tokens(text)?;
        let ids = self.tokenizer.frame(tokens.iter().map(|token| token.id));
        let ids = Tensor::from_slice(&ids).unsqueeze(0).to_device(self.device); // [1, S]
        let cut_off = tokens.len().saturating_sub(self.tokenizer.room());
        Ok((no_grad(|| self.network.text_embeds(&ids)), cut_off))
    }
}

impl ImageEncoder for ClipEncoder {
    fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    fn image_embeds(&self, pictures: &[RgbImage]) -> Tensor {
        let pixels = prepared(&self.processor, pictures, self.device);
        no_grad(|| self.network.image_embeds(&pixels))
    }
}

impl VitEncoder {
    /// Loads a network of this kind in f32.
    ///
    /// # Errors
    /// When a file is missing, damaged or belongs to another network.
    pub fn load(files: &ModelFiles, kind: VitKind, device: Device) -> Result<Self> {
        let folder = folder(files);
        let config = VitConfig::read(&folder.config("config.json")?, kind)
            .with_context(|| files.name().to_owned())?;
        let unused = Unused {
            endings: &VitModel::UNUSED,
            ..Unused::default()
        };
        let processor = folder.required_processor(ImageProcessor::read)?;
        if kind != VitKind::Dinov2 {
            processor.check_square(files.name())?;
        }
        Ok(VitEncoder {
            kind,
            network: folder.network((device, Kind::Float), unused, |path| {
                VitModel::new(path, &config)
            })?,
            processor,
            device,
        })
    }
}

impl ImageEncoder for VitEncoder {
    fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    fn image_embeds(&self, pictures: &[RgbImage]) -> Tensor {
        // One by one, because the shapes differ if the pictures are not cropped.
        let one = |picture: &RgbImage| {
            let pixels = prepared(&self.processor, std::slice::from_ref(picture), self.device);
            no_grad(|| self.network.forward(&pixels))
        };
        let embeds = Tensor::cat(&pictures.iter().map(one).collect::<Vec<_>>(), 0); // [N, D]
        match self.kind {
            VitKind::Vit | VitKind::Dinov2 => embeds,
            // `normalize_embeds` in its authors' package, which is on by default.
            VitKind::Dreamsim => &embeds - embeds.mean_dim([-1i64].as_slice(), true, Kind::Float),
        }
    }
}

impl LpipsEncoder {
    /// The constants of the package's `ScalingLayer`, for values from -1 to 1.
    const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
    const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

    /// Loads the network in f32.
    ///
    /// # Errors
    /// When a file is missing, damaged or belongs to another network.
    pub fn load(files: &ModelFiles, device: Device) -> Result<Self> {
        let folder = folder(files);
        let config: LpipsConfig = folder.config("config.json")?.read(&lpips::CLASS)?;
        let network = folder.network((device, Kind::Float), Unused::default(), |path| {
            Ok(Lpips::new(path, &config))
        })?;
        Ok(LpipsEncoder { network, device })
    }

    /// The level of each channel that becomes 0 when a picture is prepared.
    pub fn mean_colour() -> [u8; 3] {
        Self::SHIFT.map(|shift| ((shift + 1.0) * 127.5).round() as u8)
    }

    /// Prepared pixel values `[1, 3, H, W]`, f32, of a picture at its own size: `(level / 127.5 - 1 - shift) /
    /// scale`.
    pub fn pixel_values(picture: &RgbImage) -> Tensor {
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        let levels = Tensor::from_slice(picture.as_raw()).view([1, height, width, 3]);
        let values = levels.to_kind(Kind::Float) / 127.5 - 1.0;
        let values = (values - Tensor::from_slice(&Self::SHIFT)) / Tensor::from_slice(&Self::SCALE);
        values.permute([0, 3, 1, 2]).contiguous()
    }

    /// The features of a picture, whose sides are at least `Lpips::SMALLEST` pixels.
    pub fn features(&self, picture: &RgbImage) -> LpipsFeatures {
        let pixels = Self::pixel_values(picture).to_device(self.device);
        no_grad(|| self.network.forward(&pixels))
    }

    /// The distance between two pictures of the same size.
    ///
    /// # Errors
    /// When the distance is not finite.
    pub fn distance(&self, a: &LpipsFeatures, b: &LpipsFeatures) -> Result<f64> {
        no_grad(|| self.network.distance(a, b))
    }
}

/// Pixel values `[N, 3, H, W]`.
fn prepared(processor: &ImageProcessor, pictures: &[RgbImage], device: Device) -> Tensor {
    let values: Vec<Tensor> = pictures
        .iter()
        .map(|picture| processor.pixel_values(picture))
        .collect();
    Tensor::cat(&values, 0).to_device(device)
}

/// The toy's CLIP is a folder inside the toy model; all others are separate models.
fn folder(files: &ModelFiles) -> EncoderFolder<'_> {
    let path = if files.name() == TOY { "clip" } else { "" };
    EncoderFolder { files, path }
}
