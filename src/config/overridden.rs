//! Settings that a higher layer overrides although it does not name them.

use crate::cli;
use crate::cli::setting::Acts;

/// Keys whose lower-priority values are overridden, according to the declarations of the settings: both keys of
/// a pair that replace each other, and keys that have no effect together with the higher layers. The
/// environment is such a lower layer below typed flags, see [`super::environment`]. `is_on` is `None` for a key
/// that the higher layers do not name, and otherwise says whether the key is switched on.
pub(super) fn overridden(is_on: impl Fn(&str) -> Option<bool>) -> Vec<&'static str> {
    // A switch that is off replaces nothing.
    let is_named = |key: &&str| is_on(key) == Some(true);
    let mut silent = Vec::new();
    for setting in cli::all_settings() {
        let pair = setting.instead_of.map(|other| [setting.key, other]);
        silent.extend(
            pair.filter(|pair| pair.iter().any(is_named))
                .into_iter()
                .flatten(),
        );
        let does_nothing = match setting.acts {
            Acts::WithActor => is_on("no_actor") == Some(true),
            Acts::With(key) => is_on(key) == Some(false),
            _ => false,
        };
        silent.extend(does_nothing.then_some(setting.key));
    }
    let named = |pair: &&[String; 2]| pair.iter().any(|key| is_on(key) == Some(true));
    silent.extend(
        cli::exclusive()
            .iter()
            .filter(named)
            .flatten()
            .map(String::as_str),
    );
    silent
}
