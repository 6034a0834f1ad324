//! Colours of latents without the VAE: a linear map from the channels of a latent to red, green and blue, for
//! previews of unfinished pictures.
//!
//! The map is fitted to the model's own VAE, so no table for each family of models is needed. A few pictures of
//! coloured squares are encoded, and the map `rgb ≈ Wᵀ [z; 1]` is found by least squares over their latents.
//! Each finished picture adds its latents and colours to the sums.

use tch::{Device, Kind, Tensor};

use super::Backbone;

/// Sides of the squares in latents. Each side has one picture.
const SQUARES: [i64; 4] = [1, 2, 4, 8];

/// Side of those pictures in latents.
const SIDE: i64 = 16;

/// Steps of the R₃ sequence, powers of the root of x⁴ = x + 1 (Roberts, "The unreasonable effectiveness of
/// quasirandom sequences", 2018): colours that are spread evenly and are the same in every run, without using a
/// random number generator.
const COLOUR_STEPS: [f64; 3] = [
    0.819_172_513_396_164,
    0.671_043_606_703_789,
    0.549_700_477_901_97,
];

/// Added to the sums' diagonal, relative to its mean: so that there is a map even if a channel of the VAE is
/// constant.
const RIDGE: f64 = 1e-6;

/// Sums of least squares over latents and colours.
pub struct LatentColours {
    /// Width of a latent in pixels.
    scale_factor: i64,
    /// Σ [z; 1] [z; 1]ᵀ `[C + 1, C + 1]` f64.
    moments: Tensor,
    /// Σ [z; 1] rgbᵀ `[C + 1, 3]` f64.
    products: Tensor,
}

impl LatentColours {
    /// Fits the map to the VAE of a model.
    pub fn fit(backbone: &Backbone) -> Self {
        let f = backbone.vae_scale_factor();
        let pictures: Vec<Tensor> = SQUARES.map(|square| squares(square, f)).into();
        let pictures = Tensor::cat(&pictures, 0);
        let latents = backbone.encode(&pictures);
        let width = latents.size()[1] + 1;
        let zeros = |columns| Tensor::zeros([width, columns], (Kind::Double, Device::Cpu));
        let mut colours = LatentColours {
            scale_factor: f,
            moments: zeros(width),
            products: zeros(3),
        };
        colours.add(&latents, &pictures);
        colours
    }

    /// Adds finished pictures `[B, 3, H, W]` in [0, 1] and their latents `[B, C, H/f, W/f]`.
    pub fn add(&mut self, latents: &Tensor, pictures: &Tensor) {
        let f = self.scale_factor;
        let pictures = pictures.to_device(Device::Cpu).to_kind(Kind::Double);
        let colours = pictures.avg_pool2d([f, f], [f, f], [0, 0], false, true, None::<i64>);
        let z = rows_of(latents); // [N, C + 1]
        self.moments += z.tr().matmul(&z);
        self.products += z.tr().matmul(&rows(&colours));
    }

    /// The colours of latents `[B, C, h, w]`, one pixel per latent: `[B, 3, h, w]` in [0, 1].
    pub fn pictures(&self, latents: &Tensor) -> Tensor {
        let (b, _, h, w) = latents.size4().expect("latents have four axes");
        let width = self.moments.size()[0];
        let ridge = self.moments.trace() / width as f64 * RIDGE;
        let eye = Tensor::eye(width, (Kind::Double, Device::Cpu));
        let map = Tensor::linalg_solve(&(&self.moments + eye * ridge), &self.products, true);
        let colours = rows_of(latents).matmul(&map); // [B h w, 3]
        colours
            .nan_to_num(0.5, None::<f64>, None::<f64>)
            .clamp(0.0, 1.0)
            .view([b, h, w, 3])
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
    }
}

/// Positions of maps `[B, C, h, w]` as rows `[B h w, C]`, f64 on the CPU.
fn rows(maps: &Tensor) -> Tensor {
    let channels = maps.size()[1];
    let maps = maps.to_device(Device::Cpu).to_kind(Kind::Double);
    maps.permute([0, 2, 3, 1]).reshape([-1, channels])
}

/// The same with a 1 appended to the channels.
fn rows_of(latents: &Tensor) -> Tensor {
    let z = rows(latents);
    let ones = Tensor::ones([z.size()[0], 1], (Kind::Double, Device::Cpu));
    Tensor::cat(&[z, ones], 1)
}

/// A picture `[1, 3, H, W]` of squares that are `square` latents wide, each with a different colour.
fn squares(square: i64, f: i64) -> Tensor {
    let n = SIDE / square;
    let colours: Vec<f32> = COLOUR_STEPS
        .iter()
        .flat_map(|step| (1..=n * n).map(move |k| (k as f64 * step).fract() as f32))
        .collect();
    let side = square * f;
    Tensor::from_slice(&colours)
        .view([1, 3, n, n])
        .repeat_interleave_self_int(side, 2, None)
        .repeat_interleave_self_int(side, 3, None)
}
