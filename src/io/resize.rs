//! Pictures of another size, as Pillow's `LANCZOS` makes them, to the bit: diffusers resizes what it
//! is given with it. Two passes of whole-number arithmetic, the widths first.

use std::f64::consts::PI;

use image::RgbImage;

/// Bits behind the point in the weights: 32, less 8 for a level and 2 for sign and overshoot.
const PRECISION: u32 = 22;

/// Half the width of the filter: three lobes.
const SUPPORT: f64 = 3.0;

/// What one pixel is made of: pixels from `first` on, each with its weight.
struct Taps {
    first: usize,
    weights: Vec<i64>,
}

/// The picture at `width` x `height` pixels, of any other shape.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (old_width, old_height) = picture.dimensions();
    let wide = match old_width == width {
        true => picture.clone(),
        false => {
            let taps = taps(old_width as usize, width as usize);
            RgbImage::from_fn(width, old_height, |x, y| {
                weighted(&taps[x as usize], |i| picture.get_pixel(i, y))
            })
        }
    };
    if old_height == height {
        return wide;
    }
    let taps = taps(old_height as usize, height as usize);
    RgbImage::from_fn(width, height, |x, y| {
        weighted(&taps[y as usize], |i| wide.get_pixel(x, i))
    })
}

fn weighted<'a>(taps: &Taps, pixel: impl Fn(u32) -> &'a image::Rgb<u8>) -> image::Rgb<u8> {
    let mut sums = [1 << (PRECISION - 1); 3]; // one half: the shift below then rounds
    for (i, weight) in taps.weights.iter().enumerate() {
        let levels = pixel((taps.first + i) as u32).0;
        for (sum, level) in sums.iter_mut().zip(levels) {
            *sum += i64::from(level) * weight;
        }
    }
    image::Rgb(sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8))
}

/// The taps of each of `to` pixels over `from` old ones. Where pixels become fewer, the filter is
/// stretched so that every old one counts.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let one = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        // Casts cut towards zero, so that the half rounds.
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end)
            .map(|j| lanczos((j as f64 - center + 0.5) / stretch))
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

/// The windowed sinc `sinc(x) sinc(x / 3)`.
fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| match x == 0.0 {
        true => 1.0,
        false => (PI * x).sin() / (PI * x),
    };
    match (-SUPPORT..SUPPORT).contains(&x) {
        true => sinc(x) * sinc(x / SUPPORT),
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_level_stays_one_level_and_the_same_size_is_the_same_picture() {
        let grey = RgbImage::from_pixel(7, 5, image::Rgb([9, 200, 255]));
        assert_eq!(
            resize(&grey, 30, 2),
            RgbImage::from_pixel(30, 2, image::Rgb([9, 200, 255]))
        );
        let slope = RgbImage::from_fn(6, 4, |x, y| image::Rgb([(40 * x) as u8, y as u8, 7]));
        assert_eq!(resize(&slope, 6, 4), slope);
    }
}
