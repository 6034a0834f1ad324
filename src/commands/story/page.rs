//! index.html of a story: pictures and captions in one file, without scripts and without addresses.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::io::html::{escape, png_data_uri};

/// What the page shows.
pub(super) struct StoryPage<'a> {
    pub title: &'a str,
    /// BCP 47.
    pub language: &'a str,
    pub portraits: Vec<Portrait<'a>>,
    /// The style of all pictures, where there is one.
    pub style: Option<Portrait<'a>>,
    pub cards: Vec<SceneCard<'a>>,
}

/// A character, or the style.
pub(super) struct Portrait<'a> {
    pub name: &'a str,
    /// The prompt of its base images.
    pub prompt: String,
    /// Its target image, where that is there.
    pub picture: Option<PathBuf>,
}

/// A picture of the story.
pub(super) struct SceneCard<'a> {
    pub picture: PathBuf,
    pub caption: Option<&'a str>,
    pub prompt: String,
    pub seed: i64,
    pub cast: Vec<&'a str>,
}

/// Colours follow the reader's setting; on paper they are black on white, two pictures stand side by
/// side in the order of the story, and none is torn from its caption.
const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #fdfbf7; --ink: #222; --faint: #5c5c5c; --line: #d9d4c8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #191a1c; --ink: #e8e6e1; --faint: #a5a39d; --line: #3a3b3e; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1.5rem 1rem 3rem; background: var(--paper);
  color: var(--ink); font: 1.0625rem/1.5 Georgia, 'Times New Roman', serif; }
h1 { margin: 1rem 0 2rem; text-align: center; font-size: 2.25rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 1rem; font-size: 1.25rem; text-align: center; }
h1, p { overflow-wrap: anywhere; white-space: pre-line; }
figure { margin: 0; }
p { margin: .5rem 0 0; }
img { display: block; width: 100%; height: auto; border: 1px solid var(--line);
  border-radius: .375rem; }
.coarse { image-rendering: pixelated; }
.scenes { display: grid; gap: 2rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.cast { display: flex; flex-wrap: wrap; justify-content: center; gap: 1.5rem; }
.cast figure { width: 9rem; text-align: center; }
.name { font-weight: bold; }
.small { color: var(--faint); font: .8125rem/1.4 system-ui, sans-serif; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --line: #999; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  figure { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scenes { display: block; font-size: 0; text-align: center; orphans: 1; widows: 1; }
  .scenes figure { display: inline-block; width: 42%; margin: 0 0 1.25rem; vertical-align: top;
    font-size: 11pt; text-align: left; }
  .scenes figure:nth-child(odd) { margin-right: 4%; }
}
";

/// Pictures below this width are shown larger than they are: with clear edges rather than blurred.
const COARSE: u32 = 256;

impl StoryPage<'_> {
    /// The page as text.
    ///
    /// # Errors
    /// When a picture can not be read.
    pub(super) fn to_html(&self) -> Result<String> {
        let title = escape(self.title);
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\" />\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
             <meta name=\"generator\" content=\"oneactor {}\" />\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header><h1>{title}</h1></header>\n",
            escape(self.language),
            env!("CARGO_PKG_VERSION")
        );
        html += "<main class=\"scenes\">\n";
        for card in &self.cards {
            html += &card.to_html()?;
        }
        html += "</main>\n";
        html += &section("Cast", &self.portraits)?;
        html += &section("Style", self.style.as_slice())?;
        html += "</body>\n</html>\n";
        Ok(html)
    }
}

/// Portraits below a heading; nothing where there are none.
fn section(heading: &str, portraits: &[Portrait]) -> Result<String> {
    if portraits.is_empty() {
        return Ok(String::new());
    }
    let mut html = format!("<section>\n<h2>{heading}</h2>\n<div class=\"cast\">\n");
    for portrait in portraits {
        html += &portrait.to_html()?;
    }
    html += "</div>\n</section>\n";
    Ok(html)
}

impl SceneCard<'_> {
    fn to_html(&self) -> Result<String> {
        let mut html = format!(
            "<figure>\n{}\n<figcaption>\n",
            image(&self.picture, &self.prompt)?
        );
        if let Some(caption) = self.caption.filter(|caption| !caption.trim().is_empty()) {
            paragraph(&mut html, "caption", caption);
        }
        let seed = self.seed;
        let cast = match &self.cast[..] {
            [] => "no character".to_owned(),
            names => names.join(", "),
        };
        paragraph(
            &mut html,
            "small",
            &format!("{}\u{a0}· seed\u{a0}{seed}\u{a0}· {cast}", self.prompt),
        );
        html += "</figcaption>\n</figure>\n";
        Ok(html)
    }
}

impl Portrait<'_> {
    fn to_html(&self) -> Result<String> {
        let mut html = "<figure>\n".to_owned();
        if let Some(picture) = &self.picture {
            html += &image(picture, &format!("{}: {}", self.name, self.prompt))?;
            html.push('\n');
        }
        html += "<figcaption>\n";
        paragraph(&mut html, "name", self.name);
        paragraph(&mut html, "small", &self.prompt);
        html += "</figcaption>\n</figure>\n";
        Ok(html)
    }
}

fn paragraph(html: &mut String, class: &str, text: &str) {
    let text = escape(text);
    // Writing to a string does not fail.
    let _ = writeln!(html, "<p class=\"{class}\">{text}</p>");
}

fn image(path: &Path, alt: &str) -> Result<String> {
    let doing = || format!("reading {}", path.display());
    let (width, height) = image::image_dimensions(path).with_context(doing)?;
    let bytes = fs::read(path).with_context(doing)?;
    let class = if width < COARSE {
        " class=\"coarse\""
    } else {
        ""
    };
    Ok(format!(
        "<img{class} src=\"{}\" width=\"{width}\" height=\"{height}\" alt=\"{}\" />",
        png_data_uri(&bytes),
        escape(alt)
    ))
}
