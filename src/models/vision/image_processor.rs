//! Prepares pictures for an image encoder. The settings, which
//! [`EncoderFolder`](super::encoder_folder::EncoderFolder) finds, are read as the image processors
//! of transformers read them with Pillow (`CLIPImageProcessor`, `BitImageProcessor`,
//! `ViTImageProcessor`, and the older names of these classes, feature extractors).

use anyhow::Result;
use image::{RgbImage, imageops};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadAsFlag, ReadOrNull};
use crate::io::config_file::{Class, ConfigFile, Fields};
use crate::pictures::resize::{Filter, resize_by};

/// The parameters that all of transformers' image processors share.
pub(super) const IMAGES: &Fields = &[
    ("image_processor_type", ReadOrNull),
    ("do_resize", ReadAsFlag),
    ("size", Read),
    ("resample", Read),
    ("do_rescale", ReadAsFlag),
    ("rescale_factor", Read),
    ("do_normalize", ReadAsFlag),
    ("image_mean", ReadOrNull),
    ("image_std", ReadOrNull),
    ("do_convert_rgb", Harmless("pictures are always RGB")),
    ("data_format", Only(&["\"channels_first\"", "null"])),
    (
        "input_data_format",
        Harmless("the order of axes does not depend on a file"),
    ),
    ("device", Harmless("how Python runs the class")),
    ("disable_grouping", Harmless("how Python runs the class")),
    ("return_tensors", Harmless("how Python runs the class")),
    (
        "image_seq_length",
        Harmless("for texts that contain pictures"),
    ),
    ("processor_class", Harmless("which class reads the folder")),
    ("auto_map", Harmless("which class reads the folder")),
];

/// The parameters of the supported classes, which differ in their defaults.
const CLASS: Class = Class {
    name: "CLIPImageProcessor",
    fields: &[
        IMAGES,
        &[
            ("do_center_crop", ReadAsFlag),
            ("crop_size", ReadOrNull),
            ("default_to_square", ReadAsFlag),
            ("do_pad", Only(&["false", "null"])),
            ("pad_size", Harmless("only with do_pad")),
        ],
    ],
    besides: &[&[
        ("feature_extractor_type", ReadOrNull),
        ("use_square_size", Only(&["false", "null"])),
    ]],
};

/// The fields that are read; [`set_defaults`] fills in fields that a file omits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreprocessorFile {
    /// Read before the other fields, because the defaults depend on the class.
    #[serde(rename = "image_processor_type")]
    _image_processor_type: Option<String>,
    /// The older name of the field, which a file may have beside the new one.
    #[serde(rename = "feature_extractor_type")]
    _feature_extractor_type: Option<String>,
    do_resize: bool,
    size: Value,
    resample: i64,
    do_center_crop: bool,
    crop_size: Value,
    default_to_square: bool,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

/// The size to which a picture is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    /// The length of the shorter side; the proportions are kept.
    ShortestEdge(u32),
    /// Width and height.
    Exactly(u32, u32),
}

/// How pictures are prepared for one encoder.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    size: Size,
    filter: Filter,
    /// Width and height of the central part that is kept.
    crop: Option<(u32, u32)>,
    mean: [f64; 3],
    std: [f64; 3],
}

/// Mean and deviation of each channel in CLIP's training data (arXiv 2103.00020, the authors'
/// code).
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// The largest side in pixels that a file may ask for.
pub(super) const LARGEST: u32 = 4096;

