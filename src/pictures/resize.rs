//! Resizes pictures exactly as Pillow's filters do, to the bit: diffusers resizes its input with
//! `LANCZOS`, the image processors of transformers mostly with `BICUBIC`. Two passes of integer
//! arithmetic, first over the width, then over the height.

use std::f64::consts::PI;

use image::RgbImage;

/// Fractional bits of the weights: 32, less 8 for a level and 2 for sign and overshoot.
const PRECISION: u32 = 22;

/// The Pillow filters that checkpoints name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle over two pixels.
    Bilinear,
    /// Keys' cubic over four pixels, with a = -0.5 (not torch's -0.75).
    Bicubic,
    /// The windowed sinc over six pixels.
    Lanczos,
}

impl Filter {
    /// Half the filter's width in pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The filter's value at `x` pixels from its centre.
    fn at(self, x: f64) -> f64 {
        match self {
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Bicubic => cubic(x.abs()),
            Filter::Lanczos => lanczos(x),
        }
    }
}

/// The source pixels of one new pixel: those from `first` on, each with its weight.
struct Taps {
    first: usize,
    weights: Vec<i64>,
}

/// The picture resized to `width` x `height` pixels, of any proportions, by Pillow's `LANCZOS`.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    resize_by(Filter::Lanczos, picture, width, height)
}

/// The picture resized to `width` x `height` pixels, of any proportions.
pub fn resize_by(filter: Filter, picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (old_width, old_height) = picture.dimensions();
    let wide = if old_width == width {
        picture.clone()
    } else {
        let taps = taps(filter, old_width as usize, width as usize);
        RgbImage::from_fn(width, old_height, |x, y| {
            weighted(&taps[x as usize], |i| picture.get_pixel(i, y))
        })
    };
    if old_height == height {
        return wide;
    }
    let taps = taps(filter, old_height as usize, height as usize);
    RgbImage::from_fn(width, height, |x, y| {
        weighted(&taps[y as usize], |i| wide.get_pixel(x, i))
    })
}

fn weighted<'a>(taps: &Taps, pixel: impl Fn(u32) -> &'a image::Rgb<u8>) -> image::Rgb<u8> {
    let mut sums = [1 << (PRECISION - 1); 3]; // one half, so that the shift below rounds
    for (i, weight) in taps.weights.iter().enumerate() {
        let levels = pixel((taps.first + i) as u32).0;
        for (sum, level) in sums.iter_mut().zip(levels) {
            *sum += i64::from(level) * weight;
        }
    }
    image::Rgb(sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8))
}

/// The taps of each of `to` pixels over `from` old pixels. When the picture shrinks, the filter is
/// stretched so that every old pixel counts.
fn taps(filter: Filter, from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let one = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        // Casts truncate towards zero, so adding one half rounds.
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end)
            .map(|j| filter.at((j as f64 - center + 0.5) / stretch))
            .collect();
        let sum: f64 = raw.iter().sum();
        let fixed = |weight: &f64| (weight / sum * f64::from(1 << PRECISION)).round() as i64;
        Taps {
            first,
            weights: raw.iter().map(fixed).collect(),
        }
    };
    (0..to).map(one).collect()
}

/// Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981) with a = -0.5, for `x` >= 0.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x {
        _ if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

/// The windowed sinc `sinc(x) sinc(x / 3)`.
fn lanczos(x: f64) -> f64 {
    let support = Filter::Lanczos.support();
    let sinc = |x: f64| {
        if x == 0.0 {
            1.0
        } else {
            (PI * x).sin() / (PI * x)
        }
    };
    if (-support..support).contains(&x) {
        sinc(x) * sinc(x / support)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_level_stays_one_level_and_the_same_size_is_the_same_picture() {
        let grey = RgbImage::from_pixel(7, 5, image::Rgb([9, 200, 255]));
        let slope = RgbImage::from_fn(6, 4, |x, y| image::Rgb([(40 * x) as u8, y as u8, 7]));
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            assert_eq!(
                resize_by(filter, &grey, 30, 2),
                RgbImage::from_pixel(30, 2, image::Rgb([9, 200, 255])),
                "{filter:?}"
            );
            assert_eq!(resize_by(filter, &slope, 6, 4), slope, "{filter:?}");
        }
    }
}
