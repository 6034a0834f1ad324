//! The part of the target that is also learnt enlarged: a word that says where it is, or a box in pixels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A crop of the target as one more target variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Crop {
    /// No crop.
    None,
    /// The face, found by the model's attention to the word "face".
    Face,
    /// The subject, found by the model's attention to its base word.
    Subject,
    /// Left, top, width and height in pixels of the base image; may still lie outside the image.
    Box([i64; 4]),
}

const EXPECTED: &str = "face, subject, none or a box in pixels: left,top,width,height";

impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Crop::None),
            "face" => return Ok(Crop::Face),
            "subject" => return Ok(Crop::Subject),
            _ => {}
        }
        let numbers = text.split(',').map(|part| part.trim().parse().ok());
        let numbers: Option<Vec<i64>> = numbers.collect();
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .map(Crop::Box)
            .ok_or_else(|| format!("expected {EXPECTED}"))
    }
}

impl TryFrom<String> for Crop {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Crop> for String {
    fn from(crop: Crop) -> String {
        crop.to_string()
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crop::None => f.write_str("none"),
            Crop::Face => f.write_str("face"),
            Crop::Subject => f.write_str("subject"),
            Crop::Box([x, y, w, h]) => write!(f, "{x},{y},{w},{h}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_words_are_read_and_written() {
        for word in ["none", "face", "subject"] {
            let crop: Crop = word.parse().expect("it is one of the words");
            assert_eq!(crop.to_string(), word);
        }
        assert_eq!("1, 2,30,40".parse(), Ok(Crop::Box([1, 2, 30, 40])));
        for wrong in ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "Face"] {
            assert!(wrong.parse::<Crop>().is_err(), "{wrong}");
        }
        let read: Crop = serde_json::from_str("\"1,2,30,40\"").expect("it is a box");
        assert_eq!(read.to_string(), "1,2,30,40");
    }
}
