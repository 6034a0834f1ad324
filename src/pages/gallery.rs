//! The page of `gallery`: a section for each folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use maud::{Markup, html};
use serde_json::Value;

use super::{image, paragraph, settings_list, shared_document, shown};
use crate::config::batch::Settings;
use crate::config::shell::quoted;
use crate::pictures::photo::{Transparency, read_picture};
use crate::wording::counted;

/// The style of this page beside the shared one. A command stands in an input field, which a browser selects
/// as a whole on the Tab key or a click, so that it can be copied without a script.
const STYLE: &str = include_str!("gallery.css");

/// A folder with its pictures.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Its pictures in the order of the page.
    pub pictures: Vec<Shown>,
    /// Settings that pictures have in common, below a heading.
    pub settings: Vec<(String, Settings)>,
    /// The tuning runs on its pictures, if they are base images.
    pub tuned: Vec<TuningFacts>,
    /// The actors in its pictures.
    pub actors: Vec<ActorCard>,
    /// Warnings about the folder.
    pub notes: Vec<String>,
}

/// A picture with what stands below it.
pub struct Shown {
    /// Its file.
    pub path: PathBuf,
    /// The picture's prompt.
    pub prompt: String,
    /// Its seed, if it records one.
    pub seed: Option<i64>,
    /// The actors or the method that drew it, or `base image`.
    pub who: String,
    /// Settings in which it differs from other pictures of its folder.
    pub own: Vec<(String, Value)>,
}

/// A subject, with the picture that it was made from.
pub struct ActorCard {
    /// Its file as the settings name it.
    pub path: String,
    /// Its name on the page.
    pub name: String,
    /// The prompt of its base images, if they are below a folder of the command.
    pub prompt: Option<String>,
    /// The target among its base images, under the same condition.
    pub picture: Option<PathBuf>,
    /// The name of the photo that is its target instead.
    pub photo: Option<String>,
}

/// A tuning run on base images.
pub struct TuningFacts {
    /// As `--method` names it.
    pub method: String,
    /// The target among the base images; `None` for a photo.
    pub target: Option<usize>,
    /// Number of steps.
    pub steps: Option<usize>,
    /// The lowest validation loss.
    pub best_validation: Option<f64>,
    /// How long it took.
    pub seconds: Option<f64>,
}

/// Longest side of a picture in pixels: with fewer pixels, a page of a thousand pictures still opens at once.
fn longest(pictures: usize) -> u32 {
    match pictures {
        0..=200 => 256,
        201..=1000 => 192,
        _ => 128,
    }
}

/// A page, and the number of its pictures.
pub struct GalleryPage {
    /// The text of the page.
    pub html: String,
    /// How many pictures it shows.
    pub pictures: usize,
}

/// Reports what cannot be read and returns what can.
pub type Readable<'a> = &'a dyn Fn(Result<Markup>) -> Option<Markup>;

