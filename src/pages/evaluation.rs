//! The page of `evaluate --report`: target, means, scatter plot, pictures with their values, settings, and
//! the command that repeats the measurement.

use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use maud::{Markup, html};
use serde_json::Value;

use super::scatter_plot::{MarkStyle, Plot, Point};
use super::{image, paragraph, settings_list, shared_document};
use crate::measures::column::{Column, Summary};
use crate::measures::table::{Group, GroupKind, PLAIN, PictureRow, Table};
use crate::pictures::photo::{Transparency, read_picture};

/// The style of this page beside the shared one.
const STYLE: &str = include_str!("evaluation.css");

/// Longest side of a picture in pixels; half of it on a page with more than [`MANY`] pictures.
const LONGEST: u32 = 256;
const MANY: usize = 200;

/// The sign for a missing value.
const MISSING: &str = "–";

/// What the page shows.
pub struct EvaluationPage<'a> {
    /// All values.
    pub table: &'a Table,
    /// The picture that the others are compared with, and its file.
    pub target: Option<(&'a Path, &'a RgbImage)>,
    /// One sentence for each gate that was not passed.
    pub failed: &'a [String],
    /// The columns of the plot: horizontal and vertical axis.
    pub axes: Option<(&'a Column, &'a Column)>,
    /// The settings that decide the values.
    pub settings: &'a Value,
    /// The command that repeats the measurement.
    pub command: &'a str,
}

impl EvaluationPage<'_> {
    /// The page.
    ///
    /// # Errors
    /// When a picture cannot be read.
    pub fn to_html(&self) -> Result<String> {
        let count = self.table.pictures.len();
        let longest = if count > MANY { LONGEST / 2 } else { LONGEST };
        let title = match count {
            1 => "One picture, measured".to_owned(),
            count => format!("{count} pictures, measured"),
        };
        let failed = html! {
            @for failure in self.failed {
                (paragraph("failed", &format!("not passed: {failure}")))
            }
        };
        let body = html! {
            main {
                @if let Some((path, picture)) = self.target {
                    h2 { "Target" }
                    figure.target {
                        (image(picture, longest, "the target")?)
                        figcaption { (paragraph("small", &path.display().to_string())) }
                    }
                }
                (means(self.table))
                @if let Some((x, y)) = self.axes { (scatter(self.table, x, y)) }
                (gallery(self.table, longest)?)
                h2 { "Settings" }
                (settings_list(self.settings.as_object().into_iter().flatten()))
                h2 { "To repeat it" }
                pre { (self.command) }
                p.small { "Paths are relative to the folder that the program was started in." }
            }
        };
        Ok(shared_document(&title, "evaluate", STYLE, &failed, &body))
    }
}

/// Mean ± standard deviation of each column: over all pictures, for each actor, for each prompt.
fn means(table: &Table) -> Markup {
    html! {
        h2 { "Means" }
        div.wide {
            table {
                thead {
                    tr {
                        th {}
                        @for column in &table.columns { th scope="col" { (column.name) } }
                    }
                }
                @for kind in [GroupKind::Overall, GroupKind::Actor, GroupKind::Prompt] {
                    tbody {
                        @for group in table.groups.iter().filter(|group| group.kind == kind) {
                            tr {
                                th scope="row" { (heading(table, group)) }
                                @for column in &table.columns { td { (mean(column, group)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn heading(table: &Table, group: &Group) -> String {
    let title = table.title(group);
    match group.kind {
        GroupKind::Overall => format!("overall: {title}"),
        GroupKind::Actor | GroupKind::Prompt => title,
    }
}

fn mean(column: &Column, group: &Group) -> String {
    match column.over(&group.members) {
        None => MISSING.to_owned(),
        Some(Summary { mean, sd: None, .. }) => format!("{mean:.4}"),
        Some(Summary {
            mean, sd: Some(sd), ..
        }) => format!("{mean:.4} ± {sd:.4}"),
    }
}

/// The actors in the order of the table, each with the mark of its pictures in the plot.
fn actors(table: &Table) -> impl Iterator<Item = (&Group, MarkStyle)> {
    let actors = table
        .groups
        .iter()
        .filter(|group| group.kind == GroupKind::Actor);
    actors.scan(0, |next, group| {
        if group.name == PLAIN {
            return Some((group, MarkStyle::Plain));
        }
        *next += 1;
        Some((group, MarkStyle::Series(*next - 1)))
    })
}

/// Every picture and the mean of every actor in two columns; empty where no picture has both values.
fn scatter(table: &Table, x: &Column, y: &Column) -> Markup {
    let mut points = Vec::new();
    for (group, mark) in actors(table) {
        let mut add = |at: (Option<f64>, Option<f64>), title: String, is_mean| {
            if let (Some(at_x), Some(at_y)) = at {
                points.push(Point {
                    x: at_x,
                    y: at_y,
                    mark,
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
    }
    if points.is_empty() {
        return Markup::default();
    }
    let plot = Plot {
        x_name: &x.name,
        y_name: &y.name,
        points,
    };
    html! {
        h2 { (y.name) " against " (x.name) }
        (plot.to_svg())
        ul.legend {
            @for (group, mark) in actors(table) { li { (mark.legend_key()) " " (heading(table, group)) } }
        }
        p.small { "A small mark is a picture, a large mark with an outline the mean of an actor." }
    }
}

/// The pictures of each actor with their values.
fn gallery(table: &Table, longest: u32) -> Result<Markup> {
    Ok(html! {
        h2 { "Pictures" }
        @for (group, mark) in actors(table) {
            h3 { (mark.legend_key()) " " (heading(table, group)) }
            div.pictures {
                @for &i in &group.members { (figure(table, i, longest)?) }
            }
        }
    })
}

fn figure(table: &Table, number: usize, longest: u32) -> Result<Markup> {
    let PictureRow {
        path, prompt, seed, ..
    } = &table.pictures[number];
    let picture = read_picture(path, Transparency::Dropped)?.picture;
    let file = path.display().to_string();
    let facts = match seed {
        Some(seed) => format!("seed\u{a0}{seed}\u{a0}· {file}"),
        None => file.clone(),
    };
    let value = |column: &Column| match column.of_picture(number) {
        Some(value) => format!("{value:.4}"),
        None => MISSING.to_owned(),
    };
    Ok(html! {
        figure {
            (image(&picture, longest, prompt.as_ref().unwrap_or(&file))?)
            figcaption {
                dl.scores {
                    @for column in &table.columns {
                        div { dt { (column.name) } dd { (value(column)) } }
                    }
                }
                @if let Some(prompt) = prompt { (paragraph("prompt", prompt)) }
                (paragraph("small", &facts))
            }
        }
    })
}
