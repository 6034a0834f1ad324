//! Pictures that the user provides: photos and control images, as PNG or JPEG of any size. Photos
//! are resized to the size of a base set.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage};

use super::jpeg;
use crate::error::{Error, ErrorKind, usage};
use crate::io::checksum::crc32;
use crate::io::given_file::cannot_open;

/// The largest size in bytes of a picture's file and of its decoded pixels: 178 megapixels in 8-bit
/// RGB. The header is checked before memory for the pixels is allocated.
const LARGEST: u64 = 512 << 20;

/// The largest factor by which a photo is enlarged. Beyond it the filter adds more than the photo.
const MOST_ENLARGED: f64 = 4.0;

/// How transparent parts of a picture are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transparency {
    /// They are blended with white, as a viewer shows them: for photos.
    OnWhite,
    /// Transparency is dropped and the colours are kept, as in diffusers' `load_image`: for control
    /// images.
    Dropped,
}

/// A picture as it is displayed, with its name and checksum.
#[derive(Clone, Debug)]
pub struct GivenPicture {
    /// Its pixels, upright, without transparency.
    pub picture: RgbImage,
    /// The file's name without its folder.
    pub name: String,
    /// CRC-32 of the file in eight hexadecimal digits.
    pub crc32: String,
}

/// Reads a PNG or JPEG. The picture is rotated as its EXIF orientation says and converted to 8-bit
/// RGB. A colour profile is ignored.
///
/// # Errors
/// When the file is missing, too large, damaged, or neither PNG nor JPEG; the message names it.
pub fn read_picture(path: &Path, transparency: Transparency) -> Result<GivenPicture> {
    let bytes = read_bytes(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(GivenPicture {
        picture: decode(path, &bytes, transparency)?,
        name: name.into_owned(),
        crc32: crc32(&bytes),
    })
}

/// Width and height of the picture that [`read_picture`] would return, read from the header alone.
///
/// # Errors
/// As [`read_picture`], except for damage after the header.
pub fn picture_size(path: &Path) -> Result<(u32, u32)> {
    let bytes = read_bytes(path)?;
    let mut decoder = decoder(path, &bytes)?;
    let (width, height) = decoder.dimensions();
    Ok(
        match decoder.orientation().with_context(|| damaged(path))? {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (height, width),
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => (width, height),
        },
    )
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let refused = |error| cannot_open(path, "a PNG or JPEG", error);
    // Opening a named pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(refused)?;
    if !metadata.is_file() {
        return Err(usage(format!(
            "{shown} is not a file, expected a PNG or JPEG"
        )));
    }
    if metadata.len() > LARGEST {
        return Err(too_large(path, &format!("{} bytes", metadata.len())));
    }
    fs::read(path).map_err(refused)
}

fn too_large(path: &Path, found: &str) -> anyhow::Error {
    usage(format!(
        "{}: found {found}, expected at most {} MiB in the file and as 8-bit pixels: shrink the \
         picture first",
        path.display(),
        LARGEST >> 20
    ))
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Usage, format!("decoding {}", path.display()))
}

/// The kind of picture that the first bytes of a file indicate; `None` if they indicate none.
pub fn picture_kind(bytes: &[u8]) -> Option<&'static str> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Some("PNG"),
        Ok(ImageFormat::Jpeg) => Some("JPEG"),
        Ok(ImageFormat::WebP) => Some("WebP"),
        Ok(ImageFormat::Gif) => Some("GIF"),
        Ok(ImageFormat::Bmp) => Some("BMP"),
        Ok(ImageFormat::Tiff) => Some("TIFF"),
        Ok(ImageFormat::Avif) => Some("AVIF"),
        _ => match bytes.get(4..12) {
            Some(b"ftypheic" | b"ftypheix" | b"ftypmif1") => Some("HEIC"),
            _ => None,
        },
    }
}

