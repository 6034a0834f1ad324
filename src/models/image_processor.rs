//! Pictures as an image encoder reads them: the settings that [`EncoderFolder`](super::encoder_folder::EncoderFolder)
//! finds, as the image processors of transformers read them with Pillow (`CLIPImageProcessor`, `BitImageProcessor`,
//! `ViTImageProcessor`, and under their older names as feature extractors).

use anyhow::Result;
use image::{RgbImage, imageops};
use serde::Deserialize;
use tch::Tensor;

use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read};
use crate::io::config_file::{Class, ConfigFile, Fields};
use crate::io::resize::{Filter, resize_by};

/// The parameters of transformers' image processors. Each class has all of them.
pub(super) const IMAGES: &Fields = &[
    ("image_processor_type", Read),
    ("do_resize", Read),
    ("size", Read),
    ("resample", Read),
    ("do_rescale", Read),
    ("rescale_factor", Read),
    ("do_normalize", Read),
    ("image_mean", Read),
    ("image_std", Read),
    ("do_convert_rgb", Harmless("pictures come as RGB")),
    ("data_format", Only(&["\"channels_first\"", "null"])),
    (
        "input_data_format",
        Harmless("pictures are given in no file's order"),
    ),
    ("device", Harmless("how Python runs it")),
    ("disable_grouping", Harmless("how Python runs it")),
    ("return_tensors", Harmless("how Python runs it")),
    (
        "image_seq_length",
        Harmless("for texts with pictures in them"),
    ),
    ("processor_class", Harmless("who else reads the folder")),
    ("auto_map", Harmless("who else reads the folder")),
];

/// The classes that are read here; they differ in their defaults.
const CLASS: Class = Class {
    name: "CLIPImageProcessor",
    fields: &[
        IMAGES,
        &[
            ("do_center_crop", Read),
            ("crop_size", Read),
            ("default_to_square", Read),
            ("do_pad", Only(&["false", "null"])),
            ("pad_size", Harmless("only with do_pad")),
        ],
    ],
    besides: &[&[
        ("feature_extractor_type", Read),
        ("use_square_size", Only(&["false", "null"])),
    ]],
};

/// The fields that are read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    image_processor_type: Option<String>,
    /// Its older name, which a file may have beside the new one.
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<RawSize>,
    resample: Option<i64>,
    do_center_crop: Option<bool>,
    crop_size: Option<RawSize>,
    default_to_square: Option<bool>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

/// A number in older files, an object in newer ones.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum RawSize {
    Shortest { shortest_edge: u32 },
    Both { height: u32, width: u32 },
    Number(u32),
}

/// The size that a picture is brought to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    /// The shorter side, with the picture's proportions.
    ShortestEdge(u32),
    /// Width and height.
    Exactly(u32, u32),
}

/// How pictures are prepared for one encoder.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    size: Size,
    filter: Filter,
    /// Width and height of the middle that is kept.
    crop: Option<(u32, u32)>,
    mean: [f64; 3],
    std: [f64; 3],
}

/// Mean and deviation of a channel in CLIP's training data (arXiv 2103.00020, in the authors' code).
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Largest side that a file may ask for, in pixels.
pub(super) const LARGEST: u32 = 4096;

