//! The projector φ, the only trained network (Fig. 2c): five convolutional ResNet stages, one linear layer, one
//! AdaIN layer.
//!
//! φ always gets the features of all N base images as one batch, in tuning and at inference. BatchNorm then
//! works the same in both and needs no running averages, and the offset of one image is relative to the others
//! of its base set.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::usage;
use crate::libtorch::seeded;

/// Number of ResNet stages.
const STAGES: usize = 5;
/// Channels of each stage, in units of the first stage's channels.
const WIDTHS: [i64; STAGES] = [1, 1, 2, 2, 4];
/// Added to the variance in BatchNorm; PyTorch's default.
const BATCH_NORM_EPS: f64 = 1e-5;
/// Added to the standard deviation of the base word's embedding in AdaIN.
const ADA_IN_EPS: f64 = 1e-5;

/// The last layer, which makes the offset from the pooled features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// The paper's: `c_Δ = γ(h) · norm(c_b) + β(h)` (AdaIN, arXiv 1703.06868).
    #[default]
    AdaIn,
    /// The authors' release: `c_Δ = LayerNorm(W h)`, without c.
    LayerNorm,
}

/// Sizes of a projector, derived from h and c_b.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectorConfig {
    /// Shape of one encoder feature map `[C, H, W]`.
    pub feature_shape: [i64; 3],
    /// W, tokens of the base word.
    pub num_tokens: i64,
    /// D, width of a token.
    pub token_width: i64,
    /// The last layer.
    pub head: Head,
}

impl ProjectorConfig {
    /// Channels of each stage. The first stage has a tenth of h's channels, but at least 64.
    pub fn widths(&self) -> [i64; STAGES] {
        let first = (self.feature_shape[0] / 10).max(64);
        WIDTHS.map(|w| w * first)
    }

    /// Stride of each stage: the map is halved while its shorter side is 4 or more.
    pub fn strides(&self) -> [i64; STAGES] {
        let mut side = self.feature_shape[1].min(self.feature_shape[2]);
        [0; STAGES].map(|_| {
            let stride = if side >= 4 { 2 } else { 1 };
            side = (side + stride - 1) / stride;
            stride
        })
    }

    /// Number of values in all parameters.
    pub fn num_values(&self) -> i64 {
        let shapes = shapes(self);
        shapes
            .values()
            .map(|shape| shape.iter().product::<i64>())
            .sum()
    }

    /// Outputs of the linear layer. With AdaIN these are a scale and a shift for every value.
    fn outputs(&self) -> i64 {
        let values = self.num_tokens * self.token_width;
        match self.head {
            Head::AdaIn => 2 * values,
            Head::LayerNorm => values,
        }
    }
}

/// φ and its parameters, all in f32.
pub struct Projector {
    /// The sizes of the projector.
    pub config: ProjectorConfig,
    parameters: BTreeMap<String, Tensor>,
}

impl Projector {
    /// An untrained projector. With AdaIN its offset is exactly zero.
    ///
    /// Initial values: convolutions normal with variance `2 / fan_in` (arXiv 1502.01852); BatchNorm scale 1 and
    /// shift 0; with AdaIN the linear layer 0, so that γ = β = 0 and tuning starts at the plain prompt; with
    /// LayerNorm the linear layer normal with standard deviation 0.02, because the output of LayerNorm cannot
    /// start at zero. Drawn on the CPU from `seed`.
    pub fn new(config: ProjectorConfig, seed: i64, device: Device) -> Self {
        let _drawing = seeded(seed);
        let f32_cpu = (Kind::Float, Device::Cpu);
        let mut parameters = BTreeMap::new();
        for (name, shape) in shapes(&config) {
            let value = match (shape.len(), name.as_str()) {
                (4, _) => {
                    let fan_in: i64 = shape[1..].iter().product();
                    Tensor::randn(&shape, f32_cpu) * (2.0 / fan_in as f64).sqrt()
                }
                (2, _) if config.head == Head::LayerNorm => Tensor::randn(&shape, f32_cpu) * 0.02,
                (1, name) if name.ends_with(".weight") => Tensor::ones(&shape, f32_cpu),
                _ => Tensor::zeros(&shape, f32_cpu),
            };
            parameters.insert(name, value.to_device(device).set_requires_grad(true));
        }
        Projector { config, parameters }
    }

