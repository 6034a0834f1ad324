//! The choice of a target image: a number or "auto".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which base image is the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The most typical base image, chosen by the encoder features.
    Auto,
    /// The base image with this number, counted from 0; the number may still be out of range.
    Index(i64),
}

const EXPECTED: &str = "the number of a base image or \"auto\"";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Target::Auto);
        }
        text.parse()
            .map(Target::Index)
            .map_err(|_| format!("expected {EXPECTED}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Auto => f.write_str("auto"),
            Target::Index(index) => write!(f, "{index}"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Target::Auto => serializer.serialize_str("auto"),
            Target::Index(index) => serializer.serialize_i64(*index),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Target;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_i64<E: de::Error>(self, index: i64) -> Result<Target, E> {
                Ok(Target::Index(index))
            }

            fn visit_u64<E: de::Error>(self, index: u64) -> Result<Target, E> {
                i64::try_from(index)
                    .map(Target::Index)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(index), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
                text.parse()
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_auto_are_read_from_flags_and_from_json() {
        assert_eq!("3".parse(), Ok(Target::Index(3)));
        assert_eq!("auto".parse(), Ok(Target::Auto));
        assert!("best".parse::<Target>().is_err());
        let read = |text| serde_json::from_str::<Target>(text);
        assert_eq!(read("3").ok(), Some(Target::Index(3)));
        assert_eq!(read("\"auto\"").ok(), Some(Target::Auto));
        assert_eq!(read("\"4\"").ok(), Some(Target::Index(4)));
        assert!(read("true").is_err());
    }
}
