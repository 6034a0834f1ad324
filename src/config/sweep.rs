//! A checked job of `sweep`: jobs of `sample` that differ in one or two values.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::batch::Settings;
use super::{SampleJob, check, effect, layers};
use crate::cli::{AxisLists, Declared, Setting, SweepFlags};
use crate::error::usage;

/// Maximum number of cells in a grid.
const MOST_CELLS: usize = 1000;

/// A checked job of `sweep`.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepJob {
    /// Folder of the results.
    pub output_dir: PathBuf,
    /// The setting that varies from row to row; `None` if only one setting varies, and the rows are seeds.
    pub rows: Option<SweepAxis>,
    /// The setting that varies from column to column.
    pub columns: SweepAxis,
    /// A job for each cell, row by row; all jobs write to the same folder, under different names.
    pub cells: Vec<SampleJob>,
}

/// A setting that varies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepAxis {
    /// The key.
    pub key: String,
    /// Its values, in the order given.
    pub values: Vec<Value>,
    /// The values as the grid shows them: `v=0.8`.
    pub labels: Vec<String>,
}

impl SweepAxis {
    fn new(key: &str, name: &str, values: Vec<Value>) -> Result<Self> {
        let labels: Vec<String> = values
            .iter()
            .map(|value| format!("{name}={}", plain(value)))
            .collect();
        let is_repeated = |(i, label): (usize, &String)| labels[..i].contains(label);
        if let Some(place) = labels.iter().enumerate().position(is_repeated) {
            return Err(usage(format!(
                "{}: found {} twice, expected different values",
                flag(key),
                plain(&values[place])
            )));
        }
        Ok(SweepAxis {
            key: key.to_owned(),
            values,
            labels,
        })
    }
}

/// The flag of a key.
fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// A value as text: a number in its shortest form, a string without quotes and spaces.
fn plain(value: &Value) -> String {
    match (value.as_f64(), value.as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(text)) => text.split_whitespace().collect(),
        (None, None) => value.to_string(),
    }
}

impl SweepJob {
    /// Checks the flags, finds the axes and checks the job of every cell.
    ///
    /// # Errors
    /// Names the flag, the value found and the value expected.
    pub fn check(flags: &SweepFlags) -> Result<Self> {
        check::required("--prompt", "what is to be drawn", &flags.prompt)?;
        effect::check(flags)?;
        let mut settings = layers::settings(flags)?;
        let mut axes = axes(&mut settings)?;
        let columns = axes.pop().ok_or_else(|| {
            let flags: Vec<String> = AxisLists::settings().iter().map(Setting::flag).collect();
            let flags = flags.join(", ");
            usage(format!(
                "there is nothing to sweep: give one or two lists, for instance --semantic-scale 0,0.4,0.8 \
                (flags that take lists: {flags})"
            ))
        })?;
        let rows = axes.pop();
        if let Some(third) = axes.pop() {
            let found = [Some(&third), rows.as_ref(), Some(&columns)];
            let found: Vec<String> = found
                .into_iter()
                .flatten()
                .map(|axis| flag(&axis.key))
                .collect();
            return Err(usage(format!(
                "found lists for {}, expected at most two, because a grid has only rows and columns",
                found.join(", ")
            )));
        }
        let cells = cells(&settings, rows.as_ref(), &columns)?;
        Ok(Self {
            output_dir: cells[0].output_dir.clone(),
            rows,
            columns,
            cells,
        })
    }
}

/// Removes the lists from the settings and returns them as axes. A list of one value becomes that value.
fn axes(settings: &mut Settings) -> Result<Vec<SweepAxis>> {
    let mut axes = Vec::new();
    // The caller uses the first of two lists for the rows.
    for setting in AxisLists::settings() {
        let key = setting.key;
        let Some(Value::Array(values)) = settings.remove(key) else {
            continue;
        };
        match &values[..] {
            [] => {
                return Err(usage(format!(
                    "{}: found an empty list, expected at least one value",
                    flag(key)
                )));
            }
            [value] => {
                settings.insert(key.to_owned(), value.clone());
            }
            _ => axes.push(SweepAxis::new(key, setting.axis.unwrap_or(key), values)?),
        }
    }
    Ok(axes)
}

/// The job of every cell, row by row.
fn cells(
    settings: &Settings,
    rows: Option<&SweepAxis>,
    columns: &SweepAxis,
) -> Result<Vec<SampleJob>> {
    let count = rows.map_or(1, |rows| rows.values.len()) * columns.values.len();
    if count > MOST_CELLS {
        return Err(usage(format!(
            "found {count} combinations of values, expected at most {MOST_CELLS}"
        )));
    }
    let mut cells = Vec::with_capacity(count);
    let in_rows: Vec<Option<&Value>> = match rows {
        Some(rows) => rows.values.iter().map(Some).collect(),
        None => vec![None],
    };
    for row in in_rows {
        for column in &columns.values {
            let row = rows.zip(row);
            let varied: Vec<(&SweepAxis, &Value)> =
                row.into_iter().chain([(columns, column)]).collect();
            cells.push(cell(settings.clone(), &varied)?);
        }
    }
    Ok(cells)
}