    /// A projector with these parameters.
    ///
    /// # Errors
    /// When a parameter is missing or unknown, or has the wrong shape.
    pub fn from_parameters(
        config: ProjectorConfig,
        tensors: &BTreeMap<String, Tensor>,
        device: Device,
    ) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for (name, shape) in shapes(&config) {
            match tensors.get(&name) {
                Some(t) if t.size() == shape => {
                    let value = t.to_kind(Kind::Float).to_device(device).copy();
                    parameters.insert(name, value.set_requires_grad(true));
                }
                Some(t) => {
                    return Err(usage(format!(
                        "projector {name}: found {:?}, expected {shape:?}",
                        t.size()
                    )));
                }
                None => {
                    return Err(usage(format!(
                        "projector {name}: this parameter is missing"
                    )));
                }
            }
        }
        if let Some(name) = tensors.keys().find(|name| !parameters.contains_key(*name)) {
            return Err(usage(format!(
                "projector {name}: found an unknown parameter"
            )));
        }
        Ok(Projector { config, parameters })
    }

    /// The parameters by name.
    pub fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    /// φ: from the features `h [N, C, H, W]` of all base images and the base word's embedding `c_b [W, D]` to
    /// one offset for each image, `c_Δ [N, W, D]`, all f32.
    pub fn forward(&self, h: &Tensor, c_b: &Tensor) -> Tensor {
        let mut xs = h.shallow_clone();
        for (i, stride) in self.config.strides().into_iter().enumerate() {
            xs = self.stage(i, stride, &xs); // [N, C_i, H_i, W_i]
        }
        let pooled = xs.mean_dim([2i64, 3].as_slice(), false, Kind::Float); // [N, C_5]
        let out = pooled.linear(self.get("linear.weight"), Some(self.get("linear.bias")));
        let (w, d) = (self.config.num_tokens, self.config.token_width);
        match self.config.head {
            Head::AdaIn => {
                let halves = out.view([-1, w, 2 * d]).chunk(2, -1);
                let [gamma, beta] = [&halves[0], &halves[1]]; // [N, W, D]
                gamma * normalised(c_b) + beta
            }
            Head::LayerNorm => out.view([-1, w, d]).layer_norm(
                [d],
                None::<&Tensor>,
                None::<&Tensor>,
                BATCH_NORM_EPS,
                true,
            ),
        }
    }

    /// `relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))` (arXiv 1512.03385); the shortcut is a 1×1
    /// convolution with BatchNorm if the shape changes.
    fn stage(&self, i: usize, stride: i64, xs: &Tensor) -> Tensor {
        let conv = |xs: &Tensor, name: &str, stride: i64, padding: i64| {
            let weight = self.get(&format!("stages.{i}.{name}.weight"));
            xs.conv2d(
                weight,
                None::<&Tensor>,
                [stride; 2],
                [padding; 2],
                [1, 1],
                1,
            )
        };
        let bn = |xs: &Tensor, name: &str| {
            let [weight, bias] =
                ["weight", "bias"].map(|part| self.get(&format!("stages.{i}.{name}.{part}")));
            let none = None::<&Tensor>;
            xs.batch_norm(
                Some(weight),
                Some(bias),
                none,
                none,
                true,
                0.0,
                BATCH_NORM_EPS,
                true,
            )
        };
        let hidden = bn(&conv(xs, "conv1", stride, 1), "bn1").relu();
        let hidden = bn(&conv(&hidden, "conv2", 1, 1), "bn2");
        let shortcut = if self
            .parameters
            .contains_key(&format!("stages.{i}.shortcut.0.weight"))
        {
            bn(&conv(xs, "shortcut.0", stride, 0), "shortcut.1")
        } else {
            xs.shallow_clone()
        };
        (shortcut + hidden).relu()
    }

    fn get(&self, name: &str) -> &Tensor {
        self.parameters
            .get(name)
            .expect("the constructor made every parameter")
    }
}

/// `(c_b - mean) / deviation` of each token over its width.
fn normalised(c_b: &Tensor) -> Tensor {
    let mean = c_b.mean_dim([-1i64].as_slice(), true, Kind::Float);
    let deviation = c_b.std_dim([-1i64].as_slice(), false, true);
    (c_b - mean) / (deviation + ADA_IN_EPS)
}

/// Names and shapes of all parameters.
fn shapes(config: &ProjectorConfig) -> BTreeMap<String, Vec<i64>> {
    let mut shapes = BTreeMap::new();
    let mut before = config.feature_shape[0];
    for (i, (width, stride)) in config
        .widths()
        .into_iter()
        .zip(config.strides())
        .enumerate()
    {
        let mut add =
            |name: &str, shape: Vec<i64>| shapes.insert(format!("stages.{i}.{name}"), shape);
        add("conv1.weight", vec![width, before, 3, 3]);
        add("conv2.weight", vec![width, width, 3, 3]);
        for part in ["bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"] {
            add(part, vec![width]);
        }
        if before != width || stride != 1 {
            add("shortcut.0.weight", vec![width, before, 1, 1]);
            add("shortcut.1.weight", vec![width]);
            add("shortcut.1.bias", vec![width]);
        }
        before = width;
    }
    shapes.insert("linear.weight".into(), vec![config.outputs(), before]);
    shapes.insert("linear.bias".into(), vec![config.outputs()]);
    shapes
}

#[cfg(test)]
mod tests {
    use super::super::learner::snapshot;
    use super::*;

    fn config(head: Head) -> ProjectorConfig {
        ProjectorConfig {
            feature_shape: [16, 8, 6],
            num_tokens: 2,
            token_width: 12,
            head,
        }
    }

    #[test]
    fn a_new_projector_moves_nothing() {
        let projector = Projector::new(config(Head::AdaIn), 1, Device::Cpu);
        let _drawing = seeded(2);
        let h = Tensor::randn([5, 16, 8, 6], (Kind::Float, Device::Cpu));
        let c_b = Tensor::randn([2, 12], (Kind::Float, Device::Cpu));
        let c_delta = projector.forward(&h, &c_b);
        assert_eq!(c_delta.size(), [5, 2, 12]);
        assert_eq!(c_delta.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn the_features_of_sdxl_become_a_vector() {
        let backbone = ProjectorConfig {
            feature_shape: [1280, 32, 32],
            num_tokens: 1,
            token_width: 2048,
            head: Head::AdaIn,
        };
        assert_eq!(backbone.strides(), [2, 2, 2, 2, 1]);
        assert_eq!(backbone.widths(), [128, 128, 256, 256, 512]);
    }

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        let projector = Projector::new(config(Head::LayerNorm), 1, Device::Cpu);
        let mut tensors = snapshot(projector.parameters());
        tensors.insert("extra".into(), Tensor::new());
        let refused = Projector::from_parameters(config(Head::LayerNorm), &tensors, Device::Cpu);
        assert!(
            refused
                .err()
                .is_some_and(|e| e.to_string().contains("extra"))
        );
    }
}
