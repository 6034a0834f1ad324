//! The layers that every network is made of, with frozen weights.

use tch::Tensor;

use crate::io::low_rank::LowRank;
use crate::io::weights::WeightPath;
use crate::libtorch::linear::linear;

/// `y = x Wᵀ + b`, and `+ (x Aᵀ) Bᵀ` while a low-rank update of W is being learnt.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// Boxed because most layers have no update.
    update: Option<Box<LowRank>>,
}

impl Linear {
    /// Reads `weight [D_out, D_in]` and `bias [D_out]`.
    pub fn new(path: &WeightPath, d_in: i64, d_out: i64) -> Self {
        Linear {
            weight: path.tensor("weight", &[d_out, d_in]),
            bias: Some(path.tensor("bias", &[d_out])),
            update: path.low_rank(d_in, d_out).map(Box::new),
        }
    }

    /// Reads `weight [D_out, D_in]` alone.
    pub fn without_bias(path: &WeightPath, d_in: i64, d_out: i64) -> Self {
        Linear {
            weight: path.tensor("weight", &[d_out, d_in]),
            bias: None,
            update: path.low_rank(d_in, d_out).map(Box::new),
        }
    }

    /// A layer `[.., D_in]` to `[.., Σ D_out]` that computes these layers in one product, which a GPU finishes sooner
    /// than several. The layers then read their rows of its weight, so that no memory is needed twice. `None`, and
    /// no change, on a CPU, and if a layer has a bias or an update.
    pub fn joined(layers: &mut [&mut Linear]) -> Option<Linear> {
        let is_plain = |layer: &Linear| {
            layer.weight.device().is_cuda() && layer.bias.is_none() && layer.update.is_none()
        };
        if !layers.iter().all(|layer| is_plain(layer)) {
            return None;
        }
        let weights: Vec<&Tensor> = layers.iter().map(|layer| &layer.weight).collect();
        let weight = Tensor::cat(&weights, 0);
        let mut first = 0;
        for layer in layers {
            let rows = layer.weight.size()[0];
            layer.weight = weight.narrow(0, first, rows);
            first += rows;
        }
        Some(Linear {
            weight,
            bias: None,
            update: None,
        })
    }

    /// `[.., D_in]` to `[.., D_out]`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let ys = linear(xs, &self.weight, self.bias.as_ref());
        match &self.update {
            None => ys,
            Some(update) => ys + update.forward(xs),
        }
    }
}

/// A convolution with a bias.
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// Reads `weight [C_out, C_in, K, K]` and `bias [C_out]`. The stride is 1 and the padding keeps
    /// the size.
    pub fn new(path: &WeightPath, c_in: i64, c_out: i64, kernel: i64) -> Self {
        Conv2d::strided(path, c_in, c_out, kernel, 1, kernel / 2)
    }

    /// As [`Conv2d::new`], with this stride and padding.
    pub fn strided(
        path: &WeightPath,
        c_in: i64,
        c_out: i64,
        kernel: i64,
        stride: i64,
        padding: i64,
    ) -> Self {
        Conv2d {
            weight: path.tensor("weight", &[c_out, c_in, kernel, kernel]),
            bias: path.tensor("bias", &[c_out]),
            stride,
            padding,
        }
    }

    /// `[B, C_in, H, W]` to `[B, C_out, H', W']`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        xs.conv2d(&self.weight, Some(&self.bias), stride, padding, [1, 1], 1)
    }
}

/// Group normalisation. libtorch computes its statistics in f32 whatever the precision of the
/// weights.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    num_groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// Reads `weight [C]` and `bias [C]`.
    pub fn new(path: &WeightPath, num_groups: i64, channels: i64, eps: f64) -> Self {
        GroupNorm {
            weight: path.tensor("weight", &[channels]),
            bias: path.tensor("bias", &[channels]),
            num_groups,
            eps,
        }
    }

    /// `[B, C, H, W]` to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        xs.group_norm(
            self.num_groups,
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            true,
        )
    }
}

/// `x σ(x)` of a tensor that nothing else reads: computed in place, unless autograd needs x.
/// Allocating new memory would take longer than the function.
pub fn silu(mut xs: Tensor) -> Tensor {
    if xs.requires_grad() {
        xs.silu()
    } else {
        xs.silu_()
    }
}

/// `xs ys`, written into `xs` under the conditions of [`silu`].
pub fn times(mut xs: Tensor, ys: &Tensor) -> Tensor {
    if xs.requires_grad() {
        xs * ys
    } else {
        xs.g_mul_(ys)
    }
}

/// `xs + ys`, written into `xs`. `xs` must be the output of a layer whose gradient does not need
/// it: a linear layer or a convolution.
pub fn plus(mut xs: Tensor, ys: &Tensor) -> Tensor {
    xs += ys;
    xs
}

/// Layer normalisation over the last axis. libtorch computes its statistics in f32.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight [D]` and `bias [D]`.
    pub fn new(path: &WeightPath, width: i64, eps: f64) -> Self {
        LayerNorm {
            weight: path.tensor("weight", &[width]),
            bias: path.tensor("bias", &[width]),
            eps,
        }
    }

    /// `[.., D]` to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        xs.layer_norm(
            self.weight.size(),
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            true,
        )
    }

    /// Normalises over C: `[B, C, H, W]` to the same shape.
    pub fn forward_channels(&self, xs: &Tensor) -> Tensor {
        let last = xs.permute([0, 2, 3, 1]); // [B, H, W, C]
        self.forward(&last).permute([0, 3, 1, 2])
    }
}