impl ImageProcessor {
    /// Reads the settings.
    ///
    /// # Errors
    /// When they are those of another class, or ask for what is not computed here.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let raw: Raw = file.read(&CLASS)?;
        let class = raw.image_processor_type.or(raw.feature_extractor_type);
        let is_vit = is_vit(&class.ok_or_else(|| {
            file.wrong("image_processor_type", "the name of an image processor")
        })?)?;
        if raw.do_rescale == Some(false)
            || raw
                .rescale_factor
                .is_some_and(|f| (f * 255.0 - 1.0).abs() > 1e-6)
        {
            return Err(model(
                "found another scale than 1 / 255, which is the only one known here",
            ));
        }
        if raw.do_resize == Some(false) {
            return Err(model(
                "found do_resize false, expected a size: pictures have any",
            ));
        }
        let is_square = raw.default_to_square.unwrap_or(is_vit);
        let size = raw
            .size
            .map_or(default_size(is_vit), |size| read_size(size, is_square));
        let does_crop = raw.do_center_crop.unwrap_or(!is_vit);
        let crop = does_crop.then_some(match raw.crop_size {
            None => (224, 224),
            Some(
                RawSize::Number(side)
                | RawSize::Shortest {
                    shortest_edge: side,
                },
            ) => (side, side),
            Some(RawSize::Both { height, width }) => (width, height),
        });
        check_sizes(size, crop)?;
        let (own_mean, own_std) = match is_vit {
            true => ([0.5; 3], [0.5; 3]),
            false => (CLIP_MEAN, CLIP_STD),
        };
        let (mean, std) = match raw.do_normalize {
            Some(false) => ([0.0; 3], [1.0; 3]),
            _ => (
                raw.image_mean.unwrap_or(own_mean),
                raw.image_std.unwrap_or(own_std),
            ),
        };
        if !std.iter().all(|std| *std > 0.0) {
            return Err(file.wrong("image_std", "numbers above 0"));
        }
        Ok(ImageProcessor {
            size,
            filter: filter(raw.resample.unwrap_or(if is_vit { 2 } else { 3 }))?,
            crop,
            mean,
            std,
        })
    }

    /// As CLIP's authors prepare pictures for an encoder that reads `side` x `side` pixels: the defaults of
    /// transformers' `CLIPImageProcessor`.
    pub fn of_clip(side: u32) -> Self {
        ImageProcessor {
            size: Size::ShortestEdge(side),
            filter: Filter::Bicubic,
            crop: Some((side, side)),
            mean: CLIP_MEAN,
            std: CLIP_STD,
        }
    }

    /// Refuses an encoder that reads pictures of another size.
    ///
    /// # Errors
    /// Names both sizes.
    pub fn check_side(&self, side: i64, name: &str) -> Result<()> {
        let (width, height) = self.sized(&RgbImage::new(64, 48)).dimensions();
        if (i64::from(width), i64::from(height)) == (side, side) {
            return Ok(());
        }
        Err(model(format!(
            "{name}: its image processor makes pictures of {width} x {height}, expected {side} x {side} as in config.json"
        )))
    }

    /// The level of each channel that is 0 once normalised: the encoder's neutral colour.
    pub fn mean_colour(&self) -> [u8; 3] {
        self.mean
            .map(|mean| (mean * 255.0).round().clamp(0.0, 255.0) as u8)
    }

    /// The picture resized and cropped, still in levels.
    pub fn sized(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let resized = match self.size {
            Size::Exactly(width, height) => resize_by(self.filter, picture, width, height),
            Size::ShortestEdge(edge) => {
                let long = |long: u32, short: u32| {
                    (u64::from(edge) * u64::from(long) / u64::from(short)) as u32
                };
                let (width, height) = match width <= height {
                    true => (edge, long(height, width)),
                    false => (long(width, height), edge),
                };
                resize_by(self.filter, picture, width, height)
            }
        };
        let Some((width, height)) = self.crop else {
            return resized;
        };
        let left = resized.width().saturating_sub(width) / 2;
        let top = resized.height().saturating_sub(height) / 2;
        imageops::crop_imm(&resized, left, top, width, height).to_image()
    }

    /// Pixel values `[1, 3, H, W]`, f32: `(level / 255 - mean) / std`.
    pub fn pixel_values(&self, picture: &RgbImage) -> Tensor {
        let sized = self.sized(picture);
        let (width, height) = (i64::from(sized.width()), i64::from(sized.height()));
        let levels = Tensor::from_slice(sized.as_raw()).view([1, height, width, 3]);
        let per_channel = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32));
        let values = levels.to_kind(tch::Kind::Float) / 255.0;
        let values = (values - per_channel(self.mean)) / per_channel(self.std);
        values.permute([0, 3, 1, 2]).contiguous()
    }
}

/// Whether the class is that of a ViT, whose defaults are others than those of CLIP and BiT.
fn is_vit(class: &str) -> Result<bool> {
    let is = |name: &str| {
        let endings = [
            "ImageProcessor",
            "ImageProcessorFast",
            "ImageProcessorPil",
            "FeatureExtractor",
        ];
        endings
            .iter()
            .any(|ending| class == format!("{name}{ending}"))
    };
    match is("ViT") {
        true => Ok(true),
        false if is("CLIP") || is("Bit") => Ok(false),
        false => Err(model(format!(
            "image_processor_type: found {class}, expected CLIPImageProcessor, BitImageProcessor or \
             ViTImageProcessor"
        ))),
    }
}

/// Pillow's number of a filter.
pub(super) fn filter(resample: i64) -> Result<Filter> {
    match resample {
        1 => Ok(Filter::Lanczos),
        2 => Ok(Filter::Bilinear),
        3 => Ok(Filter::Bicubic),
        other => Err(model(format!(
            "resample: found {other}, expected 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"
        ))),
    }
}

