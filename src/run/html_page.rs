//! What the pages of `evaluate --report` and `gallery` share: their look, small pictures, lists of settings. Each page
//! is one file, without scripts and without addresses.

use std::fmt::Write;

use anyhow::Result;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use serde_json::Value;

use crate::io::html::{escape, jpeg_data_uri, png_data_uri};
use crate::pictures::png::png_bytes;
use crate::pictures::resize::resize;

/// Colours follow the reader's setting; on paper they are black on white, and no picture is torn from its text.
pub const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1f2023; --faint: #5d6066; --line: #d8dade; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #18191b; --ink: #e7e7e4; --faint: #a3a6ab; --line: #3b3d41; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1.5rem 1rem 3rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0 .25rem; font-size: 1.75rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
h3 { margin: 1.75rem 0 .75rem; font-size: 1rem; }
h1, h2, h3, p, th, dd, li { overflow-wrap: anywhere; }
p { margin: .25rem 0 0; white-space: pre-line; }
.small { color: var(--faint); font-size: .8125rem; line-height: 1.4; }
.prompt { font-size: .875rem; line-height: 1.4; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: .25rem; }
.coarse { image-rendering: pixelated; }
.pictures { display: grid; gap: 1.25rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child { min-width: 9rem; text-align: left; white-space: normal; font-weight: normal; }
thead th, thead th:first-child { font-weight: bold; }
dl { margin: .375rem 0 0; }
dl.settings { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .875rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --line: #999; }
  * { print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  .pictures { display: block; font-size: 0; }
  .pictures figure { display: inline-block; width: 23%; margin: 0 2% 1rem 0; vertical-align: top; }
  .small, .prompt { font-size: 8pt; }
}
";

/// Pictures below this width are shown larger than they are: with clear edges rather than blurred.
const COARSE: u32 = 128;

/// Of a picture that was made smaller: about 10 kB for 256 pixels, a tenth of what a PNG takes.
const JPEG_QUALITY: u8 = 82;

/// All up to the heading's end and the small line below it, which names the command; `style` is what the page has beside
/// [`STYLE`].
pub fn begin(title: &str, command: &str, style: &str) -> String {
    let (title, version) = (escape(title), env!("CARGO_PKG_VERSION"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta name=\"generator\" content=\"oneactor {version}\" />\n\
         <title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n\
         <header>\n<h1 dir=\"auto\">{title}</h1>\n<p class=\"small\">oneactor {command}, version {version}</p>\n"
    )
}

/// A paragraph, written in the direction of its own first letter.
pub fn paragraph(html: &mut String, class: &str, text: &str) {
    // Writing to a string does not fail, here and below.
    let _ = writeln!(
        html,
        "<p class=\"{class}\" dir=\"auto\">{}</p>",
        escape(text)
    );
}

/// A picture inside the page: as it is, without loss, or made smaller where it is larger than `longest`.
///
/// # Errors
/// When it has no pixel.
pub fn image(picture: &RgbImage, longest: u32, alt: &str) -> Result<String> {
    let (width, height) = picture.dimensions();
    let scale = f64::from(longest) / f64::from(width.max(height));
    let small = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let (uri, width, height) = if scale < 1.0 {
        let shown = resize(picture, small(width), small(height));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(&shown)?;
        (jpeg_data_uri(&bytes), shown.width(), shown.height())
    } else {
        (png_data_uri(&png_bytes(picture)?), width, height)
    };
    let class = if width < COARSE {
        " class=\"coarse\""
    } else {
        ""
    };
    Ok(format!(
        "<img{class} src=\"{uri}\" width=\"{width}\" height=\"{height}\" loading=\"lazy\" decoding=\"async\" \
         alt=\"{}\" />\n",
        escape(alt)
    ))
}

/// Keys and values one below the other.
pub fn settings_list<'a>(settings: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let mut html = "<dl class=\"settings\">\n".to_owned();
    for (key, value) in settings {
        let value = escape(&shown(value));
        let _ = writeln!(
            html,
            "<dt>{}</dt><dd dir=\"auto\">{value}</dd>",
            escape(key)
        );
    }
    html += "</dl>\n";
    html
}

/// A setting's value as a reader writes it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
