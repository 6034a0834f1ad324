//! The page of a job: target, means, plot, pictures with their scores, settings, and the command to repeat it. One file,
//! without scripts and without addresses.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::Evaluation;
use super::pictures::{PLAIN, Picture};
use super::plot::{MarkStyle, Plot, Point};
use super::table::{Group, Table};
use crate::config::EvaluateJob;
use crate::config::evaluate::Report;
use crate::io::atomic::write_bytes_atomically;
use crate::io::html::escape;
use crate::measures::column::{Column, Summary};
use crate::pictures::photo::{Transparency, read_picture};
use crate::run::html_page::{begin, image, paragraph, settings_list};

/// What this page has beside the look that it shares.
const STYLE: &str = "\
dl.scores { color: var(--faint); font-size: .8125rem; line-height: 1.4; }
.failed { color: #c62f2f; font-weight: bold; }
.target { max-width: 16rem; }
tbody + tbody tr:first-child > * { padding-top: .75rem; }
dl.scores div { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .5rem; }
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
  svg.plot { break-inside: avoid; }
  dl.scores { font-size: 8pt; }
}
";

/// Longest side of a picture on the page; with more than [`MANY`] pictures half of it.
const LONGEST: u32 = 256;
const MANY: usize = 200;

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
    let mut html = begin(&title, "evaluate", STYLE);
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
fn actors<'a>(table: &'a Table) -> impl Iterator<Item = (&'a Group, MarkStyle)> {
    let actors = table.groups.iter().filter(|group| group.kind == "actor");
    actors.scan(0, |next, group| {
        let look = if group.name == PLAIN {
            MarkStyle::Plain
        } else {
            *next += 1;
            MarkStyle::Series(*next - 1)
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
        // Writing to a string does not fail, here and below.
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
    let settings = job.settings();
    let mut html = "<h2>Settings</h2>\n".to_owned();
    html += &settings_list(settings.as_object().into_iter().flatten());
    let _ = write!(
        html,
        "<h2>To repeat it</h2>\n<pre>{}</pre>\n\
         <p class=\"small\">Paths are relative to the folder that the program was started in.</p>\n",
        escape(command)
    );
    html
}