impl ImageProcessor {
    /// Reads the settings.
    ///
    /// # Errors
    /// When the settings are of another class, or ask for something that is not supported.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let class = (file.text("image_processor_type")).or(file.text("feature_extractor_type"));
        let is_vit = is_vit(class.ok_or_else(|| {
            file.wrong("image_processor_type", "the name of an image processor")
        })?)?;
        let mut file = file.clone();
        set_defaults(&mut file, is_vit);
        let raw: PreprocessorFile = file.read(&CLASS)?;
        for (key, does) in [("do_rescale", raw.do_rescale), ("do_resize", raw.do_resize)] {
            if !does {
                return Err(file.wrong(key, "true: pictures have any size, and levels up to 255"));
            }
        }
        if (raw.rescale_factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(file.wrong("rescale_factor", "1 / 255, the only supported scale"));
        }
        let size = read_size(&raw.size, raw.default_to_square).ok_or_else(|| {
            let expected =
                r#"{"height", "width"}, {"shortest_edge"} without another key, or a whole number"#;
            file.wrong("size", expected)
        })?;
        let crop = match (raw.do_center_crop, read_size(&raw.crop_size, true)) {
            (false, _) => None,
            (true, Some(Size::Exactly(width, height))) => Some((width, height)),
            (true, _) => {
                let expected = r#"{"height", "width"} or a whole number"#;
                return Err(file.wrong("crop_size", expected));
            }
        };
        check_sizes(size, crop)?;
        let (mean, std) = match (raw.do_normalize, raw.image_mean, raw.image_std) {
            (false, ..) => ([0.0; 3], [1.0; 3]),
            (true, Some(mean), Some(std)) => (mean, std),
            (true, None, _) => return Err(file.wrong("image_mean", "three numbers")),
            (true, _, None) => return Err(file.wrong("image_std", "three numbers")),
        };
        if !std.iter().all(|std| *std > 0.0) {
            return Err(file.wrong("image_std", "numbers above 0"));
        }
        Ok(ImageProcessor {
            size,
            filter: filter(raw.resample)?,
            crop,
            mean,
            std,
        })
    }

    /// Prepares pictures as CLIP's authors do for an encoder that reads `side` x `side` pixels: the
    /// defaults of transformers' `CLIPImageProcessor`.
    pub fn of_clip(side: u32) -> Self {
        ImageProcessor {
            size: Size::ShortestEdge(side),
            filter: Filter::Bicubic,
            crop: Some((side, side)),
            mean: CLIP_MEAN,
            std: CLIP_STD,
        }
    }

    /// Refuses an encoder that reads pictures of another size than these settings make.
    ///
    /// # Errors
    /// When the sizes differ; the message names both.
    pub fn check_side(&self, side: i64, name: &str) -> Result<()> {
        let (width, height) = self.sized(&RgbImage::new(64, 48)).dimensions();
        if (i64::from(width), i64::from(height)) == (side, side) {
            return Ok(());
        }
        Err(model(format!(
            "{name}: its image processor makes pictures of {width} x {height} pixels, expected {side} x {side} as in config.json"
        )))
    }

    /// Refuses settings that make pictures that are not square, for a network that needs square
    /// pictures.
    ///
    /// # Errors
    /// When pictures would not be square; the message names a size that a picture would have.
    pub fn check_square(&self, name: &str) -> Result<()> {
        let (width, height) = self.sized(&RgbImage::new(64, 48)).dimensions();
        if width == height {
            Ok(())
        } else {
            Err(model(format!(
                "{name}: its image processor makes a picture of {width} x {height} from one of 64 x 48, expected a square: give \
                 its preprocessor_config.json a size of {{\"height\", \"width\"}}"
            )))
        }
    }

    /// The level of each channel that becomes 0 after normalisation: the encoder's neutral colour.
    pub fn mean_colour(&self) -> [u8; 3] {
        self.mean
            .map(|mean| (mean * 255.0).round().clamp(0.0, 255.0) as u8)
    }

    /// The picture resized and cropped, with levels from 0 to 255.
    pub fn sized(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let resized = match self.size {
            Size::Exactly(width, height) => resize_by(self.filter, picture, width, height),
            Size::ShortestEdge(edge) => {
                let long = |long: u32, short: u32| {
                    (u64::from(edge) * u64::from(long) / u64::from(short)) as u32
                };
                let (width, height) = if width <= height {
                    (edge, long(height, width))
                } else {
                    (long(width, height), edge)
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

/// Whether the class is that of a ViT, whose defaults differ from those of CLIP and BiT.
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

/// The filter with this number in Pillow.
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

/// Sets omitted fields to the defaults of the class. `null` is kept, because it is no class's
/// default.
fn set_defaults(file: &mut ConfigFile, is_vit: bool) {
    let (size, resample) = if is_vit {
        (json!({"height": 224, "width": 224}), 2)
    } else {
        (json!({"shortest_edge": 224}), 3)
    };
    let (mean, std) = if is_vit {
        ([0.5; 3], [0.5; 3])
    } else {
        (CLIP_MEAN, CLIP_STD)
    };
    for (key, value) in [
        ("do_resize", json!(true)),
        ("size", size),
        ("resample", json!(resample)),
        ("do_center_crop", json!(!is_vit)),
        ("crop_size", json!({"height": 224, "width": 224})),
        ("default_to_square", json!(is_vit)),
        ("do_rescale", json!(true)),
        ("rescale_factor", json!(1.0 / 255.0)),
        ("do_normalize", json!(true)),
        ("image_mean", json!(mean)),
        ("image_std", json!(std)),
    ] {
        file.set_default(key, value);
    }
}

/// A single number means both sides for a ViT, otherwise the shorter side. `None` if transformers
/// refuses the value, or for `longest_edge`, which would limit the longer side.
fn read_size(size: &Value, is_square: bool) -> Option<Size> {
    let side = |size: &Value| u32::try_from(size.as_u64()?).ok();
    let Value::Object(sides) = size else {
        let side = side(size)?;
        return Some(if is_square {
            Size::Exactly(side, side)
        } else {
            Size::ShortestEdge(side)
        });
    };
    let get = |key: &str| sides.get(key).and_then(side);
    let is_bounded = sides
        .get("longest_edge")
        .is_some_and(|edge| !edge.is_null());
    match (get("shortest_edge"), get("height"), get("width")) {
        (Some(edge), None, None)
            if !is_bounded && sides.keys().all(|key| key.ends_with("_edge")) =>
        {
            Some(Size::ShortestEdge(edge))
        }
        (None, Some(height), Some(width)) if sides.len() == 2 => Some(Size::Exactly(width, height)),
        _ => None,
    }
}

/// Refuses a crop that is larger than the picture, which transformers would pad.
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
                "do_resize: found false",
            ),
            (
                r#"{"image_processor_type": "BitImageProcessor", "rescale_factor": 1}"#,
                "rescale_factor: found 1, expected 1 / 255",
            ),
        ] {
            let error = ImageProcessor::read(&file(text))
                .expect_err(text)
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// The treatment of each `null` by transformers' processors (5.23.0): flags are off, sizes and
    /// means raise errors.
    #[test]
    fn null_is_what_python_makes_of_it_and_not_the_default() -> Result<()> {
        let with = |class: &str, key: &str, value: Value| {
            let mut file = file(&format!(r#"{{"image_processor_type": "{class}"}}"#));
            file.set(key, value);
            ImageProcessor::read(&file)
        };
        let off = with("CLIPImageProcessor", "do_normalize", Value::Null)?;
        assert_eq!((off.mean, off.std), ([0.0; 3], [1.0; 3]));
        let whole = with("CLIPImageProcessor", "do_center_crop", Value::Null)?;
        assert_eq!(whole.crop, None);
        let vit = with("ViTImageProcessor", "default_to_square", Value::Null)?;
        assert_eq!(vit.size, Size::Exactly(224, 224));
        for key in ["crop_size", "do_center_crop", "feature_extractor_type"] {
            assert_eq!(with("ViTImageProcessor", key, Value::Null)?.crop, None);
        }
        for key in [
            "do_resize",
            "do_rescale",
            "size",
            "resample",
            "rescale_factor",
            "image_mean",
            "image_std",
            "crop_size",
        ] {
            let refused = with("CLIPImageProcessor", key, Value::Null).expect_err(key);
            let said = refused.to_string();
            assert!(said.contains(&format!("{key}: found null")), "{said}");
        }
        Ok(())
    }

    #[test]
    fn a_size_is_one_that_transformers_takes() -> Result<()> {
        let with = |key: &str, value: Value| {
            let mut file =
                file(r#"{"image_processor_type": "CLIPImageProcessor", "do_center_crop": true}"#);
            file.set("crop_size", json!(20));
            file.set(key, value);
            ImageProcessor::read(&file)
        };
        let sizes = [
            (json!(56), Size::ShortestEdge(56)),
            (json!({"shortest_edge": 56}), Size::ShortestEdge(56)),
            (
                json!({"shortest_edge": 56, "longest_edge": null}),
                Size::ShortestEdge(56),
            ),
            (json!({"height": 56, "width": 60}), Size::Exactly(60, 56)),
        ];
        for (value, size) in sizes {
            assert_eq!(with("size", value)?.size, size);
        }
        for (key, value) in [
            ("size", json!({"shortest_edge": 56, "longest_edge": 70})),
            (
                "size",
                json!({"height": 56, "width": 56, "shortest_edge": 56}),
            ),
            (
                "size",
                json!({"height": 56, "width": 56, "longest_edge": null}),
            ),
            ("size", json!({"height": 56})),
            ("size", json!({"longest_edge": 56})),
            ("size", json!({"shortest_edge": 56.0})),
            ("size", json!({"shortest_edge": 56, "colour": 1})),
            ("size", json!("56")),
            ("crop_size", json!({"shortest_edge": 20})),
            ("crop_size", json!({"height": 20})),
            ("crop_size", json!(20.0)),
        ] {
            let said = with(key, value.clone()).expect_err(key).to_string();
            assert!(
                said.contains(&format!("{key}: found {value}, expected {{")),
                "{said}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_vit_reads_square_pictures() -> Result<()> {
        let with = |size: Value| {
            let mut file = file(r#"{"image_processor_type": "ViTImageProcessor"}"#);
            file.set("size", size);
            ImageProcessor::read(&file)?.check_square("dino")
        };
        with(json!(64))?;
        with(json!({"height": 64, "width": 64}))?;
        for size in [
            json!({"shortest_edge": 64}),
            json!({"height": 64, "width": 60}),
        ] {
            let said = with(size).expect_err("not square").to_string();
            assert!(said.contains("expected a square"), "{said}");
        }
        Ok(())
    }
}
