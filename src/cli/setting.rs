//! One declaration for each setting: its flag, its batch key and everything that is derived from them.
//!
//! The macro `settings!` reads a flag struct as a table. A row has the help text, clap's attributes, the key
//! with its type and, after `=`, a [`Setting`]: range and default, the other settings it needs, how pictures
//! record it, and its row in `configs/README.md`. A row without a [`Setting`] is a group of flags with its own
//! table.

use serde_json::{Value, json};

use super::Method;

/// The declaration of a setting, besides its flag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// The batch key, which is the flag in snake_case.
    pub key: &'static str,
    /// The allowed values and the default.
    pub values: AllowedValues,
    /// The other settings that this one needs to have an effect.
    pub acts: Acts,
    /// How pictures record the setting.
    pub recorded: Recorded,
    /// The label of the setting on the grid of `sweep`, if a list of values makes an axis.
    pub axis: Option<&'static str>,
    /// A setting that excludes this one; of the two, the one in the higher layer counts.
    pub instead_of: Option<&'static str>,
    /// A method that the setting cannot be combined with, and the reason.
    pub not_with: Option<(Method, &'static str)>,
    /// Whether the setting replaces the actor's own guidance; stories and ablations refuse such settings.
    pub replaces_actor: bool,
    /// Whether the setting has another meaning in other commands, so that its environment variable contains the
    /// command's name.
    pub of_one_command: bool,
    /// A valid value other than the default, as JSON, for tests; the files it names are made by
    /// `tests/cli/settings.rs`.
    pub other: &'static str,
    /// The cells for values, default and meaning in `configs/README.md`; an empty cell is filled from the rest
    /// of the declaration.
    pub page: [&'static str; 3],
}

/// The allowed values of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AllowedValues {
    /// All values of its type.
    Any,
    /// One of several words; this is the default.
    Words(&'static str),
    /// True or false; the default is false.
    Switch,
    /// Numbers from the first to the second; the third is the default, if it is always the same.
    Number(f64, f64, Option<f64>),
    /// Whole numbers, with the same three fields.
    Whole(i64, i64, Option<i64>),
    /// First and last step, `first-last`.
    Steps,
}

/// The other settings that a setting needs to have an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Acts {
    /// None: it always has an effect.
    Always,
    /// An actor of the paper's method.
    WithActor,
    /// The paper's method or the plain model, but not a baseline.
    WithoutBaseline,
    /// One of these methods.
    WithMethod(&'static [Method]),
    /// This other setting, with any value.
    With(&'static str),
    /// This other setting, with this value, or with a list that contains it.
    WithValue(&'static str, &'static str),
}

/// How a picture records a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recorded {
    /// Not recorded, because it does not change pictures.
    Never,
    /// Recorded in every picture on which it has an effect.
    Always,
    /// Recorded like `Always`, but only if the value is not the default.
    UnlessDefault,
    /// Recorded by the code that resolves the setting, with the resolved value: the model's own size, the files
    /// of a network.
    AsFound,
    /// Recorded with the value of the single picture, such as its seed.
    OfPicture,
}

impl AllowedValues {
    /// The default as JSON; null if there is no default, or if it depends on other settings.
    pub fn default(self) -> Value {
        match self {
            AllowedValues::Any | AllowedValues::Steps => Value::Null,
            AllowedValues::Words(word) => json!(word),
            AllowedValues::Switch => json!(false),
            AllowedValues::Number(.., default) => json!(default),
            AllowedValues::Whole(.., default) => json!(default),
        }
    }
}

impl Setting {
    /// A setting with these values. Its key is filled in by `settings!`.
    const fn new(values: AllowedValues) -> Self {
        Self {
            key: "",
            values,
            acts: Acts::Always,
            recorded: Recorded::Never,
            axis: None,
            instead_of: None,
            not_with: None,
            replaces_actor: false,
            of_one_command: false,
            other: "",
            page: [""; 3],
        }
    }

    pub(super) const fn acts(self, acts: Acts) -> Self {
        Self { acts, ..self }
    }

    pub(super) const fn recorded(self, recorded: Recorded) -> Self {
        Self { recorded, ..self }
    }

    pub(super) const fn axis(self, name: &'static str) -> Self {
        Self {
            axis: Some(name),
            ..self
        }
    }

    pub(super) const fn instead_of(self, key: &'static str) -> Self {
        Self {
            instead_of: Some(key),
            ..self
        }
    }

    /// `why` continues a sentence whose first word is the flag.
    pub(super) const fn not_with(self, method: Method, why: &'static str) -> Self {
        Self {
            not_with: Some((method, why)),
            ..self
        }
    }

    pub(super) const fn replaces_actor(self) -> Self {
        Self {
            replaces_actor: true,
            ..self
        }
    }

    pub(super) const fn of_one_command(self) -> Self {
        Self {
            of_one_command: true,
            ..self
        }
    }

    pub(super) const fn other(self, json: &'static str) -> Self {
        Self {
            other: json,
            ..self
        }
    }

    /// Sets the meaning in `configs/README.md`.
    pub(super) const fn says(self, meaning: &'static str) -> Self {
        let [values, default, _] = self.page;
        Self {
            page: [values, default, meaning],
            ..self
        }
    }

    /// Sets the allowed values in `configs/README.md`.
    pub(super) const fn takes(self, values: &'static str) -> Self {
        let [_, default, meaning] = self.page;
        Self {
            page: [values, default, meaning],
            ..self
        }
    }

    /// Sets the default in `configs/README.md`.
    pub(super) const fn by_default(self, default: &'static str) -> Self {
        let [values, _, meaning] = self.page;
        Self {
            page: [values, default, meaning],
            ..self
        }
    }

    /// The flag, such as `--num-images`.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }

    /// Whether pictures record the setting.
    pub fn is_recorded(&self) -> bool {
        self.recorded != Recorded::Never
    }
}

/// A setting with any value of its type.
pub(super) const fn any() -> Setting {
    Setting::new(AllowedValues::Any)
}

/// A choice of words.
pub(super) const fn words(default: &'static str) -> Setting {
    Setting::new(AllowedValues::Words(default))
}

/// A switch that is off by default.
pub(super) const fn switch() -> Setting {
    Setting::new(AllowedValues::Switch)
}

/// A number from `first` to `last`.
pub(super) const fn number(first: f64, last: f64, default: Option<f64>) -> Setting {
    Setting::new(AllowedValues::Number(first, last, default))
}

/// A whole number from `first` to `last`.
pub(super) const fn whole(first: i64, last: i64, default: Option<i64>) -> Setting {
    Setting::new(AllowedValues::Whole(first, last, default))
}

/// First and last step.
pub(super) const fn steps() -> Setting {
    Setting::new(AllowedValues::Steps)
}

/// Flags whose settings are declared.
pub trait Declared: clap::Args {
    /// The settings in the order of the flags, including those of groups.
    fn settings() -> Vec<Setting>;
}

/// Expands a table of settings to the flag struct, a function with the declaration of each setting, and [`Declared`].
macro_rules! settings {
    (
        $(#[$of_flags:meta])*
        pub struct $Flags:ident {
            $( $(#[$of_field:meta])* pub $key:ident: $type:ty $(= $setting:expr)?, )*
        }
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, serde::Serialize, serde::Deserialize)]
        $(#[$of_flags])*
        pub struct $Flags {
            $( $(#[$of_field])* pub $key: $type, )*
        }

        impl $Flags {
            $( $crate::cli::setting::settings!(@function $key $(= $setting)?); )*
        }

        impl $crate::cli::setting::Declared for $Flags {
            fn settings() -> Vec<$crate::cli::setting::Setting> {
                [$( $crate::cli::setting::settings!(@rows $key: $type $(= $setting)?) ),*].concat()
            }
        }
    };
    (@function $key:ident = $setting:expr) => {
        /// The declaration of the setting with this name.
        pub const fn $key() -> $crate::cli::setting::Setting {
            $crate::cli::setting::Setting { key: stringify!($key), ..$setting }
        }
    };
    (@function $group:ident) => {};
    (@rows $key:ident: $type:ty = $setting:expr) => {
        vec![Self::$key()]
    };
    (@rows $group:ident: $type:ty) => {
        <$type as $crate::cli::setting::Declared>::settings()
    };
}
pub(crate) use settings;
