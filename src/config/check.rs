//! Checks values against their allowed ranges.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::Setting;
use crate::cli::setting::AllowedValues;
use crate::error::usage;
use crate::io::writable::{check_files, check_folder};
use crate::wording::number_within;

/// A whole number within `range`.
///
/// # Errors
/// Names the flag, the value found and the valid range.
pub fn whole(flag: &str, value: i64, range: RangeInclusive<i64>) -> Result<i64> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (first, last) = range.into_inner();
    Err(usage(format!(
        "{flag}: found {value}, expected a whole number from {first} to {last}"
    )))
}

/// A count within `range`, see [`whole`].
pub fn count(flag: &str, value: i64, range: RangeInclusive<i64>) -> Result<usize> {
    let value = whole(flag, value, range)?;
    usize::try_from(value).map_err(|_| usage(format!("{flag}: found {value}, expected a count")))
}

/// A declared count: the given value, which must lie in the declared range, or else the default.
///
/// # Errors
/// See [`whole`].
pub fn declared_count(setting: Setting, given: Option<i64>) -> Result<usize> {
    let AllowedValues::Whole(first, last, default) = setting.values else {
        unreachable!("`{}` is declared as another kind of value", setting.key)
    };
    let value = given
        .or(default)
        .expect("a count without a default is given");
    count(&setting.flag(), value, first..=last)
}

/// A declared count without a default.
///
/// # Errors
/// See [`whole`].
pub fn count_if_given(setting: Setting, given: Option<i64>) -> Result<Option<usize>> {
    let count = |count| declared_count(setting, Some(count));
    given.map(count).transpose()
}

/// Like [`declared_count`], for a number.
///
/// # Errors
/// See [`number`].
pub fn declared_number(setting: Setting, given: Option<f64>) -> Result<f64> {
    let AllowedValues::Number(first, last, default) = setting.values else {
        unreachable!("`{}` is declared as another kind of value", setting.key)
    };
    let value = given
        .or(default)
        .expect("a number without a default is given");
    number(&setting.flag(), value, first..=last)
}

/// Checks the name of a page that will be written.
///
/// # Errors
/// When the name does not end in .html, because the page could then overwrite a picture; and when the file
/// cannot be written.
pub fn page(flag: &str, path: &Path) -> Result<()> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    if !path.is_dir() && (ending == "html" || ending == "htm") {
        check_files(&[path.to_owned()]).context(flag.to_owned())
    } else {
        Err(usage(format!(
            "{flag}: found {}, expected the name of a file that ends in .html",
            path.display()
        )))
    }
}

/// Checks the folder of the results: it exists, or it can be made.
///
/// # Errors
/// See [`check_folder`].
pub fn folder(flag: &str, path: &Path) -> Result<()> {
    check_folder(path).context(flag.to_owned())
}

/// A number within `range`; NaN and infinities lie outside.
///
/// # Errors
/// Names the flag, the value found and the valid range.
pub fn number(flag: &str, value: f64, range: RangeInclusive<f64>) -> Result<f64> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (first, last) = range.into_inner();
    Err(usage(format!(
        "{flag}: found {value}, expected {}",
        number_within(first, last)
    )))
}

/// A side of a picture in pixels, a multiple of 8.
///
/// # Errors
/// Names the flag, the value found and the valid range.
pub fn side(flag: &str, value: i64) -> Result<i64> {
    const LARGEST: i64 = 8192;
    if (8..=LARGEST).contains(&value) && value % 8 == 0 {
        return Ok(value);
    }
    let near = (value.clamp(8, LARGEST) + 4) / 8 * 8;
    Err(usage(format!(
        "{flag}: found {value}, expected a multiple of 8 from 8 to {LARGEST}, for instance {near}"
    )))
}

/// The first seed of `images` consecutive ones.
///
/// # Errors
/// When the seed is negative or the last seed does not fit 63 bits.
pub fn seed(value: i64, images: usize) -> Result<i64> {
    let last = i64::MAX - images as i64;
    whole("--seed", value, 0..=last)
}

/// A value that must be given.
///
/// # Errors
/// Names the flag and its meaning.
pub fn required<T: Clone>(flag: &str, what: &str, value: &Option<T>) -> Result<T> {
    value
        .clone()
        .ok_or_else(|| usage(format!("{flag} is missing: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_is_refused_with_the_range() {
        let message = |result: Result<()>| format!("{:#}", result.expect_err("it is outside"));
        assert_eq!(
            message(whole("--steps", 0, 1..=1000).map(drop)),
            "--steps: found 0, expected a whole number from 1 to 1000"
        );
        assert_eq!(
            message(number("--eta-1", f64::NAN, 0.0..=100.0).map(drop)),
            "--eta-1: found NaN, expected a number from 0 to 100"
        );
        assert_eq!(
            message(number("--learning-rate", 5.0, 1e-9..=1.0).map(drop)),
            "--learning-rate: found 5, expected a number from 1e-9 to 1"
        );
        assert_eq!(
            message(side("--width", 1021).map(drop)),
            "--width: found 1021, expected a multiple of 8 from 8 to 8192, for instance 1024"
        );
        assert!(side("--width", i64::MIN).is_err());
        assert!(seed(-1, 1).is_err());
        assert!(seed(i64::MAX, 11).is_err());
    }
}
