//! Quality gates of `evaluate`: `--fail-below` and `--fail-above`.

use std::fmt;

use anyhow::Result;

use super::super::check;
use super::EvaluateJob;
use crate::error::usage;
use crate::measures::quantity::Quantity;

/// A bound for the overall mean of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The column.
    pub column: String,
    /// The bound that the mean must keep.
    pub bound: Bound,
}

/// The allowed values of an overall mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At least this value: `--fail-below`.
    AtLeast(f64),
    /// At most this value: `--fail-above`.
    AtMost(f64),
}

impl Bound {
    /// Whether a value keeps the bound.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }

    /// The flag that sets the bound.
    pub fn flag(self) -> &'static str {
        match self {
            Bound::AtLeast(_) => "--fail-below",
            Bound::AtMost(_) => "--fail-above",
        }
    }

    /// The number.
    fn value(self) -> f64 {
        let (Bound::AtLeast(value) | Bound::AtMost(value)) = self;
        value
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, "at least {least}"),
            Bound::AtMost(most) => write!(f, "at most {most}"),
        }
    }
}

impl fmt::Display for Gate {
    /// In the form of the flag's value.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}={}", self.column, self.bound.value())
    }
}

impl Gate {
    /// A gate on one of the job's columns from `COLUMN=VALUE`.
    ///
    /// # Errors
    /// When the column does not exist, when the value is not a number, and when `--fail-below` names a distance.
    pub(super) fn parse(text: &str, job: &EvaluateJob, bound: fn(f64) -> Bound) -> Result<Self> {
        let flag = bound(0.0).flag();
        let columns = job.columns();
        let Some((column, value)) = text.split_once('=') else {
            return Err(usage(format!(
                "{flag}: found \"{text}\", expected COLUMN=VALUE, for instance {}=0.8",
                columns[0].name()
            )));
        };
        let column = column.trim();
        let Some(wanted) = columns.iter().find(|wanted| wanted.name() == column) else {
            let is_measured = job.measures.iter().any(|measure| measure.name() == column);
            let hint = match (is_measured, job.target.is_some()) {
                (true, false) => " (it needs --target)",
                _ => "",
            };
            let names: Vec<String> = columns.into_iter().map(Quantity::name).collect();
            return Err(usage(format!(
                "{flag}: there is no column {column}{hint}, expected one of {}",
                names.join(", ")
            )));
        };
        let number: f64 = value.trim().parse().map_err(|_| {
            usage(format!(
                "{flag} {column}: found \"{value}\", expected a number"
            ))
        })?;
        let number = check::number(&format!("{flag} {column}"), number, -100.0..=100.0)?;
        let bound = bound(number);
        if wanted.measure.is_distance() && matches!(bound, Bound::AtLeast(_)) {
            return Err(usage(format!(
                "{flag}: found {column}, a distance, which is better when it is lower: use --fail-above \
                {column}={number}"
            )));
        }
        Ok(Gate {
            column: column.to_owned(),
            bound,
        })
    }
}
