//! One declaration for each setting: flag, batch key and all that follows from them.
//!
//! The macro `settings!` reads a flag struct as a table. A row has the help text, clap's attributes, the key with its type and,
//! behind `=`, a [`Setting`]: range and default, what it has an effect with, how pictures record it, and what the page
//! `configs/README.md` says of it. A row without one is a group of flags that has a table of its own.

use serde_json::{Value, json};

use super::Method;

/// What is declared of a setting beside its flag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// The batch key, which is the flag in snake_case.
    pub key: &'static str,
    /// What it may be, and is by default.
    pub values: AllowedValues,
    /// What it has an effect with.
    pub acts: Acts,
    /// How the picture that is drawn with it tells of it.
    pub recorded: Recorded,
    /// What `sweep` calls it on a grid, where a list of it makes an axis.
    pub axis: Option<&'static str>,
    /// The setting that it takes the place of, and that takes its place: the one in the higher layer counts.
    pub instead_of: Option<&'static str>,
    /// A method that it cannot be combined with, and why.
    pub not_with: Option<(Method, &'static str)>,
    /// Whether it draws with something else than the actor's own guidance: stories and ablations refuse it.
    pub replaces_actor: bool,
    /// Whether it means another thing in other commands, so that its variable has the command's name.
    pub of_one_command: bool,
    /// Another valid value, as JSON; files in it are those of `tests/cli/settings.rs`.
    pub other: &'static str,
    /// Its values, default and meaning in `configs/README.md`; empty where they follow from the rest.
    pub page: [&'static str; 3],
}

/// Which values a setting has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AllowedValues {
    /// Those of its type.
    Any,
    /// Words, of which this is the default.
    Words(&'static str),
    /// True or false; by default false.
    Switch,
    /// Numbers from the first to the second; and the default, where it is always the same.
    Number(f64, f64, Option<f64>),
    /// Whole numbers, likewise.
    Whole(i64, i64, Option<i64>),
    /// First and last step, `first-last`.
    Steps,
}

/// What a setting has an effect with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Acts {
    /// With anything.
    Always,
    /// With an actor of the paper's method.
    WithActor,
    /// With the paper's method and with the plain model, but no baseline.
    WithoutBaseline,
    /// With one of these methods.
    WithMethod(&'static [Method]),
    /// While this other setting is given.
    With(&'static str),
    /// While this other setting has this value among its own.
    WithValue(&'static str, &'static str),
}

/// How a picture tells of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recorded {
    /// Not at all: it changes no picture.
    Never,
    /// In every picture that it has an effect on.
    Always,
    /// The same, unless it has its default.
    UnlessDefault,
    /// As what was found for it, by the part that finds it: the size that the model has, the files of a network.
    AsFound,
    /// As what is that picture's own.
    OfPicture,
}

impl AllowedValues {
    /// The default as JSON; null where there is none, or it depends on others.
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
    /// A setting of these values, for `settings!`, which names it.
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

    /// `why` continues a sentence that begins with the flag.
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

    /// Its meaning on the page.
    pub(super) const fn says(self, meaning: &'static str) -> Self {
        let [values, default, _] = self.page;
        Self {
            page: [values, default, meaning],
            ..self
        }
    }

    /// Its values on the page.
    pub(super) const fn takes(self, values: &'static str) -> Self {
        let [_, default, meaning] = self.page;
        Self {
            page: [values, default, meaning],
            ..self
        }
    }

    /// Its default on the page.
    pub(super) const fn by_default(self, default: &'static str) -> Self {
        let [values, _, meaning] = self.page;
        Self {
            page: [values, default, meaning],
            ..self
        }
    }

    /// Its flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }

    /// Whether pictures tell of it.
    pub fn is_recorded(&self) -> bool {
        self.recorded != Recorded::Never
    }
}

/// A setting of any value of its type.
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
    /// The settings in the order of the flags, those of groups among them.
    fn settings() -> Vec<Setting>;
}

/// A table of settings: the flag struct, the declaration of each as the function of its name, and [`Declared`].
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
        /// How the setting of this name is declared.
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
