//! The page of `gallery`: a section for each folder.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::actors::{ActorCard, TuningFacts};
use super::folder::{Folder, Shown};
use super::scope::Scope;
use crate::config::shell::quoted;
use crate::io::html::escape;
use crate::pictures::photo::{Transparency, read_picture};
use crate::run::html_page::{begin, image, paragraph, settings_list, shown};

/// What this page has beside the look that it shares. A command is one line that is selected as a whole when it is
/// reached by the Tab key or a click, so that it can be copied without a script.
const STYLE: &str = "\
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 0; padding: 0; list-style: none; }
a { color: inherit; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
h2 { margin-top: 1.5rem; }
.actors { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1.5rem; }
.actors figure { width: 9rem; }
.name { font-weight: bold; }
figcaption { margin-top: .375rem; }
details { margin-top: .25rem; font-size: .8125rem; color: var(--faint); }
summary { cursor: pointer; }
input { width: 100%; margin-top: .25rem; padding: .25rem .375rem; border: 1px solid var(--line);
  border-radius: .25rem; background: var(--paper); color: var(--ink); font: .75rem/1.4 ui-monospace, monospace;
  user-select: all; }
:focus-visible { outline: 2px solid #2383c4; outline-offset: 2px; }
@media print {
  details, nav { display: none; }
  section { break-before: page; border-top: none; margin-top: 0; }
  section:first-of-type { break-before: auto; }
  .actors { display: block; font-size: 0; }
  .actors figure { display: inline-block; width: 18%; margin-right: 2%; vertical-align: top; }
  .name { font-size: 8pt; }
}
";

/// Longest side of a picture on the page, by how many there are: a page of a thousand should still open at once.
fn longest(pictures: usize) -> u32 {
    match pictures {
        0..=200 => 256,
        201..=1000 => 192,
        _ => 128,
    }
}

/// A page, and how many pictures it shows.
pub(super) struct GalleryPage {
    pub html: String,
    pub pictures: usize,
}

/// The page; `progress` is called after each picture, and an error from it ends the work. Pictures that can not be read
/// are left out, and so are folders without any other.
///
/// # Errors
/// That of `progress`.
pub(super) fn write(
    folders: &[Folder],
    scope: &Scope,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<GalleryPage> {
    let count = folders.iter().map(|folder| folder.pictures.len()).sum();
    let longest = longest(count);
    let mut sections = String::new();
    let mut shown: Vec<(&Path, usize)> = Vec::new();
    for folder in folders {
        let mut figures = Vec::new();
        for picture in &folder.pictures {
            figures.extend(scope.readable(figure(picture, &folder.path, longest)));
            progress()?;
        }
        if !figures.is_empty() {
            shown.push((&folder.path, figures.len()));
            let actors = folder.actors.iter();
            let actors: Vec<String> = actors.map(|card| actor(card, longest, scope)).collect();
            section(&mut sections, (shown.len(), folder), &actors, &figures);
        }
    }
    let mut html = heading(&shown);
    html += "<main>\n";
    html += &sections;
    html += "</main>\n<footer>\n<p class=\"small\">Commands are those of a POSIX shell. Paths are relative to the folder \
             that the program was started in.</p>\n</footer>\n</body>\n</html>\n";
    Ok(GalleryPage {
        html,
        pictures: shown.iter().map(|(_, count)| count).sum(),
    })
}

/// What stands before the folders, each of which has so many pictures.
fn heading(folders: &[(&Path, usize)]) -> String {
    let count: usize = folders.iter().map(|(_, count)| count).sum();
    let pictures = if count == 1 { "picture" } else { "pictures" };
    let place = match folders {
        [(only, _)] => only.display().to_string(),
        several => format!("{} folders", several.len()),
    };
    let mut html = begin(&format!("{place}: {count} {pictures}"), "gallery", STYLE);
    html += "</header>\n";
    if folders.len() > 1 {
        html += "<nav aria-label=\"folders\">\n<ul>\n";
        for (number, (path, count)) in (1..).zip(folders) {
            let name = escape(&path.display().to_string());
            // Writing to a string does not fail, here and below.
            let _ = writeln!(
                html,
                "<li><a href=\"#folder-{number}\"><bdi>{name}</bdi></a> ({count})</li>"
            );
        }
        html += "</ul>\n</nav>\n";
    }
    html
}

fn section(
    html: &mut String,
    (number, folder): (usize, &Folder),
    actors: &[String],
    figures: &[String],
) {
    let name = escape(&folder.path.display().to_string());
    let _ = writeln!(
        html,
        "<section id=\"folder-{number}\">\n<h2 dir=\"auto\">{name}</h2>"
    );
    for note in &folder.notes {
        paragraph(html, "small", note);
    }
    if !actors.is_empty() {
        *html += "<h3>Actors</h3>\n<div class=\"actors\">\n";
        *html += &actors.concat();
        *html += "</div>\n<h3>Pictures</h3>\n";
    }
    *html += "<div class=\"pictures\">\n";
    *html += &figures.concat();
    *html += "</div>\n";
    tunings(html, &folder.tuned);
    for (heading, settings) in &folder.settings {
        let _ = writeln!(html, "<h3 dir=\"auto\">{}</h3>", escape(heading));
        *html += &settings_list(settings.iter());
    }
    *html += "</section>\n";
}

fn actor(card: &ActorCard, longest: u32, scope: &Scope) -> String {
    let mut html = "<figure>\n".to_owned();
    if let Some(path) = &card.picture {
        let alt = format!("the target of {}", card.name);
        html.extend(scope.readable(thumbnail(path, longest, &alt)));
    }
    html += "<figcaption>\n";
    paragraph(&mut html, "name", &card.name);
    if let Some(prompt) = &card.prompt {
        paragraph(&mut html, "prompt", prompt);
    }
    if let Some(photo) = &card.photo {
        let text = format!("its target is the photo {photo}");
        paragraph(&mut html, "small", &text);
    }
    paragraph(&mut html, "small", &card.path);
    html += "</figcaption>\n</figure>\n";
    html
}

fn figure(picture: &Shown, folder: &Path, longest: u32) -> Result<String> {
    let Shown {
        path, prompt, who, ..
    } = picture;
    let name = path.strip_prefix(folder).unwrap_or(path);
    let file = name.display().to_string();
    let mut html = "<figure>\n".to_owned();
    html += &thumbnail(path, longest, &format!("{prompt} ({who})"))?;
    html += "<figcaption>\n";
    paragraph(&mut html, "prompt", prompt);
    let mut facts = vec![who.clone()];
    facts.extend(picture.seed.map(|seed| format!("seed\u{a0}{seed}")));
    let own = picture.own.iter();
    facts.extend(own.map(|(key, value)| format!("{key}\u{a0}{}", shown(value))));
    facts.push(file.clone());
    paragraph(&mut html, "small", &facts.join("\u{a0}· "));
    // A folder for each: the file in it has the name that the seed gives, and many pictures have the same.
    let redrawn = folder.join("redrawn").join(name.with_extension(""));
    let command = format!(
        "oneactor sample --from {} -o {}",
        quoted(&path.display().to_string()),
        quoted(&redrawn.display().to_string())
    );
    let _ = writeln!(
        html,
        "<details><summary>draw it again</summary><input readonly=\"readonly\" aria-label=\"command that draws {} \
         again\" value=\"{}\" /></details>",
        escape(&file),
        escape(&command)
    );
    html += "</figcaption>\n</figure>\n";
    Ok(html)
}

fn thumbnail(path: &Path, longest: u32, alt: &str) -> Result<String> {
    image(
        &read_picture(path, Transparency::OnWhite)?.picture,
        longest,
        alt,
    )
}

/// What was tuned on the pictures of a base folder.
fn tunings(html: &mut String, tuned: &[TuningFacts]) {
    if tuned.is_empty() {
        return;
    }
    *html += "<h3>TuningFacts on these pictures</h3>\n<div class=\"wide\">\n<table>\n<thead><tr>";
    for heading in ["method", "target", "steps", "best validation", "seconds"] {
        let _ = write!(html, "<th scope=\"col\">{heading}</th>");
    }
    *html += "</tr></thead>\n<tbody>\n";
    for tuned in tuned {
        let target = tuned
            .target
            .map_or("a photo".to_owned(), |target| format!("image {target}"));
        let number = |value: Option<f64>, digits: usize| match value {
            Some(number) => format!("{number:.digits$}"),
            None => "–".to_owned(),
        };
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{target}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&tuned.method),
            escape(&shown(&json!(tuned.steps))),
            number(tuned.best_validation, 4),
            number(tuned.seconds, 1)
        );
    }
    *html += "</tbody>\n</table>\n</div>\n";
}