/// Of a file that says none.
fn default_size(is_vit: bool) -> Size {
    match is_vit {
        true => Size::Exactly(224, 224),
        false => Size::ShortestEdge(224),
    }
}

/// A mere number is both sides, which it is for a ViT, or the shorter one.
fn read_size(size: RawSize, is_square: bool) -> Size {
    match size {
        RawSize::Shortest { shortest_edge } => Size::ShortestEdge(shortest_edge),
        RawSize::Both { height, width } => Size::Exactly(width, height),
        RawSize::Number(side) if is_square => Size::Exactly(side, side),
        RawSize::Number(side) => Size::ShortestEdge(side),
    }
}

/// Without this a crop could be larger than the picture, which transformers pads.
fn check_sizes(size: Size, crop: Option<(u32, u32)>) -> Result<()> {
    let (width, height) = match size {
        Size::ShortestEdge(edge) => (edge, edge),
        Size::Exactly(width, height) => (width, height),
    };
    let all = [width, height]
        .into_iter()
        .chain(crop.into_iter().flat_map(|(w, h)| [w, h]));
    if !all.clone().all(|side| (1..=LARGEST).contains(&side)) {
        return Err(model(format!(
            "found a size of {:?} pixels, expected 1 to {LARGEST}",
            all.collect::<Vec<_>>()
        )));
    }
    match crop {
        Some((w, h)) if w > width || h > height => Err(model(format!(
            "found a crop of {w} x {h} in {width} x {height} pixels, expected a smaller one"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::config_file::Notes;

    fn file(text: &str) -> ConfigFile {
        ConfigFile::parse("preprocessor_config.json", text, Notes::default()).expect("an object")
    }

    #[test]
    fn what_a_file_leaves_out_is_as_its_class_has_it() -> Result<()> {
        let read = |class: &str| {
            let text = format!(r#"{{"image_processor_type": "{class}"}}"#);
            ImageProcessor::read(&file(&text))
        };
        let (clip, vit) = (
            read("CLIPImageProcessorPil")?,
            read("ViTImageProcessorFast")?,
        );
        assert_eq!((clip.mean, clip.std), (CLIP_MEAN, CLIP_STD));
        assert_eq!((vit.mean, vit.std), ([0.5; 3], [0.5; 3]));
        let picture = RgbImage::new(40, 20);
        assert_eq!(clip.sized(&picture).dimensions(), (224, 224));
        assert_eq!((vit.size, vit.crop), (Size::Exactly(224, 224), None));
        Ok(())
    }

    #[test]
    fn a_number_means_the_shorter_side_for_clip_and_both_for_a_vit() -> Result<()> {
        let read = |class: &str| {
            ImageProcessor::read(&file(&format!(
                r#"{{"feature_extractor_type": "{class}", "size": 6, "do_center_crop": false,
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}}"#
            )))
        };
        let picture = RgbImage::new(40, 20);
        assert_eq!(
            read("CLIPFeatureExtractor")?.sized(&picture).dimensions(),
            (12, 6)
        );
        assert_eq!(
            read("ViTFeatureExtractor")?.sized(&picture).dimensions(),
            (6, 6)
        );
        Ok(())
    }

    #[test]
    fn what_is_not_computed_here_is_refused() {
        for (text, expected) in [
            (
                r#"{"image_processor_type": "SamImageProcessor"}"#,
                "found SamImageProcessor",
            ),
            (
                r#"{"image_processor_type": "CLIPImageProcessor", "image_std": [1, 1, 0]}"#,
                "image_std: found [1,1,0], expected numbers above 0",
            ),
            (
                r#"{"image_processor_type": "ViTImageProcessor", "do_pad": true}"#,
                "do_pad: found true, expected false or null",
            ),
            ("{}", "image_processor_type: found no value"),
            (
                r#"{"image_processor_type": "BitImageProcessor", "do_normalize": false, "resample": 0}"#,
                "resample: found 0",
            ),
            (
                r#"{"image_processor_type": "BitImageProcessor", "size": 10, "crop_size": 12}"#,
                "a crop of 12 x 12 in 10 x 10 pixels",
            ),
            (
                r#"{"image_processor_type": "BitImageProcessor", "do_resize": false}"#,
                "do_resize false",
            ),
            (
                r#"{"image_processor_type": "BitImageProcessor", "rescale_factor": 1}"#,
                "another scale",
            ),
        ] {
            let error = ImageProcessor::read(&file(text))
                .expect_err(text)
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
