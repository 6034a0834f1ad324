//! Prepares pictures for SAM, and resizes its masks to the picture's own size. The settings are
//! those of the class `SamImageProcessor`, read as transformers reads them with Pillow.

use anyhow::Result;
use image::RgbImage;
use serde::Deserialize;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadAsFlag};
use crate::io::config_file::{Class, ConfigFile};
use crate::models::vision::image_processor::{IMAGES, LARGEST, filter};
use crate::pictures::resize::{Filter, resize_by};

const CLASS: Class = Class {
    name: "SamImageProcessor",
    fields: &[
        IMAGES,
        &[
            ("do_pad", ReadAsFlag),
            ("pad_size", Read),
            ("mask_size", Harmless("only for masks as prompts")),
            ("mask_pad_size", Harmless("only for masks as prompts")),
            ("do_center_crop", Only(&["false", "null"])),
            ("crop_size", Harmless("only with do_center_crop")),
            (
                "default_to_square",
                Harmless("its size is not a single number"),
            ),
        ],
    ],
    besides: &[],
};

/// The fields that are read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SamPreprocessorFile {
    image_processor_type: String,
    do_resize: bool,
    size: Longest,
    resample: i64,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    do_pad: bool,
    pad_size: Padded,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Longest {
    longest_edge: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Padded {
    height: u32,
    width: u32,
}

/// How pictures are prepared.
#[derive(Clone, Debug)]
pub struct SamProcessor {
    longest_edge: u32,
    pad_size: u32,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
}

/// The position of a picture inside the prepared picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamPlace {
    /// Width and height of the original picture.
    pub original: (u32, u32),
    /// Width and height after resizing, before zeros were added on the right and below.
    pub reshaped: (u32, u32),
}

impl SamProcessor {
    /// Reads the settings.
    ///
    /// # Errors
    /// When the settings are of another class, or ask for something that is not supported.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let mut file = file.clone();
        for (key, value) in [
            ("do_resize", json!(true)),
            ("size", json!({"longest_edge": 1024})),
            ("resample", json!(2)),
            ("do_rescale", json!(true)),
            ("rescale_factor", json!(1.0 / 255.0)),
            ("do_normalize", json!(true)),
            ("image_mean", json!([0.485, 0.456, 0.406])),
            ("image_std", json!([0.229, 0.224, 0.225])),
            ("do_pad", json!(true)),
            ("pad_size", json!({"height": 1024, "width": 1024})),
        ] {
            file.set_default(key, value);
        }
        let raw: SamPreprocessorFile = file.read(&CLASS)?;
        let class = raw.image_processor_type;
        if ![
            "SamImageProcessor",
            "SamImageProcessorFast",
            "SamImageProcessorPil",
        ]
        .contains(&class.as_str())
        {
            return Err(model(format!(
                "image_processor_type: found {class}, expected SamImageProcessor"
            )));
        }
        for (key, value) in [
            ("do_resize", raw.do_resize),
            ("do_rescale", raw.do_rescale),
            ("do_normalize", raw.do_normalize),
            ("do_pad", raw.do_pad),
        ] {
            if !value {
                return Err(file.wrong(key, "true: SAM needs it"));
            }
        }
        if (raw.rescale_factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(file.wrong("rescale_factor", "1 / 255, the only supported scale"));
        }
        let longest_edge = raw.size.longest_edge;
        let (height, width) = (raw.pad_size.height, raw.pad_size.width);
        if height != width
            || longest_edge > height
            || !(1..=LARGEST).contains(&longest_edge)
            || height > LARGEST
        {
            return Err(model(format!(
                "found longest_edge {longest_edge} in a pad_size of {width} x {height} pixels, expected 1 to {LARGEST} in a \
                 square that holds it"
            )));
        }
        let (mean, std) = (raw.image_mean, raw.image_std);
        if !std.iter().all(|std| *std > 0.0) {
            return Err(model(format!(
                "image_std: found {std:?}, expected numbers above 0"
            )));
        }
        Ok(SamProcessor {
            longest_edge,
            pad_size: height,
            filter: filter(raw.resample)?,
            mean,
            std,
        })
    }

    /// The side in pixels of the prepared pictures.
    pub fn side(&self) -> i64 {
        i64::from(self.pad_size)
    }

    /// Pixel values `[1, 3, side, side]`, f32: the picture resized so that its longer side is
    /// `longest_edge`, as `(level / 255 - mean) / std`, with zeros on the right or below. Also
    /// returns where the picture is inside the result.
    pub fn pixel_values(&self, picture: &RgbImage) -> (Tensor, SamPlace) {
        let (width, height) = picture.dimensions();
        let scale = f64::from(self.longest_edge) / f64::from(width.max(height));
        let scaled = |side: u32| ((f64::from(side) * scale + 0.5) as u32).max(1);
        let reshaped = (scaled(width), scaled(height));
        let resized = resize_by(self.filter, picture, reshaped.0, reshaped.1);
        let [w, h] = [reshaped.0, reshaped.1].map(i64::from);
        let levels = Tensor::from_slice(resized.as_raw()).view([1, h, w, 3]);
        let per_channel = |values: [f64; 3]| Tensor::from_slice(&values.map(|v| v as f32));
        let values = levels.to_kind(Kind::Float) / 255.0;
        let values = (values - per_channel(self.mean)) / per_channel(self.std);
        let padding = [0, self.side() - w, 0, self.side() - h];
        let values = values.permute([0, 3, 1, 2]).constant_pad_nd(padding);
        (
            values.contiguous(),
            SamPlace {
                original: (width, height),
                reshaped,
            },
        )
    }

    /// Low-resolution masks `[N, M, h, w]` without the padding, at the picture's own size. Both
    /// resizings are bilinear with half-pixel positions and no antialiasing.
    pub fn at_picture_size(&self, low_res_masks: &Tensor, place: SamPlace) -> Tensor {
        let bilinear = |xs: &Tensor, (width, height): (u32, u32)| {
            let size = [i64::from(height), i64::from(width)];
            xs.upsample_bilinear2d(size, false, None, None)
        };
        let (width, height) = place.reshaped;
        let padded = bilinear(low_res_masks, (self.pad_size, self.pad_size));
        let cut = padded
            .narrow(2, 0, i64::from(height))
            .narrow(3, 0, i64::from(width));
        bilinear(&cut.contiguous(), place.original)
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
    fn what_is_not_computed_here_is_refused() {
        for (text, expected) in [
            ("{}", "missing field `image_processor_type`"),
            (
                r#"{"image_processor_type": "CLIPImageProcessor"}"#,
                "found CLIPImageProcessor",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "do_pad": false}"#,
                "do_pad: found false, expected true",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "do_normalize": null}"#,
                "do_normalize: found null, expected true",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "image_mean": null}"#,
                "image_mean: found null",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 64, "height": 3}}"#,
                "size.height: unknown field",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "rescale_factor": 1}"#,
                "rescale_factor: found 1, expected 1 / 255",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "resample": 0}"#,
                "resample: found 0",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "pad_size": {"height": 64, "width": 64}}"#,
                "longest_edge 1024 in a pad_size of 64 x 64",
            ),
            (
                r#"{"image_processor_type": "SamImageProcessor", "image_std": [1, 0, 1]}"#,
                "image_std: found [1.0, 0.0, 1.0]",
            ),
        ] {
            let error = SamProcessor::read(&file(text)).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
