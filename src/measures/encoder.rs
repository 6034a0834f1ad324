//! The networks that measure, each with its preparation of pictures, from a folder in Hugging Face's layout:
//! `config.json`, `preprocessor_config.json` (but for LPIPS), `model.safetensors`, and for CLIP its tokenizer.

use anyhow::{Context, Result};
use image::RgbImage;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::model;
use crate::io::finite_scan::FiniteScan;
use crate::io::model_files::{ModelFiles, TOY};
use crate::io::weights::{WeightPath, Weights};
use crate::models::clip_model::{ClipConfig, ClipModel};
use crate::models::image_processor::ImageProcessor;
use crate::models::lpips::{Lpips, LpipsConfig, LpipsFeatures};
use crate::models::vit::{VitConfig, VitKind, VitModel};
use crate::tokenizer::{ClipTokenizer, TokenizerFiles};

/// Tensors of a CLIP that no embedding needs: the scale of its training loss, and saved position indices.
const UNUSED_OF_CLIP: [&str; 2] = ["logit_scale", "position_ids"];

/// CLIP's two encoders.
pub struct ClipEncoder {
    network: ClipModel,
    tokenizer: ClipTokenizer,
    processor: ImageProcessor,
    device: Device,
}

/// A DINO, DINOv2 or DreamSim.
pub struct VitEncoder {
    network: VitModel,
    kind: VitKind,
    processor: ImageProcessor,
    device: Device,
}

/// LPIPS: no directions, but maps of features that are compared by a distance of their own.
pub struct LpipsEncoder {
    network: Lpips,
    device: Device,
}

/// Turns pictures into directions.
pub trait ImageEncoder {
    /// How it prepares pictures.
    fn processor(&self) -> &ImageProcessor;

    /// Embeddings `[N, D]` of pictures, f32.
    fn image_embeds(&self, pictures: &[RgbImage]) -> Tensor;
}

impl ClipEncoder {
    /// Loads it in f32.
    ///
    /// # Errors
    /// When a file is missing or damaged, or is that of another network.
    pub fn load(files: &ModelFiles, device: Device) -> Result<Self> {
        let config: ClipConfig = json(files, "config.json")?;
        let network = load(files, device, &UNUSED_OF_CLIP, |path| {
            ClipModel::new(path, &config)
        })?;
        let tokenizer = load_tokenizer(files)?;
        let processor = load_processor(files)?;
        let found = processor.sized(&RgbImage::new(64, 48)).dimensions();
        let side = network.image_size();
        if (i64::from(found.0), i64::from(found.1)) != (side, side) {
            return Err(model(format!(
                "{}: preprocessor_config.json makes pictures of {} x {}, expected {side} x {side} as in config.json",
                files.name(),
                found.0,
                found.1
            )));
        }
        Ok(ClipEncoder {
            network,
            tokenizer,
            processor,
            device,
        })
    }

    /// The embedding `[1, D]` of a text, f32, and how many of its tokens lie behind the limit and are not read.
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
    /// Loads one of this kind in f32.
    ///
    /// # Errors
    /// When a file is missing or damaged, or is that of another network.
    pub fn load(files: &ModelFiles, kind: VitKind, device: Device) -> Result<Self> {
        let config: VitConfig = json(files, "config.json")?;
        if config.model_type != kind {
            return Err(model(format!(
                "{}: config.json: model_type: found {}, expected {}",
                files.name(),
                config.model_type.name(),
                kind.name()
            )));
        }
        Ok(VitEncoder {
            kind,
            network: load(files, device, &VitModel::UNUSED, |path| {
                VitModel::new(path, &config)
            })?,
            processor: load_processor(files)?,
            device,
        })
    }
}

