//! LPIPS on AlexNet (arXiv 1801.03924): compares the outputs of the convolutions of torchvision's
//! `alexnet` channel by channel, weighted by the linear heads of version 0.1 of the authors'
//! package.

use anyhow::Result;
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::error::runtime;
use crate::io::config_file::Class;
use crate::io::config_file::Field::Read;
use crate::io::weights::WeightPath;
use crate::models::layers::Conv2d;

/// `config.json`, as written by `scripts/convert_encoder.py`: the original checkpoints have none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "each field has one value; reading it refuses all others"
)]
pub struct LpipsConfig {
    /// `lpips`.
    pub model_type: LpipsKind,
    /// `alex`.
    pub net: Trunk,
    /// `0.1`.
    pub version: Version,
}

/// The fields that the script writes.
pub const CLASS: Class = Class {
    name: "LPIPS",
    fields: &[&[("model_type", Read), ("net", Read), ("version", Read)]],
    besides: &[],
};

/// The only supported kind of model.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LpipsKind {
    /// LPIPS.
    Lpips,
}

/// The network below the linear heads.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Trunk {
    /// AlexNet.
    Alex,
}

/// Version of the heads. Earlier versions did not scale pictures.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Version {
    /// With the paper's scaling.
    #[serde(rename = "0.1")]
    V01,
}

/// AlexNet's convolutions: index in torchvision's `features`; input and output channels; kernel,
/// stride and padding; whether a 3 x 3 max pooling with stride 2 comes first.
const LAYERS: [(i64, [i64; 2], [i64; 3], bool); 5] = [
    (0, [3, 64], [11, 4, 2], false),
    (3, [64, 192], [5, 1, 2], true),
    (6, [192, 384], [3, 1, 1], true),
    (8, [384, 256], [3, 1, 1], false),
    (10, [256, 256], [3, 1, 1], false),
];

/// A convolution with its linear head.
struct Layer {
    conv: Conv2d,
    is_pooled: bool,
    /// One weight for each channel `[1, C, 1, 1]`.
    lin: Tensor,
}

/// The features of one picture that LPIPS compares: a map `[1, C, h, w]` after each of the five
/// convolutions, normalised to unit length over the channels of each position.
pub struct LpipsFeatures(Vec<Tensor>);

/// LPIPS on AlexNet.
pub struct Lpips {
    layers: Vec<Layer>,
}

impl Lpips {
    /// Side in pixels of the smallest picture from which all layers give an output.
    pub const SMALLEST: u32 = 31;

    /// Bytes that the features of a picture take for each of its pixels: 64 channels at 1/16 of the
    /// positions, 192 at 1/64, 384 + 256 + 256 at 1/256, 4 bytes each.
    pub const BYTES_A_PIXEL: usize = 42;

    /// Reads `features.N` of torchvision's AlexNet and `linN` of the heads. All sizes are fixed, so
    /// the config is not needed after it was read.
    pub fn new(path: &WeightPath, _config: &LpipsConfig) -> Self {
        let mut layers = Vec::new();
        for (i, &(index, [c_in, c_out], [kernel, stride, padding], is_pooled)) in
            LAYERS.iter().enumerate()
        {
            let features = path / "features" / index;
            let head = path / format!("lin{i}.model.1");
            layers.push(Layer {
                conv: Conv2d::strided(&features, c_in, c_out, kernel, stride, padding),
                is_pooled,
                lin: head.tensor("weight", &[1, c_out, 1, 1]),
            });
        }
        Lpips { layers }
    }

    /// Features of a prepared picture `[1, 3, H, W]` with sides of at least [`Lpips::SMALLEST`]
    /// pixels: after each ReLU f / (|f| + 1e-10), where |f| is the length over the channels of one
    /// position.
    pub fn forward(&self, pixel_values: &Tensor) -> LpipsFeatures {
        let mut xs = pixel_values.shallow_clone();
        let mut features = Vec::new();
        for layer in &self.layers {
            if layer.is_pooled {
                xs = xs.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false);
            }
            xs = layer.conv.forward(&xs).relu(); // [1, C, h, w]
            let length = xs
                .square()
                .sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
            features.push(&xs / (length.sqrt() + 1e-10));
        }
        LpipsFeatures(features)
    }

    /// d(x, y) = Σ_l mean over positions of Σ_c w_lc (f_lc(x) - f_lc(y))²: Eq. (1) of the paper. 0
    /// for equal pictures.
    ///
    /// # Errors
    /// When the distance is not finite.
    ///
    /// # Panics
    /// When the pictures have different sizes.
    pub fn distance(&self, a: &LpipsFeatures, b: &LpipsFeatures) -> Result<f64> {
        let of_layer = |(layer, (a, b)): (&Layer, (&Tensor, &Tensor))| {
            assert_eq!(a.size(), b.size(), "pictures of one size are compared");
            let weighted =
                (a - b)
                    .square()
                    .conv2d(&layer.lin, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
            weighted.mean(Kind::Float).double_value(&[])
        };
        let maps = a.0.iter().zip(&b.0);
        let distance: f64 = self.layers.iter().zip(maps).map(of_layer).sum();
        if distance.is_finite() {
            Ok(distance)
        } else {
            Err(runtime(format!(
                "lpips: found {distance}, expected a finite distance"
            )))
        }
    }
}
