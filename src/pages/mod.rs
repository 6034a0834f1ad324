//! HTML pages of `story`, `gallery` and `evaluate --report`. Each page is one file that contains its
//! pictures and needs neither a script nor another address.
//!
//! The templates are compiled by `maud`, which escapes every text that is put into them.

pub(crate) mod evaluation;
pub(crate) mod gallery;
mod scatter_plot;
pub(crate) mod story;

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::pictures::png::png_bytes;
use crate::pictures::resize::resize;

/// The look of `gallery` and `evaluate --report`. Colours follow the reader's setting; printed pages are
/// black on white and keep each picture beside its text.
const SHARED_STYLE: &str = include_str!("shared.css");

/// A picture narrower than this, in pixels, is enlarged with sharp edges instead of smoothly.
const COARSE: u32 = 128;

/// Quality of a reduced picture: about 10 kB at 256 pixels, a tenth of the same picture as a PNG.
const JPEG_QUALITY: u8 = 82;

/// A whole page; `language` is a BCP 47 tag.
///
/// Control characters, which HTML forbids, are removed.
fn document(language: &str, title: &str, style: &str, body: &Markup) -> String {
    let generator = concat!("oneactor ", env!("CARGO_PKG_VERSION"));
    let page = html! {
        (DOCTYPE)
        html lang=(language) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content=(generator);
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    let mut page = page.into_string();
    page.retain(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    page
}

/// A page with the shared look. Its header shows the title, the command that wrote it, and `header`.
fn shared_document(
    title: &str,
    command: &str,
    style: &str,
    header: &Markup,
    body: &Markup,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let body = html! {
        header {
            h1 dir="auto" { (title) }
            p.small { "oneactor " (command) ", version " (version) }
            (header)
        }
        (body)
    };
    document("en", title, &[SHARED_STYLE, style].concat(), &body)
}

/// A paragraph of this CSS class, written in the direction of its first letter.
fn paragraph(class: &str, text: &str) -> Markup {
    html! { p class=(class) dir="auto" { (text) } }
}

/// A picture as part of the page: unchanged as a PNG, or reduced to `longest` pixels as a JPEG.
///
/// # Errors
/// When the picture is empty.
fn image(picture: &RgbImage, longest: u32, alt: &str) -> Result<Markup> {
    let (width, height) = picture.dimensions();
    let scale = f64::from(longest) / f64::from(width.max(height));
    let (kind, bytes, width, height) = if scale < 1.0 {
        let reduced = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
        let small = resize(picture, reduced(width), reduced(height));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(&small)?;
        ("jpeg", bytes, small.width(), small.height())
    } else {
        ("png", png_bytes(picture)?, width, height)
    };
    let class = (width < COARSE).then_some("coarse");
    Ok(html! {
        img class=[class] src=(data_uri(kind, &bytes)) width=(width) height=(height)
            loading="lazy" decoding="async" alt=(alt);
    })
}

/// An address that contains the picture itself (RFC 2397); `kind` is `png` or `jpeg`.
fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", BASE64.encode(bytes))
}

/// A PNG file as part of the page, byte for byte.
///
/// # Errors
/// When the file cannot be read or is not a picture.
fn png_file(path: &Path, coarse_below: u32, alt: &str) -> Result<Markup> {
    let reading = || format!("reading {}", path.display());
    let (width, height) = image::image_dimensions(path).with_context(reading)?;
    let bytes = std::fs::read(path).with_context(reading)?;
    let class = (width < coarse_below).then_some("coarse");
    Ok(html! {
        img class=[class] src=(data_uri("png", &bytes)) width=(width) height=(height) alt=(alt);
    })
}

/// Keys and their values, one below the other.
fn settings_list<'a>(settings: impl Iterator<Item = (&'a String, &'a Value)>) -> Markup {
    html! {
        dl.settings {
            @for (key, value) in settings {
                dt { (key) }
                dd dir="auto" { (shown(value)) }
            }
        }
    }
}

/// A setting's value as a person would write it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_taken_for_markup() {
        let hostile = "</title><script>\"a\" & 'b'</script>\u{0}\n";
        let page = document("en", hostile, "", &paragraph("\"x\"", hostile));
        assert!(!page.contains("<script") && !page.contains('\u{0}'));
        assert!(page.contains("<title>&lt;/title&gt;&lt;script&gt;&quot;a&quot; &amp; 'b'&lt;"));
        assert!(page.contains("<p class=\"&quot;x&quot;\" dir=\"auto\">&lt;/title&gt;"));
    }
}