impl ImageEncoder for VitEncoder {
    fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    fn image_embeds(&self, pictures: &[RgbImage]) -> Tensor {
        // One by one: where the middle is not cut out they differ in shape.
        let one = |picture: &RgbImage| {
            let pixels = prepared(&self.processor, std::slice::from_ref(picture), self.device);
            no_grad(|| self.network.forward(&pixels))
        };
        let embeds = Tensor::cat(&pictures.iter().map(one).collect::<Vec<_>>(), 0); // [N, D]
        match self.kind {
            VitKind::Vit | VitKind::Dinov2 => embeds,
            // `normalize_embeds` of its authors' package, which is their default.
            VitKind::Dreamsim => &embeds - embeds.mean_dim([-1i64].as_slice(), true, Kind::Float),
        }
    }
}

impl LpipsEncoder {
    /// Of the package's `ScalingLayer`, for values from -1 to 1.
    const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
    const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

    /// Loads it in f32.
    ///
    /// # Errors
    /// When a file is missing or damaged, or is that of another network.
    pub fn load(files: &ModelFiles, device: Device) -> Result<Self> {
        let config: LpipsConfig = json(files, "config.json")?;
        let network = load(files, device, &[], |path| Ok(Lpips::new(path, &config)))?;
        Ok(LpipsEncoder { network, device })
    }

    /// The level of each channel that is 0 once prepared.
    pub fn mean_colour() -> [u8; 3] {
        Self::SHIFT.map(|shift| ((shift + 1.0) * 127.5).round() as u8)
    }

    /// Pixel values `[1, 3, H, W]`, f32, of a picture at its own size: `(level / 127.5 - 1 - shift) / scale`.
    pub fn pixel_values(picture: &RgbImage) -> Tensor {
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        let levels = Tensor::from_slice(picture.as_raw()).view([1, height, width, 3]);
        let values = levels.to_kind(Kind::Float) / 127.5 - 1.0;
        let values = (values - Tensor::from_slice(&Self::SHIFT)) / Tensor::from_slice(&Self::SCALE);
        values.permute([0, 3, 1, 2]).contiguous()
    }

    /// What is compared of a picture, at least [`Lpips::SMALLEST`] pixels a side.
    pub fn features(&self, picture: &RgbImage) -> LpipsFeatures {
        let pixels = Self::pixel_values(picture).to_device(self.device);
        no_grad(|| self.network.forward(&pixels))
    }

    /// The distance of two pictures of one size.
    ///
    /// # Errors
    /// When it is not finite.
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

/// The toy's CLIP is a folder of the toy model; all others are models of their own.
fn component(files: &ModelFiles) -> &'static str {
    match files.name() == TOY {
        true => "clip",
        false => "",
    }
}

fn path_of(files: &ModelFiles, name: &str) -> String {
    match component(files) {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

pub(super) fn json<T: DeserializeOwned>(files: &ModelFiles, name: &str) -> Result<T> {
    files.json(&path_of(files, name))
}

pub(super) fn load<T>(
    files: &ModelFiles,
    device: Device,
    unused: &[&str],
    new: impl Fn(&WeightPath) -> Result<T>,
) -> Result<T> {
    let weights = Weights::open(&files.weights(component(files))?, device, Kind::Float)?;
    for name in unused {
        weights.allow_unused(name);
    }
    let network = new(&weights.root()).with_context(|| format!("loading {}", files.name()))?;
    let values = weights.finish()?;
    let scanned = FiniteScan::start(values).wait();
    scanned.with_context(|| format!("checking the weights of {}", files.name()))?;
    Ok(network)
}

fn load_processor(files: &ModelFiles) -> Result<ImageProcessor> {
    let text = files.text(&path_of(files, "preprocessor_config.json"))?;
    ImageProcessor::from_json(&text).with_context(|| format!("loading {}", files.name()))
}

fn load_tokenizer(files: &ModelFiles) -> Result<ClipTokenizer> {
    let text = |name: &str| files.text(&path_of(files, name));
    let optional = |name: &str| files.optional_text(&path_of(files, name));
    ClipTokenizer::new(&TokenizerFiles {
        vocab: &text("vocab.json")?,
        merges: &text("merges.txt")?,
        special_tokens_map: optional("special_tokens_map.json")?.as_deref(),
        tokenizer_config: optional("tokenizer_config.json")?.as_deref(),
    })
    .with_context(|| format!("loading the tokenizer of {}", files.name()))
}
