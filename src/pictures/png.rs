//! PNG pictures with text chunks: written completely or not at all, and read back.

use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;

use super::photo::picture_kind;
use crate::error::usage;
use crate::io::atomic::write_atomically;
use crate::io::given_file::open;

/// The largest total size in bytes of a picture's text chunks: a file of a few kilobytes can
/// decompress to gigabytes of text.
const LONGEST_TEXTS: usize = 16 << 20;

/// Writes an 8-bit RGB picture with one text chunk for each `(keyword, text)`: tEXt if the text is
/// Latin-1, otherwise iTXt (UTF-8), as Pillow does.
///
/// # Errors
/// When the file cannot be written.
pub fn save_png(path: &Path, picture: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    write_atomically(path, |file| {
        let mut buffer = BufWriter::new(file);
        encode(&mut buffer, picture, texts)?;
        buffer.flush()?;
        Ok(())
    })
}

/// The bytes of a picture as a PNG without text chunks.
///
/// # Errors
/// When it has no pixel.
pub fn png_bytes(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(&mut bytes, picture, &[])?;
    Ok(bytes)
}

/// The bytes of a PNG with text chunks as in [`save_png`]; compressed less and much faster.
///
/// # Errors
/// As [`png_bytes`].
pub fn quick_png_bytes(picture: &RgbImage, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_as(&mut bytes, picture, texts, Some(png::Compression::Fastest))?;
    Ok(bytes)
}

fn encode(file: impl Write, picture: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    encode_as(file, picture, texts, None)
}

fn encode_as(
    file: impl Write,
    picture: &RgbImage,
    texts: &[(&str, &str)],
    compression: Option<png::Compression>,
) -> Result<()> {
    let mut encoder = png::Encoder::new(file, picture.width(), picture.height());
    if let Some(compression) = compression {
        encoder.set_compression(compression);
    }
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for &(keyword, text) in texts {
        if text.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk(keyword.to_owned(), text.to_owned())?;
        } else {
            encoder.add_itxt_chunk(keyword.to_owned(), text.to_owned())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.as_raw())?;
    writer.finish()?;
    Ok(())
}

/// The text chunks of a PNG as `(keyword, text)`, in the order tEXt, zTXt, iTXt.
///
/// # Errors
/// When the file cannot be read or is not a PNG.
pub fn read_png_text(path: &Path) -> Result<Vec<(String, String)>> {
    let doing = || format!("reading {}", path.display());
    let mut file = BufReader::new(open(path, "a PNG that this program wrote")?);
    match picture_kind(file.fill_buf().with_context(doing)?) {
        None | Some("PNG") => png_text(file).with_context(doing),
        Some(other) => Err(usage(format!(
            "{} is a {other} picture, expected a PNG that this program wrote: only such a PNG tells how it was drawn",
            path.display()
        ))),
    }
}

/// As [`read_png_text`], from the file's content.
///
/// # Errors
/// When it is not a PNG, or its texts are longer than the limit.
pub fn png_text(content: impl BufRead + Seek) -> Result<Vec<(String, String)>> {
    let mut reader = png::Decoder::new(content).read_info()?;
    // Text chunks may also come after the picture data.
    reader.finish()?;
    let info = reader.info();
    let mut texts = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    let mut left = LONGEST_TEXTS;
    for mut chunk in info.compressed_latin1_text.iter().cloned() {
        chunk.decompress_text_with_limit(left)?;
        let text = chunk.get_text()?;
        left = left.saturating_sub(text.len());
        texts.push((chunk.keyword, text));
    }
    for mut chunk in info.utf8_text.iter().cloned() {
        chunk.decompress_text_with_limit(left)?;
        let text = chunk.get_text()?;
        left = left.saturating_sub(text.len());
        texts.push((chunk.keyword, text));
    }
    Ok(texts)
}

/// A PNG as an 8-bit RGB picture.
///
/// # Errors
/// When the file cannot be read or is not a PNG.
pub fn open_png(path: &Path) -> Result<RgbImage> {
    let picture = image::ImageReader::open(path)
        .map_err(anyhow::Error::from)
        .and_then(|reader| Ok(reader.with_guessed_format()?.decode()?))
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(picture.into_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_and_texts_come_back_as_they_were_written() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-png-{}.png", std::process::id()));
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 200]));
        let texts = [
            ("parameters", "a café\nSteps: 30, Sampler: Euler, Seed: 1"),
            ("oneactor", "{\"prompt\": \"ロボット\"}"),
        ];
        save_png(&path, &picture, &texts)?;
        let read = read_png_text(&path)?;
        assert_eq!(open_png(&path)?, picture);
        let bytes = image::load_from_memory(&png_bytes(&picture)?)?;
        assert_eq!(bytes.into_rgb8(), picture);
        std::fs::remove_file(&path)?;
        let texts = texts.map(|(keyword, text)| (keyword.to_owned(), text.to_owned()));
        assert_eq!(read, texts);
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_png_is_named() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-nopng-{}", std::process::id()));
        std::fs::write(&path, "hello")?;
        let error = read_png_text(&path).expect_err("it is not a PNG");
        std::fs::remove_file(&path)?;
        assert!(format!("{error:#}").contains("oneactor-nopng"));
        Ok(())
    }
}
