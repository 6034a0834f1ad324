//! Settings that take a list in `sweep` and a single value in `sample` and `ablate`.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::setting::Acts::{With, WithActor};
use super::setting::Recorded::Always;
use super::setting::{number, settings, steps};
use crate::method::guidance::GuidanceSettings;

/// The method's own defaults.
const PAPER: GuidanceSettings = GuidanceSettings::PAPER;

/// Declares each setting once and makes two structs of the table: one with a single value of each setting, one
/// with a list of values. A row holds the help text, the key with its type and value name, clap's attributes
/// for the single value, and the [`Setting`](super::Setting).
macro_rules! axes {
    (
        $(#[$of_flags:meta])* pub struct $Flags:ident;
        $(#[$of_lists:meta])* pub struct $Lists:ident;
        $(
            $(#[$of_field:meta])*
            pub $key:ident: $type:ty, $name:literal, ($($of_value:tt)*) = $setting:expr,
        )*
    ) => {
        settings! {
            $(#[$of_flags])*
            pub struct $Flags {
                $(
                    $(#[$of_field])*
                    #[arg(long, value_name = $name, $($of_value)*)]
                    pub $key: Option<$type> = $setting,
                )*
            }
        }

        settings! {
            $(#[$of_lists])*
            pub struct $Lists {
                $(
                    $(#[$of_field])*
                    #[arg(long, value_name = concat!($name, ",…"), value_delimiter = ',', allow_hyphen_values = true)]
                    #[serde(default, deserialize_with = "one_or_many")]
                    pub $key: Option<Vec<$type>> = $Flags::$key(),
                )*
            }
        }
    };
}

axes! {
    /// One value of each setting. The actor's guidance is Eqs. 15 to 19.
    #[command(next_help_heading = "Guidance by the actor")]
    pub struct AxisFlags;

    /// A list of values of each setting; a list of several values is an axis of the grid.
    #[command(next_help_heading = "Values: a list makes an axis of the grid, at most two lists")]
    pub struct AxisLists;

    /// How much of the target's offset is added to the base word: v in Eq. 15
    /// [default: 0.8 (paper, Sec. 4)]
    pub semantic_scale: f64, "V", (allow_negative_numbers = true) =
        number(-10.0, 10.0, Some(PAPER.semantic_scale)).acts(WithActor).recorded(Always).axis("v").other("0.3")
            .says("v, Eq. 15 (Sec. 4)"),

    /// Strength of the pull towards the target: the first eta in Eq. 19 [default: guidance scale + eta_2, so
    /// 8.5 (paper, Sec. 4)]
    pub eta_1: f64, "SCALE", (allow_negative_numbers = true) =
        number(0.0, 200.0, None).acts(WithActor).recorded(Always).axis("eta1").other("4")
            .by_default("`guidance_scale` + `eta_2`: 8.5")
            .says("η1, Eq. 19 (Sec. 4); the paper keeps η1 - η2 at 7.5 when η2 varies"),

    /// Strength of the push away from the average of the auxiliary samples: the second eta in Eq. 19; 0 saves a
    /// third of the time [default: 1 (paper, Sec. 4)]
    pub eta_2: f64, "SCALE", (allow_negative_numbers = true) =
        number(0.0, 200.0, Some(PAPER.eta_2)).acts(WithActor).recorded(Always).axis("eta2").other("0.5")
            .says("η2, Eq. 19 (Sec. 4); with 0 a step has two rows instead of three"),

    /// Steps that the actor guides, first-last, counted from 1; the other steps use plain guidance [default:
    /// 1-20 (paper, Sec. 4), or all if there are fewer than 20]
    pub guided_steps: String, "A-B", (allow_hyphen_values = true) =
        steps().acts(WithActor).recorded(Always).axis("steps").other(r#""2-2""#)
            .by_default("`\"1-20\"`, or to `steps` if that is less")
            .says("Sec. 4; the other steps use plain guidance"),

    /// Scale of plain classifier-free guidance (Eq. 3) [default: 7.5 (paper, Sec. 4)]
    #[arg(visible_alias = "cfg-scale")]
    pub guidance_scale: f64, "SCALE", (allow_negative_numbers = true, help_heading = "Drawing") =
        number(0.0, 100.0, Some(PAPER.guidance_scale)).recorded(Always).axis("s").other("3")
            .says("Sec. 4; plain guidance, Eq. 3"),

    /// With --no-actor: interpolates the prompt's embedding between the empty prompt (0) and the prompt (1), or
    /// extrapolates beyond them: c' = c_empty + g (c - c_empty) (Fig. 3) [default: 1]
    pub semantic_interpolation: f64, "G", (allow_negative_numbers = true) =
        number(-10.0, 10.0, None).acts(With("no_actor")).recorded(Always).axis("g").other("0.5").replaces_actor()
            .by_default("none, as 1")
            .says("only with `no_actor`: c' = c_empty + g (c - c_empty) (Fig. 3), from the encoded empty \
                prompt (0) to the prompt (1) and beyond. The pooled embedding, which the paper does not \
                mention, is interpolated in the same way, so that 0 draws exactly the empty prompt"),
}

/// Reads a list or a single value, because a batch file may give either.
pub(super) fn one_or_many<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: DeserializeOwned + 'static,
    D: Deserializer<'de>,
{
    let values = match Option::<Value>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Value::Array(values)) => values,
        Some(value) => vec![value],
    };
    let values = values.into_iter().map(serde_json::from_value).collect();
    let expected = match std::any::type_name::<T>() {
        "f64" => "a number or a list of numbers",
        _ => "a string or a list of strings",
    };
    Result::map(values, Some).map_err(|_: serde_json::Error| D::Error::custom(expected))
}