/// A decoder that has read the header of a PNG or JPEG whose size is within the limit.
fn decoder<'a>(path: &Path, bytes: &'a [u8]) -> Result<impl ImageDecoder + 'a> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    match picture_kind(bytes) {
        Some("PNG" | "JPEG") => {}
        Some(other) => {
            return Err(usage(format!(
                "{} is a {other} picture, expected a PNG or JPEG: save it as PNG first",
                path.display()
            )));
        }
        None => {
            return Err(usage(format!(
                "{} is not a picture of a known kind, expected a PNG or JPEG",
                path.display()
            )));
        }
    }
    let decoder = reader.into_decoder().with_context(|| damaged(path))?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > LARGEST {
        Err(too_large(path, &format!("{width} x {height} pixels")))
    } else {
        Ok(decoder)
    }
}

/// As [`read_picture`], but returns only the pixels, from the content of the file at `path`.
///
/// # Errors
/// As [`read_picture`].
pub fn decode(path: &Path, bytes: &[u8], transparency: Transparency) -> Result<RgbImage> {
    let mut decoder = decoder(path, bytes)?;
    let orientation = decoder.orientation().with_context(|| damaged(path))?;
    let mut picture = DynamicImage::from_decoder(decoder).with_context(|| damaged(path))?;
    if picture_kind(bytes) == Some("JPEG") {
        let whole = jpeg::check_whole(bytes).map_err(anyhow::Error::msg);
        whole.with_context(|| damaged(path))?;
    }
    picture.apply_orientation(orientation);
    Ok(match transparency {
        Transparency::OnWhite if picture.color().has_alpha() => on_white(&picture),
        _ => picture.into_rgb8(),
    })
}

