//! The page of a job: target, means, plot, pictures with their scores, settings, and the command to repeat it. One file,
//! without scripts and without addresses.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use serde_json::Value;

use super::Evaluation;
use super::pictures::{PLAIN, Picture};
use super::plot::{Look, Plot, Point};
use super::table::{Group, Table};
use crate::config::EvaluateJob;
use crate::config::evaluate::Report;
use crate::io::atomic::write_bytes_atomically;
use crate::io::html::{escape, png_data_uri};
use crate::io::photo::{Transparency, read_picture};
use crate::io::png::png_bytes;
use crate::io::resize::resize;
use crate::measures::column::{Column, Summary};

/// Colours follow the reader's setting; on paper they are black on white, and no picture is torn from its scores.
const STYLE: &str = "\
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
h1, h3, p, th, dd, li { overflow-wrap: anywhere; }
p { margin: .25rem 0 0; white-space: pre-line; }
.small, dl.scores { color: var(--faint); font-size: .8125rem; line-height: 1.4; }
.prompt { font-size: .875rem; line-height: 1.4; }
.failed { color: #c62f2f; font-weight: bold; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: .25rem; }
.coarse { image-rendering: pixelated; }
.target { max-width: 16rem; }
.pictures { display: grid; gap: 1.25rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child { min-width: 9rem; text-align: left; white-space: normal; font-weight: normal; }
thead th, thead th:first-child { font-weight: bold; }
tbody + tbody tr:first-child > * { padding-top: .75rem; }
dl { margin: .375rem 0 0; }
dl.scores div { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .5rem; }
dl.settings { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .875rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.scores dd { color: var(--ink); }
pre { margin: .5rem 0 0; padding: .75rem; border: 1px solid var(--line); border-radius: .25rem;
  font-size: .8125rem; white-space: pre-wrap; overflow-wrap: anywhere; }
svg.plot { display: block; width: 100%; max-width: 44rem; height: auto; font-size: 12px; }
svg text { fill: var(--faint); }
svg text.name { fill: var(--ink); font-size: 13px; font-weight: bold; }
.line { stroke: var(--line); fill: none; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0 0; padding: 0; list-style: none;
  font-size: .875rem; }
.key { width: .875rem; height: .875rem; vertical-align: -.125rem; }
.c0 { fill: #2383c4; } .c1 { fill: #d55e00; } .c2 { fill: #0a9d76; } .c3 { fill: #c264a0; }
.c4 { fill: #c08a00; } .c5 { fill: #7d62d0; } .c6 { fill: #4cabc9; }
.plain { fill: none; stroke: var(--faint); stroke-width: 1.5; }
.plot .c0, .plot .c1, .plot .c2, .plot .c3, .plot .c4, .plot .c5, .plot .c6 { fill-opacity: .7; }
.plot .mean { stroke: var(--ink); stroke-width: 1.75; fill-opacity: 1; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --line: #999; }
  * { print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  figure, tr, svg.plot { break-inside: avoid; }
  .pictures { display: block; font-size: 0; }
  .pictures figure { display: inline-block; width: 23%; margin: 0 2% 1rem 0; vertical-align: top; }
  .small, .prompt, dl.scores { font-size: 8pt; }
}
";

/// Longest side of a picture on the page; with more than [`MANY`] pictures half of it, for the page would grow by about
/// 100 kB with each.
const LONGEST: u32 = 256;
const MANY: usize = 200;

/// Pictures below this width are shown larger than they are: with clear edges rather than blurred.
const COARSE: u32 = 128;

/// Writes the page of a job, as a whole or not at all. `failed` are the gates that were not passed.
///
/// # Errors
/// When a picture can not be read or the page not be written.
pub(super) fn write(
    report: &Report,
    evaluation: &Evaluation,
    table: &Table,
    failed: &[String],
) -> Result<()> {
    let count = table.pictures.len();
    let longest = if count > MANY { LONGEST / 2 } else { LONGEST };
    let title = match count {
        1 => "One picture, measured".to_owned(),
        count => format!("{count} pictures, measured"),
    };
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta name=\"generator\" content=\"oneactor {version}\" />\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n<p class=\"small\">oneactor evaluate, version {version}</p>\n",
        version = env!("CARGO_PKG_VERSION")
    );
    for failure in failed {
        paragraph(&mut html, "failed", &format!("not passed: {failure}"));
    }
    html += "</header>\n<main>\n";
    if let (Some(path), Some(picture)) = (&evaluation.job.target, &evaluation.target) {
        html += "<h2>Target</h2>\n<figure class=\"target\">\n";
        html += &image(picture, longest, "the target")?;
        html += "<figcaption>\n";
        paragraph(&mut html, "small", &path.display().to_string());
        html += "</figcaption>\n</figure>\n";
    }
    html += &means(table);
    html += &plot(&evaluation.job, table);
    html += &gallery(table, longest)?;
    html += &settings(&evaluation.job, &report.command);
    html += "</main>\n</body>\n</html>\n";
    write_bytes_atomically(&report.path, html.as_bytes())
}

fn paragraph(html: &mut String, class: &str, text: &str) {
    // Writing to a string does not fail, here and below.
    let _ = writeln!(html, "<p class=\"{class}\">{}</p>", escape(text));
}

/// A picture inside the page, made smaller where it is larger than `longest`.
fn image(picture: &RgbImage, longest: u32, alt: &str) -> Result<String> {
    let (width, height) = picture.dimensions();
    let scale = f64::from(longest) / f64::from(width.max(height));
    let small = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let shown = match scale < 1.0 {
        true => resize(picture, small(width), small(height)),
        false => picture.clone(),
    };
    let class = if width < COARSE {
        " class=\"coarse\""
    } else {
        ""
    };
    Ok(format!(
        "<img{class} src=\"{}\" width=\"{}\" height=\"{}\" alt=\"{}\" />\n",
        png_data_uri(&png_bytes(&shown)?),
        shown.width(),
        shown.height(),
        escape(alt)
    ))
}

/// Mean ± standard deviation of each column: of the whole, of actors, of prompts.
fn means(table: &Table) -> String {
    let mut html = "<h2>Means</h2>\n<div class=\"wide\">\n<table>\n<thead><tr><th></th>".to_owned();
    for column in &table.columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(&column.name));
    }
    html += "</tr></thead>\n";
    for kind in ["overall", "actor", "prompt"] {
        html += "<tbody>\n";
        for group in table.groups.iter().filter(|group| group.kind == kind) {
            let _ = write!(
                html,
                "<tr><th scope=\"row\">{}</th>",
                escape(&name_of(group))
            );
            for column in &table.columns {
                let _ = write!(html, "<td>{}</td>", mean(column, group));
            }
            html += "</tr>\n";
        }
        html += "</tbody>\n";
    }
    html += "</table>\n</div>\n";
    html
}

fn name_of(group: &Group) -> String {
    let count = group.members.len();
    let pictures = if count == 1 { "picture" } else { "pictures" };
    match group.kind {
        "overall" => format!("overall: {count} {pictures}"),
        _ => format!("{} ({count} {pictures})", group.name),
    }
}

fn mean(column: &Column, group: &Group) -> String {
    match column.over(&group.members) {
        None => "–".to_owned(),
        Some(Summary { mean, sd: None, .. }) => format!("{mean:.4}"),
        Some(Summary {
            mean, sd: Some(sd), ..
        }) => format!("{mean:.4} ± {sd:.4}"),
    }
}

/// The actors in the order of the table, each with its look.
fn actors<'a>(table: &'a Table) -> impl Iterator<Item = (&'a Group, Look)> {
    let actors = table.groups.iter().filter(|group| group.kind == "actor");
    actors.scan(0, |next, group| {
        let look = match group.name == PLAIN {
            true => Look::Plain,
            false => {
                *next += 1;
                Look::Series(*next - 1)
            }
        };
        Some((group, look))
    })
}

/// The first measure of pictures against the first of texts; nothing where one of them was not measured.
fn plot(job: &EvaluateJob, table: &Table) -> String {
    let first = |is_of_text: bool| {
        let wanted = job.columns();
        let place = wanted
            .iter()
            .position(|c| c.measure.is_of_text() == is_of_text)?;
        table.columns.get(place)
    };
    let (Some(x), Some(y)) = (first(true), first(false)) else {
        return String::new();
    };
    let mut points = Vec::new();
    let mut legend = String::new();
    for (group, look) in actors(table) {
        let mut add = |at: (Option<f64>, Option<f64>), title: String, is_mean| {
            if let (Some(at_x), Some(at_y)) = at {
                points.push(Point {
                    x: at_x,
                    y: at_y,
                    look,
                    title: format!("{title}: {} {at_x:.4}, {} {at_y:.4}", x.name, y.name),
                    is_mean,
                });
            }
        };
        for &i in &group.members {
            let title = table.pictures[i].path.display().to_string();
            add((x.of_picture(i), y.of_picture(i)), title, false);
        }
        let over = |column: &Column| column.over(&group.members).map(|summary| summary.mean);
        add((over(x), over(y)), format!("{}, mean", group.name), true);
        let _ = writeln!(
            legend,
            "<li>{} {}</li>",
            look.key(),
            escape(&name_of(group))
        );
    }
    if points.is_empty() {
        return String::new();
    }
    let plot = Plot {
        x_name: &x.name,
        y_name: &y.name,
        points,
    };
    format!(
        "<h2>{} against {}</h2>\n{}<ul class=\"legend\">\n{legend}</ul>\n\
         <p class=\"small\">A small mark is a picture, a large one with an outline the mean of an actor.</p>\n",
        escape(&y.name),
        escape(&x.name),
        plot.to_svg()
    )
}

/// The pictures of each actor, with their scores.
fn gallery(table: &Table, longest: u32) -> Result<String> {
    let mut html = "<h2>Pictures</h2>\n".to_owned();
    for (group, look) in actors(table) {
        let name = escape(&name_of(group));
        let _ = write!(
            html,
            "<h3>{} {name}</h3>\n<div class=\"pictures\">\n",
            look.key()
        );
        for &i in &group.members {
            html += &figure(table, i, longest)?;
        }
        html += "</div>\n";
    }
    Ok(html)
}

fn figure(table: &Table, number: usize, longest: u32) -> Result<String> {
    let Picture {
        path, prompt, seed, ..
    } = &table.pictures[number];
    let shown = read_picture(path, Transparency::Dropped)?.picture;
    let alt = prompt.clone().unwrap_or_else(|| path.display().to_string());
    let mut html = format!(
        "<figure>\n{}<figcaption>\n<dl class=\"scores\">\n",
        image(&shown, longest, &alt)?
    );
    for column in &table.columns {
        let value = column.of_picture(number);
        let value = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
        let name = escape(&column.name);
        let _ = writeln!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    html += "</dl>\n";
    if let Some(prompt) = prompt {
        paragraph(&mut html, "prompt", prompt);
    }
    paragraph(&mut html, "small", &told_of(path, *seed));
    html += "</figcaption>\n</figure>\n";
    Ok(html)
}

fn told_of(path: &Path, seed: Option<i64>) -> String {
    let seed = seed.map_or_else(String::new, |seed| format!("seed\u{a0}{seed}\u{a0}· "));
    format!("{seed}{}", path.display())
}

/// What decided the figures, and how to come by them again.
fn settings(job: &EvaluateJob, command: &str) -> String {
    let mut html = "<h2>Settings</h2>\n<dl class=\"settings\">\n".to_owned();
    for (key, value) in job.settings().as_object().into_iter().flatten() {
        let _ = writeln!(
            html,
            "<dt>{}</dt><dd>{}</dd>",
            escape(key),
            escape(&shown(value))
        );
    }
    let _ = write!(
        html,
        "</dl>\n<h2>To repeat it</h2>\n<pre>{}</pre>\n\
         <p class=\"small\">Paths are relative to the folder that the program was started in.</p>\n",
        escape(command)
    );
    html
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
