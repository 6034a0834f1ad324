//! A scatter plot as SVG. Its colours are CSS classes of the page.

use std::f64::consts::TAU;

use maud::{Markup, html};

/// Points with two values each.
pub struct Plot<'a> {
    /// Label of the horizontal axis.
    pub x_name: &'a str,
    /// Label of the vertical axis.
    pub y_name: &'a str,
    /// At least one.
    pub points: Vec<Point>,
}

/// A picture, or the mean of many.
pub struct Point {
    /// Value on the horizontal axis.
    pub x: f64,
    /// Value on the vertical axis.
    pub y: f64,
    /// Its colour and shape.
    pub mark: MarkStyle,
    /// The text that a browser shows while the pointer is on the mark.
    pub title: String,
    /// A mean is drawn larger, with an outline, and above the other marks.
    pub is_mean: bool,
}

/// Colour and shape of the marks of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MarkStyle {
    /// Pictures of the plain model: rings without a colour.
    Plain,
    /// The series of this number, counted from 0.
    Series(usize),
}

/// Number of colours, the CSS classes `.c0` to `.c6`.
const COLOURS: usize = 7;

/// Number of corners of each shape; 0 is a circle. The numbers of shapes and of colours have no common
/// divisor, so that 28 series differ.
const SHAPES: [usize; 4] = [0, 4, 3, 6];

/// Width and height of the plot in CSS pixels.
const SIZE: (f64, f64) = (480.0, 340.0);
/// The area between the axes: left, top, right, bottom.
const AXES: (f64, f64, f64, f64) = (62.0, 12.0, 468.0, 292.0);

impl MarkStyle {
    /// Its CSS class.
    fn class(self) -> String {
        match self {
            MarkStyle::Plain => "plain".to_owned(),
            MarkStyle::Series(number) => format!("c{}", number % COLOURS),
        }
    }

    /// Its outline around (x, y), as the attribute `d` of an SVG path.
    fn path(self, x: f64, y: f64, radius: f64) -> String {
        let corners = match self {
            MarkStyle::Plain => 0,
            MarkStyle::Series(number) => SHAPES[number % SHAPES.len()],
        };
        if corners == 0 {
            let (left, width) = (x - radius, 2.0 * radius);
            return format!(
                "M{left:.1} {y:.1}a{radius} {radius} 0 1 0 {width} 0a{radius} {radius} 0 1 0 -{width} 0z"
            );
        }
        let corner = |i: usize| {
            let angle = TAU * (i as f64 / corners as f64 - 0.25);
            let (x, y) = (
                x + 1.25 * radius * angle.cos(),
                y + 1.25 * radius * angle.sin(),
            );
            format!("{x:.1} {y:.1}")
        };
        format!(
            "M{}z",
            (0..corners).map(corner).collect::<Vec<_>>().join("L")
        )
    }

    /// The mark by itself, for a legend.
    pub fn legend_key(self) -> Markup {
        html! {
            svg.key viewBox="-8 -8 16 16" aria-hidden="true" {
                path class=(self.class()) d=(self.path(0.0, 0.0, 6.0)) {}
            }
        }
    }
}

impl Plot<'_> {
    /// The plot. It has at least one point.
    pub fn to_svg(&self) -> Markup {
        let (left, top, right, bottom) = AXES;
        let (width, height) = SIZE;
        let x = PlotAxis::over(self.points.iter().map(|point| point.x), left, right);
        let y = PlotAxis::over(self.points.iter().map(|point| point.y), bottom, top);
        let (middle_x, middle_y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        // Means are drawn last, so that no picture hides them.
        let (means, pictures): (Vec<&Point>, Vec<&Point>) =
            self.points.iter().partition(|point| point.is_mean);
        html! {
            svg.plot viewBox={ "0 0 " (width) " " (height) } role="img"
                aria-label={ (self.y_name) " against " (self.x_name) } {
                @for (at, label) in x.ticks() {
                    path.line d=(format!("M{at:.1} {top}V{bottom}")) {}
                    text x=(format!("{at:.1}")) y=(bottom + 18.0) text-anchor="middle" { (label) }
                }
                @for (at, label) in y.ticks() {
                    path.line d=(format!("M{left} {at:.1}H{right}")) {}
                    text x=(left - 7.0) y=(format!("{:.1}", at + 4.0)) text-anchor="end" { (label) }
                }
                text.name x=(middle_x) y=(height - 8.0) text-anchor="middle" { (self.x_name) }
                text.name transform={ "translate(15 " (middle_y) ") rotate(-90)" }
                    text-anchor="middle" { (self.y_name) }
                @for point in pictures.iter().chain(&means) {
                    (point.to_svg(x.place(point.x), y.place(point.y)))
                }
            }
        }
    }
}

