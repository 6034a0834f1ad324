//! `index.html` of a story: its pictures with captions, then the cast.

use std::path::PathBuf;

use anyhow::Result;
use maud::{Markup, html};

use super::{document, paragraph, png_file};

/// Colours follow the reader's setting; printed pages are black on white, with two pictures side by
/// side in the order of the story, each beside its caption.
const STYLE: &str = include_str!("story.css");

/// A picture narrower than this, in pixels, is enlarged with sharp edges instead of smoothly.
const COARSE: u32 = 256;

/// What the page shows.
pub struct StoryPage<'a> {
    /// The heading.
    pub title: &'a str,
    /// A BCP 47 tag.
    pub language: &'a str,
    /// The characters in the order of the story file.
    pub portraits: Vec<Portrait<'a>>,
    /// The style of all pictures, if the story has one.
    pub style: Option<Portrait<'a>>,
    /// The pictures in the order of the story.
    pub cards: Vec<SceneCard<'a>>,
}

/// A character, or the style.
pub struct Portrait<'a> {
    /// As the story file names it.
    pub name: &'a str,
    /// The prompt of its base images.
    pub prompt: String,
    /// The file of its target image, if it exists.
    pub picture: Option<PathBuf>,
}

/// A picture of the story.
pub struct SceneCard<'a> {
    /// Its file.
    pub picture: PathBuf,
    /// The author's text below it.
    pub caption: Option<&'a str>,
    /// The picture's prompt.
    pub prompt: String,
    /// Its seed.
    pub seed: i64,
    /// Names of the characters in it.
    pub cast: Vec<&'a str>,
}

impl StoryPage<'_> {
    /// The page.
    ///
    /// # Errors
    /// When a picture cannot be read.
    pub fn to_html(&self) -> Result<String> {
        let cards: Vec<Markup> = self
            .cards
            .iter()
            .map(SceneCard::to_html)
            .collect::<Result<_>>()?;
        let body = html! {
            header { h1 { (self.title) } }
            main.scenes { @for card in &cards { (card) } }
            (section("Cast", &self.portraits)?)
            (section("Style", self.style.as_slice())?)
        };
        Ok(document(self.language, self.title, STYLE, &body))
    }
}

/// Portraits below a heading; empty without portraits.
fn section(heading: &str, portraits: &[Portrait]) -> Result<Markup> {
    let figures: Vec<Markup> = portraits
        .iter()
        .map(Portrait::to_html)
        .collect::<Result<_>>()?;
    Ok(html! {
        @if !figures.is_empty() {
            section {
                h2 { (heading) }
                div.cast { @for figure in &figures { (figure) } }
            }
        }
    })
}

impl SceneCard<'_> {
    fn to_html(&self) -> Result<Markup> {
        let caption = self.caption.filter(|caption| !caption.trim().is_empty());
        let cast = match &self.cast[..] {
            [] => "no character".to_owned(),
            names => names.join(", "),
        };
        let (prompt, seed) = (&self.prompt, self.seed);
        let facts = format!("{prompt}\u{a0}· seed\u{a0}{seed}\u{a0}· {cast}");
        Ok(html! {
            figure {
                (png_file(&self.picture, COARSE, prompt)?)
                figcaption {
                    @if let Some(caption) = caption { (paragraph("caption", caption)) }
                    (paragraph("small", &facts))
                }
            }
        })
    }
}

impl Portrait<'_> {
    fn to_html(&self) -> Result<Markup> {
        let alt = format!("{}: {}", self.name, self.prompt);
        let picture = self
            .picture
            .as_ref()
            .map(|path| png_file(path, COARSE, &alt))
            .transpose()?;
        Ok(html! {
            figure {
                @if let Some(picture) = &picture { (picture) }
                figcaption {
                    (paragraph("name", self.name))
                    (paragraph("small", &self.prompt))
                }
            }
        })
    }
}
