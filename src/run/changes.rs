//! Notes on pictures that an older version of this program drew differently, see `configs/CHANGES.md`.

use std::path::Path;

use super::located::LocatedModel;
use super::session::Session;

/// A change of the program after which the same settings give another picture.
struct Change {
    /// The first version with the change.
    since: [u64; 3],
    /// Whether the change affects pictures of this model.
    concerns: fn(&LocatedModel) -> bool,
    /// What the earlier versions did, as the end of a sentence that begins with the version.
    before: &'static str,
}

const CHANGES: [Change; 2] = [
    Change {
        since: [0, 2, 0],
        concerns: |model| model.vae_config.has_latent_statistics(),
        before: "did not read latents_mean and latents_std of its VAE",
    },
    Change {
        since: [0, 2, 0],
        concerns: |model| model.tokenizers.have_added_words(),
        before: "did not read the words that were added to its tokenizer (textual inversion)",
    },
];

/// Notes, for a picture that is drawn again or kept, why this version would draw another one.
pub fn tell(session: &Session, picture: &Path, version: &str, model: &LocatedModel) {
    let concerning = concerning(version, |change| (change.concerns)(model));
    for before in concerning {
        session.tell(format!(
            "{} was drawn with {} by oneactor {version}, which {before}: this version draws another picture",
            picture.display(),
            model.files.name()
        ));
    }
}

/// The `before` of each change that `looked_for` accepts and that `version` does not have yet.
fn concerning(version: &str, looked_for: impl Fn(&Change) -> bool) -> Vec<&'static str> {
    let numbers: Vec<u64> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    let is_older = |change: &&Change| numbers.as_slice() < change.since.as_slice();
    let changes = CHANGES.iter().filter(is_older);
    changes
        .filter(|change| looked_for(change))
        .map(|change| change.before)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_versions_drew_otherwise() {
        let count = |version| concerning(version, |_| true).len();
        assert_eq!(
            ["0.1.0", "0.1.9", "0.2.0", "0.10.0", "1.0.0"].map(count),
            [2, 2, 0, 0, 0]
        );
        assert!(concerning("0.1.0", |_| false).is_empty());
        assert_eq!(
            count(env!("CARGO_PKG_VERSION")),
            0,
            "a change of a version to come"
        );
    }
}