/// The picture blended with a white background.
fn on_white(picture: &DynamicImage) -> RgbImage {
    let picture = picture.to_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [r, g, b, alpha] = picture.get_pixel(x, y).0;
        let alpha = u32::from(alpha);
        // Both products are below 255², so the rounded quotient fits a byte.
        Rgb([r, g, b]
            .map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// The centre of a picture with the proportions of `width` x `height`, resized to that size with a
/// Lanczos filter of three lobes on the sRGB values. A picture of exactly that size is unchanged.
/// Also returns the factor by which it was enlarged; a factor below 1 means that it was shrunk.
///
/// # Errors
/// When the picture would be enlarged more than four times.
pub fn fit_to(picture: &RgbImage, width: u32, height: u32) -> Result<(RgbImage, f64)> {
    let (full_width, full_height) = picture.dimensions();
    let factor =
        (f64::from(width) / f64::from(full_width)).max(f64::from(height) / f64::from(full_height));
    if factor > MOST_ENLARGED {
        let least = |side: u32| (f64::from(side) / MOST_ENLARGED).ceil();
        return Err(usage(format!(
            "found {full_width} x {full_height} pixels, expected at least {} x {}: a smaller \
             picture would be enlarged more than {MOST_ENLARGED} times to {width} x {height}",
            least(width),
            least(height)
        )));
    }
    let part = |side: u32, most: u32| ((f64::from(side) / factor).round() as u32).clamp(1, most);
    let (part_width, part_height) = (part(width, full_width), part(height, full_height));
    let left = (full_width - part_width) / 2;
    let top = (full_height - part_height) / 2;
    Ok((
        cut(picture, [left, top, part_width, part_height], width, height),
        factor,
    ))
}

/// The part `[x, y, w, h]` of a picture, resized to `width` x `height` as by [`fit_to`].
pub fn cut(picture: &RgbImage, part: [u32; 4], width: u32, height: u32) -> RgbImage {
    let [x, y, w, h] = part;
    let part = imageops::crop_imm(picture, x, y, w, h).to_image();
    imageops::resize(&part, width, height, FilterType::Lanczos3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, RgbaImage};

    /// A test picture: left half red, right half blue.
    fn halves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| {
            if x < width / 2 {
                Rgb([250, 0, 0])
            } else {
                Rgb([0, 0, 250])
            }
        })
    }

    fn decoded(bytes: &[u8]) -> Result<RgbImage> {
        decode(Path::new("x.png"), bytes, Transparency::OnWhite)
    }

    #[test]
    fn a_picture_of_the_right_size_is_not_touched() -> Result<()> {
        let picture = RgbImage::from_fn(8, 16, |x, y| Rgb([x as u8 * 9, y as u8 * 7, 3]));
        let (same, factor) = fit_to(&picture, 8, 16)?;
        assert_eq!((same, factor), (picture, 1.0));
        Ok(())
    }

    #[test]
    fn the_middle_is_taken_in_the_right_proportions() -> Result<()> {
        // 300 x 100 to a square: columns 100 to 199, whose middle is where the colours meet.
        let (square, factor) = fit_to(&halves(300, 100), 50, 50)?;
        assert_eq!(square.dimensions(), (50, 50));
        assert_eq!(factor, 0.5);
        assert_eq!(square.get_pixel(2, 25).0, [250, 0, 0]);
        assert_eq!(square.get_pixel(47, 25).0, [0, 0, 250]);
        let reds = square.pixels().filter(|pixel| pixel.0[0] > 125).count();
        assert_eq!(reds, 50 * 25, "as much on the left as on the right");
        Ok(())
    }

    #[test]
    fn a_tiny_picture_is_refused_with_the_least_size() {
        let error = fit_to(&halves(15, 400), 64, 64).expect_err("it is too narrow");
        let message = error.to_string();
        assert!(
            message.contains("found 15 x 400 pixels, expected at least 16 x 16"),
            "{message}"
        );
        assert!(fit_to(&halves(16, 400), 64, 64).is_ok());
    }

    #[test]
    fn transparency_lies_on_white_or_is_dropped() -> Result<()> {
        let picture =
            RgbaImage::from_fn(2, 1, |x, _| image::Rgba([200, 100, 0, [0, 51][x as usize]]));
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
        // 51 of 255 is a fifth: 200 / 5 + 255 · 4 / 5 = 244.
        assert_eq!(decoded(&bytes)?.into_raw(), [255, 255, 255, 244, 224, 204]);
        let dropped = decode(Path::new("x.png"), &bytes, Transparency::Dropped)?;
        assert_eq!(dropped.into_raw(), [200, 100, 0, 200, 100, 0]);
        Ok(())
    }

    /// An EXIF block with the orientation tag alone.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut block = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0]);
        block
    }

    #[test]
    fn a_photo_is_turned_as_its_exif_orientation_says() -> Result<()> {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
        encoder.set_exif_metadata(exif(6)).expect("JPEG has EXIF");
        encoder.write_image(&halves(32, 16), 32, 16, ExtendedColorType::Rgb8)?;
        let upright = decoded(&bytes)?;
        // Orientation 6: the stored left side is the top of the picture.
        assert_eq!(upright.dimensions(), (16, 32));
        let (top, bottom) = (upright.get_pixel(8, 4).0, upright.get_pixel(8, 28).0);
        assert!(top[0] > 200 && top[2] < 50, "{top:?}");
        assert!(bottom[2] > 200 && bottom[0] < 50, "{bottom:?}");
        Ok(())
    }

    #[test]
    fn a_huge_picture_is_refused_by_its_header_alone() {
        // A PNG whose header says 60000 x 60000 pixels, with almost no data.
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 60_000, 60_000);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().expect("a header");
        writer
            .write_chunk(png::chunk::IDAT, &[0])
            .expect("room for a chunk");
        drop(writer);
        let message = format!("{:#}", decoded(&bytes).expect_err("it is huge"));
        assert!(
            message.contains("60000 x 60000 pixels, expected at most 512 MiB"),
            "{message}"
        );
    }
}
