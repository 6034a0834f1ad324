//! Pixels between the tensors of a network and 8-bit pictures.

use anyhow::{Result, ensure};
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::io::values::bytes;

/// Picture `index` of a tensor `[B, 3, H, W]` with values in [0, 1], as 8-bit pixels: each value times 255, rounded.
///
/// # Errors
/// When the tensor has another shape.
pub fn to_rgb(pictures: &Tensor, index: usize) -> Result<RgbImage> {
    let (_, channels, height, width) = pictures.size4()?;
    ensure!(
        channels == 3,
        "found {channels} channels in a picture, expected 3"
    );
    let pixels = (pictures.get(index as i64) * 255.0)
        .round()
        .to_kind(Kind::Uint8)
        .permute([1, 2, 0]); // [H, W, 3]
    let picture = RgbImage::from_raw(width as u32, height as u32, bytes(&pixels)?);
    picture.ok_or_else(|| anyhow::anyhow!("found too few pixels for {width} x {height}"))
}

/// An 8-bit picture as an f32 tensor `[1, 3, H, W]` with values in [0, 1].
pub fn from_rgb(picture: &RgbImage) -> Tensor {
    let (width, height) = picture.dimensions();
    let size = [i64::from(height), i64::from(width), 3];
    let pixels = Tensor::from_data_size(picture.as_raw(), &size, Kind::Uint8);
    pixels.permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_rounded_and_stand_in_rows() -> Result<()> {
        let values = [0.0f32, 1.0, 0.5, 0.499, 0.1, 0.9];
        let picture = to_rgb(&Tensor::from_slice(&values).view([1, 3, 1, 2]), 0)?;
        assert_eq!(picture.into_raw(), [0, 128, 26, 255, 127, 230]);
        Ok(())
    }

    #[test]
    fn pixels_come_back_from_a_tensor() -> Result<()> {
        let picture = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 255]));
        assert_eq!(from_rgb(&picture).size(), [1, 3, 2, 3]);
        assert_eq!(to_rgb(&from_rgb(&picture), 0)?, picture);
        Ok(())
    }
}