/// The page of these folders. It omits pictures that cannot be read, and folders without other pictures.
/// `progress` is called after each picture.
///
/// # Errors
/// When `progress` returns one.
pub fn write(
    folders: &[Folder],
    readable: Readable,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<GalleryPage> {
    let count = folders.iter().map(|folder| folder.pictures.len()).sum();
    let longest = longest(count);
    let mut sections: Vec<Markup> = Vec::new();
    let mut shown: Vec<(&Path, usize)> = Vec::new();
    for folder in folders {
        let mut figures = Vec::new();
        for picture in &folder.pictures {
            figures.extend(readable(figure(picture, &folder.path, longest)));
            progress()?;
        }
        if !figures.is_empty() {
            shown.push((&folder.path, figures.len()));
            let actors = folder.actors.iter();
            let actors: Vec<Markup> = actors.map(|card| actor(card, longest, readable)).collect();
            sections.push(section(shown.len(), folder, &actors, &figures));
        }
    }
    let count: usize = shown.iter().map(|(_, count)| count).sum();
    let place = match &shown[..] {
        [(only, _)] => only.display().to_string(),
        several => format!("{} folders", several.len()),
    };
    let title = format!("{place}: {}", counted(count, "picture", "pictures"));
    let body = html! {
        main { @for section in &sections { (section) } }
        footer {
            p.small {
                "Commands are those of a POSIX shell. Paths are relative to the folder that the program was started in."
            }
        }
    };
    Ok(GalleryPage {
        html: shared_document(&title, "gallery", STYLE, &navigation(&shown), &body),
        pictures: count,
    })
}

/// Links to the folders, each with its number of pictures; empty for one folder.
fn navigation(folders: &[(&Path, usize)]) -> Markup {
    html! {
        @if folders.len() > 1 {
            nav aria-label="folders" {
                ul {
                    @for (number, (path, count)) in (1..).zip(folders) {
                        li {
                            a href={ "#folder-" (number) } { bdi { (path.display()) } }
                            " (" (count) ")"
                        }
                    }
                }
            }
        }
    }
}

fn section(number: usize, folder: &Folder, actors: &[Markup], figures: &[Markup]) -> Markup {
    html! {
        section id={ "folder-" (number) } {
            h2 dir="auto" { (folder.path.display()) }
            @for note in &folder.notes { (paragraph("small", note)) }
            @if !actors.is_empty() {
                h3 { "Actors" }
                div.actors { @for actor in actors { (actor) } }
                h3 { "Pictures" }
            }
            div.pictures { @for figure in figures { (figure) } }
            (tuning_table(&folder.tuned))
            @for (heading, settings) in &folder.settings {
                h3 dir="auto" { (heading) }
                (settings_list(settings.iter()))
            }
        }
    }
}

fn actor(card: &ActorCard, longest: u32, readable: Readable) -> Markup {
    let picture = card.picture.as_ref().and_then(|path| {
        let alt = format!("the target of {}", card.name);
        readable(thumbnail(path, longest, &alt))
    });
    html! {
        figure {
            @if let Some(picture) = &picture { (picture) }
            figcaption {
                (paragraph("name", &card.name))
                @if let Some(prompt) = &card.prompt { (paragraph("prompt", prompt)) }
                @if let Some(photo) = &card.photo {
                    (paragraph("small", &format!("its target is the photo {photo}")))
                }
                (paragraph("small", &card.path))
            }
        }
    }
}

fn figure(picture: &Shown, folder: &Path, longest: u32) -> Result<Markup> {
    let Shown {
        path, prompt, who, ..
    } = picture;
    let name = path.strip_prefix(folder).unwrap_or(path);
    let file = name.display().to_string();
    let mut facts = vec![who.clone()];
    facts.extend(picture.seed.map(|seed| format!("seed\u{a0}{seed}")));
    let own = picture.own.iter();
    facts.extend(own.map(|(key, value)| format!("{key}\u{a0}{}", shown(value))));
    facts.push(file.clone());
    // Each picture is drawn again into a folder of its own: many have the same seed and so the same file name.
    let redrawn = folder.join("redrawn").join(name.with_extension(""));
    let command = format!(
        "oneactor sample --from {} -o {}",
        quoted(&path.display().to_string()),
        quoted(&redrawn.display().to_string())
    );
    let label = format!("command that draws {file} again");
    Ok(html! {
        figure {
            (thumbnail(path, longest, &format!("{prompt} ({who})"))?)
            figcaption {
                (paragraph("prompt", prompt))
                (paragraph("small", &facts.join("\u{a0}· ")))
                details {
                    summary { "draw it again" }
                    input readonly="readonly" aria-label=(label) value=(command);
                }
            }
        }
    })
}

fn thumbnail(path: &Path, longest: u32, alt: &str) -> Result<Markup> {
    image(
        &read_picture(path, Transparency::OnWhite)?.picture,
        longest,
        alt,
    )
}

/// The tuning runs on the pictures of a base folder; empty without any.
fn tuning_table(tuned: &[TuningFacts]) -> Markup {
    let number = |value: Option<f64>, digits: usize| match value {
        Some(number) => format!("{number:.digits$}"),
        None => "–".to_owned(),
    };
    let steps = |steps: Option<usize>| match steps {
        Some(steps) => steps.to_string(),
        None => "none".to_owned(),
    };
    let target = |tuned: &TuningFacts| match tuned.target {
        Some(target) => format!("image {target}"),
        None => "a photo".to_owned(),
    };
    html! {
        @if !tuned.is_empty() {
            h3 { "Tuned on these pictures" }
            div.wide {
                table {
                    thead {
                        tr {
                            @for heading in ["method", "target", "steps", "best validation", "seconds"] {
                                th scope="col" { (heading) }
                            }
                        }
                    }
                    tbody {
                        @for tuned in tuned {
                            tr {
                                th scope="row" { (tuned.method) }
                                td { (target(tuned)) }
                                td { (steps(tuned.steps)) }
                                td { (number(tuned.best_validation, 4)) }
                                td { (number(tuned.seconds, 1)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
