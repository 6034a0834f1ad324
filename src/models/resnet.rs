//! Residual blocks and changes of resolution (arXiv 1512.03385), shared by U-Net and VAE.

use tch::Tensor;

use super::layers::{Conv2d, GroupNorm, Linear, plus, silu};
use crate::io::weights::WeightPath;

/// Sizes of a [`ResnetBlock2D`].
#[derive(Clone, Copy, Debug)]
pub struct ResnetConfig {
    /// Number of input channels.
    pub in_channels: i64,
    /// Number of output channels.
    pub out_channels: i64,
    /// Groups of both norms.
    pub groups: i64,
    /// Added to the variance in both norms.
    pub eps: f64,
    /// Width of the time embedding, if there is one.
    pub temb_channels: Option<i64>,
}

/// `x + conv2(silu(norm2(conv1(silu(norm1(x))) + W silu(temb))))`. Where the number of channels
/// changes, the first `x` passes through a 1×1 convolution.
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock2D {
    /// Reads the module at `path`.
    pub fn new(path: &WeightPath, config: &ResnetConfig) -> Self {
        let ResnetConfig {
            in_channels,
            out_channels,
            groups,
            eps,
            temb_channels,
        } = *config;
        ResnetBlock2D {
            norm1: GroupNorm::new(&(path / "norm1"), groups, in_channels, eps),
            conv1: Conv2d::new(&(path / "conv1"), in_channels, out_channels, 3),
            time_emb_proj: temb_channels
                .map(|d| Linear::new(&(path / "time_emb_proj"), d, out_channels)),
            norm2: GroupNorm::new(&(path / "norm2"), groups, out_channels, eps),
            conv2: Conv2d::new(&(path / "conv2"), out_channels, out_channels, 3),
            conv_shortcut: (in_channels != out_channels)
                .then(|| Conv2d::new(&(path / "conv_shortcut"), in_channels, out_channels, 1)),
        }
    }

    /// `xs [B, C_in, H, W]` to `[B, C_out, H, W]`. `silu_temb [B, D]` is the time embedding after
    /// SiLU. It is the same for all blocks of a pass, so the caller computes it once.
    pub fn forward(&self, xs: &Tensor, silu_temb: Option<&Tensor>) -> Tensor {
        let mut hidden = silu(self.norm1.forward(xs));
        hidden = self.conv1.forward(&hidden); // [B, C_out, H, W]
        if let (Some(proj), Some(temb)) = (&self.time_emb_proj, silu_temb) {
            hidden += proj.forward(temb).unsqueeze(-1).unsqueeze(-1);
        }
        hidden = silu(self.norm2.forward(&hidden));
        hidden = self.conv2.forward(&hidden);
        match &self.conv_shortcut {
            Some(shortcut) => plus(hidden, &shortcut.forward(xs)),
            None => plus(hidden, xs),
        }
    }
}

/// Halves the resolution with a strided convolution.
pub struct Downsample2D {
    conv: Conv2d,
    pad_end: bool,
}

impl Downsample2D {
    /// Pads `padding` on every side. 0 means one row and one column at the end, as in the VAE.
    pub fn new(path: &WeightPath, channels: i64, padding: i64) -> Self {
        Downsample2D {
            conv: Conv2d::strided(&(path / "conv"), channels, channels, 3, 2, padding),
            pad_end: padding == 0,
        }
    }

    /// `[B, C, H, W]` to `[B, C, H/2, W/2]`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        if self.pad_end {
            return self.conv.forward(&xs.constant_pad_nd([0, 1, 0, 1]));
        }
        self.conv.forward(xs)
    }
}

/// Enlarges a map by repeating the nearest value, then applies a convolution.
pub struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    /// Reads the module at `path`.
    pub fn new(path: &WeightPath, channels: i64) -> Self {
        Upsample2D {
            conv: Conv2d::new(&(path / "conv"), channels, channels, 3),
        }
    }

    /// `[B, C, H, W]` to `[B, C, size]`.
    pub fn forward(&self, xs: &Tensor, size: [i64; 2]) -> Tensor {
        self.conv.forward(&xs.upsample_nearest2d(size, None, None))
    }
}
