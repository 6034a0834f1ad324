//! A scatter plot as SVG inside a page: its colours are classes of the page's style.

use std::f64::consts::TAU;
use std::fmt::Write;

use crate::io::html::escape;

/// Points with two values each.
pub(super) struct Plot<'a> {
    /// What is measured to the right.
    pub x_name: &'a str,
    /// What is measured upwards.
    pub y_name: &'a str,
    pub points: Vec<Point>,
}

/// A picture, or what many come to.
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
    pub look: MarkStyle,
    /// What is shown where a pointer rests on it.
    pub title: String,
    /// A mean is drawn larger, with an outline, and above the others.
    pub is_mean: bool,
}

/// Colour and shape of the points of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MarkStyle {
    /// Pictures of the plain model: rings without a colour.
    Plain,
    /// Others, by their number.
    Series(usize),
}

/// The colours of the style, `.c0` to `.c6`.
const COLOURS: usize = 7;

/// Corners of the shapes; a circle has none. Their number and that of the colours have no common divisor, so that
/// 28 series differ.
const SHAPES: [usize; 4] = [0, 4, 3, 6];

/// Of the picture, and of the axes inside it: left, top, right, bottom.
const SIZE: (f64, f64) = (480.0, 340.0);
const AXES: (f64, f64, f64, f64) = (62.0, 12.0, 468.0, 292.0);

impl MarkStyle {
    /// Class in the page's style.
    fn class(self) -> String {
        match self {
            MarkStyle::Plain => "plain".to_owned(),
            MarkStyle::Series(number) => format!("c{}", number % COLOURS),
        }
    }

    /// A path around (x, y).
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

    /// A small picture of it, for a legend.
    pub fn key(self) -> String {
        format!(
            "<svg class=\"key\" viewBox=\"-8 -8 16 16\" aria-hidden=\"true\"><path class=\"{}\" d=\"{}\" /></svg>",
            self.class(),
            self.path(0.0, 0.0, 6.0)
        )
    }
}

impl Plot<'_> {
    /// The plot; there is at least one point.
    pub fn to_svg(&self) -> String {
        let (left, top, right, bottom) = AXES;
        let x = PlotAxis::over(self.points.iter().map(|point| point.x), left, right);
        let y = PlotAxis::over(self.points.iter().map(|point| point.y), bottom, top);
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{} against {}\">\n",
            SIZE.0,
            SIZE.1,
            escape(self.y_name),
            escape(self.x_name)
        );
        for (place, label) in x.ticks() {
            // Writing to a string does not fail, here and below.
            let _ = writeln!(
                svg,
                "<path class=\"line\" d=\"M{place:.1} {top}V{bottom}\" />\
                 <text x=\"{place:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            );
        }
        for (place, label) in y.ticks() {
            let _ = writeln!(
                svg,
                "<path class=\"line\" d=\"M{left} {place:.1}H{right}\" />\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 7.0,
                place + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text class=\"name\" transform=\"translate(15 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (left + right) / 2.0,
            SIZE.1 - 8.0,
            escape(self.x_name),
            (top + bottom) / 2.0,
            escape(self.y_name)
        );
        for is_mean in [false, true] {
            for point in self.points.iter().filter(|point| point.is_mean == is_mean) {
                let radius = if is_mean { 7.0 } else { 3.5 };
                let path = point.look.path(x.place(point.x), y.place(point.y), radius);
                let _ = writeln!(
                    svg,
                    "<path class=\"{}{}\" d=\"{path}\"><title>{}</title></path>",
                    point.look.class(),
                    if is_mean { " mean" } else { "" },
                    escape(&point.title)
                );
            }
        }
        svg += "</svg>\n";
        svg
    }
}

/// Values along a side of the plot.
struct PlotAxis {
    least: f64,
    most: f64,
    /// Where these two lie.
    from: f64,
    to: f64,
}

impl PlotAxis {
    /// Around all values, with a little room; equal values stand in the middle.
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
        let looks: Vec<(String, String)> = (0..28)
            .map(MarkStyle::Series)
            .map(|look| (look.class(), look.path(0.0, 0.0, 1.0)))
            .collect();
        for (i, look) in looks.iter().enumerate() {
            assert!(!looks[..i].contains(look), "{i}");
        }
    }

    #[test]
    fn every_point_is_drawn_and_no_text_is_taken_for_a_tag() {
        let point = |is_mean| Point {
            x: 0.3,
            y: 0.8,
            look: MarkStyle::Series(0),
            title: "<b>".to_owned(),
            is_mean,
        };
        let plot = Plot {
            x_name: "clip_t",
            y_name: "clip_i",
            points: vec![point(true), point(false)],
        };
        let svg = plot.to_svg();
        assert_eq!(svg.matches("<title>&lt;b&gt;</title>").count(), 2);
        // The mean is drawn last, so that no picture hides it.
        assert!(
            svg.find("c0 mean").expect("it is there") > svg.find("\"c0\"").expect("so is this")
        );
    }
}