impl Point {
    fn to_svg(&self, x: f64, y: f64) -> Markup {
        let (radius, mean) = if self.is_mean {
            (7.0, " mean")
        } else {
            (3.5, "")
        };
        html! {
            path class={ (self.mark.class()) (mean) } d=(self.mark.path(x, y, radius)) {
                title { (self.title) }
            }
        }
    }
}

/// A linear scale from values to places along one side of the plot.
struct PlotAxis {
    least: f64,
    most: f64,
    /// Places of these two values in CSS pixels.
    from: f64,
    to: f64,
}

impl PlotAxis {
    /// The scale of these values with a margin; equal values are placed in the middle.
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let room = if most > least {
            0.06 * (most - least)
        } else {
            0.05 * least.abs().max(1.0)
        };
        Self {
            least: least - room,
            most: most + room,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.least) / (self.most - self.least) * (self.to - self.from)
    }

    /// Three to nine round values with their places: multiples of 1, 2 or 5 times a power of ten.
    fn ticks(&self) -> Vec<(f64, String)> {
        let span = self.most - self.least;
        let power = 10f64.powf((span / 4.0).log10().floor());
        // The span is 4 to 40 times this power: with 5 at most 8 steps fit.
        let fits = |factor: &f64| span / (factor * power) <= 8.0;
        let step = [1.0, 2.0].into_iter().find(fits).unwrap_or(5.0) * power;
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let (first, last) = (
            (self.least / step).ceil() as i64,
            (self.most / step).floor() as i64,
        );
        let tick = |i: i64| {
            let value = i as f64 * step;
            (self.place(value), format!("{value:.decimals$}"))
        };
        (first..=last).map(tick).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(least: f64, most: f64) -> Vec<String> {
        let axis = PlotAxis::over([least, most].into_iter(), 0.0, 100.0);
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let found = ["0.22", "0.24", "0.26", "0.28", "0.30", "0.32", "0.34"];
        assert_eq!(labels(0.21, 0.34), found);
        assert_eq!(labels(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(
            labels(-0.4, 0.7),
            ["-0.4", "-0.2", "0.0", "0.2", "0.4", "0.6"]
        );
        for (least, most) in [(0.5, 0.5), (0.0, 0.0), (0.123, 0.12301), (-3.0, 900.0)] {
            let found = labels(least, most);
            assert!((3..=9).contains(&found.len()), "{least} {most}: {found:?}");
        }
    }

    #[test]
    fn points_lie_between_the_axes_in_their_order() {
        let axis = PlotAxis::over([0.2, 0.5, 0.3].into_iter(), 10.0, 110.0);
        let places = [0.2, 0.3, 0.5].map(|value| axis.place(value));
        assert!(10.0 < places[0] && places[2] < 110.0);
        // A third of the way from the first to the last.
        let third = places[0] + (places[2] - places[0]) / 3.0;
        assert!((places[1] - third).abs() < 1e-9, "{places:?}");
        let same = PlotAxis::over([0.7, 0.7].into_iter(), 0.0, 100.0);
        assert!((same.place(0.7) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn as_many_series_differ_as_is_said() {
        let marks: Vec<(String, String)> = (0..28)
            .map(MarkStyle::Series)
            .map(|mark| (mark.class(), mark.path(0.0, 0.0, 1.0)))
            .collect();
        for (i, mark) in marks.iter().enumerate() {
            assert!(!marks[..i].contains(mark), "{i}");
        }
    }

    #[test]
    fn every_point_is_drawn_and_no_text_is_taken_for_a_tag() {
        let point = |is_mean| Point {
            x: 0.3,
            y: 0.8,
            mark: MarkStyle::Series(0),
            title: "<b>".to_owned(),
            is_mean,
        };
        let plot = Plot {
            x_name: "clip_t",
            y_name: "clip_i",
            points: vec![point(true), point(false)],
        };
        let svg = plot.to_svg().into_string();
        assert_eq!(svg.matches("<title>&lt;b&gt;</title>").count(), 2);
        // The mean is drawn last, so that no picture hides it.
        assert!(
            svg.find("c0 mean").expect("it is there") > svg.find("\"c0\"").expect("so is this")
        );
    }
}