/// The job of the cell with these values.
fn cell(mut settings: Settings, varied: &[(&SweepAxis, &Value)]) -> Result<SampleJob> {
    let mut prefix = String::new();
    for (axis, value) in varied {
        settings.insert(axis.key.clone(), (*value).clone());
        prefix += &format!("{}={}_", axis.key.replace('_', "-"), plain(value));
    }
    let is_named = settings.contains_key("output_dir");
    let mut job = SampleJob::check(&layers::read(settings)?)?;
    if let (false, [actor]) = (is_named, &job.actors[..]) {
        job.output_dir = actor.with_file_name("sweep");
    }
    job.file_prefix = prefix;
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sample::GuidanceFlags;

    fn plain_model() -> SweepFlags {
        SweepFlags {
            prompt: Some("a cat".into()),
            output_dir: Some("x".into()),
            guidance: GuidanceFlags {
                no_actor: Some(true),
                ..GuidanceFlags::default()
            },
            ..SweepFlags::default()
        }
    }

    fn with(axes: AxisLists) -> SweepFlags {
        SweepFlags {
            axes,
            ..plain_model()
        }
    }

    fn message(flags: &SweepFlags) -> String {
        SweepJob::check(flags).expect_err("it is wrong").to_string()
    }

    #[test]
    fn two_lists_span_rows_and_columns_and_a_single_value_spans_nothing() -> Result<()> {
        let job = SweepJob::check(&with(AxisLists {
            guidance_scale: Some(vec![3.0, 7.5]),
            semantic_interpolation: Some(vec![0.5, 1.0, 1.5]),
            ..AxisLists::default()
        }))?;
        let cell = |i: usize| {
            let job = &job.cells[i];
            let g = job.guidance.semantic_interpolation;
            (job.drawing.guidance_scale, g, job.file_prefix.as_str())
        };
        assert_eq!(job.cells.len(), 6);
        assert_eq!(
            cell(1),
            (3.0, Some(1.0), "guidance-scale=3_semantic-interpolation=1_")
        );
        assert_eq!(cell(5).1, Some(1.5));
        assert_eq!(job.columns.labels, ["g=0.5", "g=1", "g=1.5"]);

        let job = SweepJob::check(&with(AxisLists {
            guidance_scale: Some(vec![3.0]),
            semantic_interpolation: Some(vec![0.5, 1.0]),
            ..AxisLists::default()
        }))?;
        assert!(job.rows.is_none());
        assert_eq!(job.cells[0].drawing.guidance_scale, 3.0);
        Ok(())
    }

    #[test]
    fn lists_that_make_no_grid_are_refused() {
        let nothing = message(&plain_model());
        assert!(nothing.contains("there is nothing to sweep"), "{nothing}");
        let twice = message(&with(AxisLists {
            guidance_scale: Some(vec![3.0, 5.0, 3.0]),
            ..AxisLists::default()
        }));
        assert_eq!(
            twice,
            "--guidance-scale: found 3 twice, expected different values"
        );
        let empty = message(&with(AxisLists {
            guidance_scale: Some(Vec::new()),
            ..AxisLists::default()
        }));
        assert!(empty.contains("found an empty list"), "{empty}");
        let three = message(&SweepFlags {
            guidance: GuidanceFlags::default(),
            ..with(AxisLists {
                eta_1: Some(vec![1.0, 2.0]),
                eta_2: Some(vec![1.0, 2.0]),
                guidance_scale: Some(vec![1.0, 2.0]),
                ..AxisLists::default()
            })
        });
        assert!(
            three.contains(
                "found lists for --eta-1, --eta-2, --guidance-scale, expected at most two"
            ),
            "{three}"
        );
        let actor = message(&with(AxisLists {
            eta_2: Some(vec![1.0, 2.0]),
            ..AxisLists::default()
        }));
        assert!(
            actor.contains("--eta-2 has no effect with --no-actor"),
            "{actor}"
        );
        let many = message(&with(AxisLists {
            guidance_scale: Some((0..40).map(f64::from).collect()),
            semantic_interpolation: Some((0..40).map(|i| f64::from(i) / 10.0).collect()),
            ..AxisLists::default()
        }));
        assert!(many.contains("found 1600 combinations"), "{many}");
    }
}
