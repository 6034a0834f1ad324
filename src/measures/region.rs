//! Regions of a picture: only the subject, or everything except the subject.
//!
//! The rest of the picture is filled with the encoder's mean colour, which becomes 0 by normalisation; the size
//! stays the same. The paper does not say how it masks. This choice adds no edge that is darker or brighter
//! than the encoder's average picture, and keeps the position of the subject.

use image::{GrayImage, Rgb, RgbImage};

/// A part of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// The whole picture.
    Whole,
    /// The positions at which the mask is at least half white.
    Foreground,
    /// All other positions.
    Background,
}

impl Region {
    /// The suffix after the name of a measure.
    pub fn ending(self) -> &'static str {
        match self {
            Region::Whole => "",
            Region::Foreground => "_foreground",
            Region::Background => "_background",
        }
    }

    /// The picture with everything outside this region filled with `fill`. A mask of another size is stretched
    /// over the picture without smoothing.
    ///
    /// # Panics
    /// When foreground or background is asked for without a mask.
    pub fn of(self, picture: &RgbImage, mask: Option<&GrayImage>, fill: [u8; 3]) -> RgbImage {
        if self == Region::Whole {
            return picture.clone();
        }
        let mask = mask.expect("a part has a mask");
        let (width, height) = picture.dimensions();
        RgbImage::from_fn(width, height, |x, y| {
            let is_subject = level(mask, (x, y), (width, height)) >= 128;
            if is_subject == (self == Region::Foreground) {
                *picture.get_pixel(x, y)
            } else {
                Rgb(fill)
            }
        })
    }
}

/// The mask's level at a position of a picture of this size.
fn level(mask: &GrayImage, (x, y): (u32, u32), (width, height): (u32, u32)) -> u8 {
    let at = |place: u32, of: u32, side: u32| {
        (u64::from(place) * u64::from(side) / u64::from(of)) as u32
    };
    mask.get_pixel(at(x, width, mask.width()), at(y, height, mask.height()))
        .0[0]
}

/// The white fraction of a mask, from 0 to 1.
pub fn share(mask: &GrayImage) -> f64 {
    let white = mask.pixels().filter(|level| level.0[0] >= 128).count();
    white as f64 / f64::from(mask.width() * mask.height())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreground_and_background_share_out_the_picture() {
        let picture = RgbImage::from_fn(4, 2, |x, y| Rgb([x as u8, y as u8, 9]));
        let mask = GrayImage::from_fn(2, 1, |x, _| image::Luma([[127, 128][x as usize]]));
        let fill = [122, 116, 104];
        let [fore, back] = [Region::Foreground, Region::Background]
            .map(|region| region.of(&picture, Some(&mask), fill));
        for (x, y, pixel) in picture.enumerate_pixels() {
            let (inside, outside) = if x >= 2 {
                (&fore, &back)
            } else {
                (&back, &fore)
            };
            assert_eq!(inside.get_pixel(x, y), pixel);
            assert_eq!(outside.get_pixel(x, y).0, fill);
        }
        assert_eq!(Region::Whole.of(&picture, None, fill), picture);
        assert_eq!(share(&mask), 0.5);
    }
}
