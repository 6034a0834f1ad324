//! The licence of a repository, as its card gives it: `license`, `license_name` and `license_link`
//! at the start of README.md, which the hub also returns with the list of files.

use serde::Deserialize;
use serde_json::Value;

/// The licence of a repository's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Licence {
    /// The name in the card, such as `openrail++`; `None` if the card names none.
    pub name: Option<String>,
    /// Where the full text is: the licence's own file, or otherwise the repository's page.
    pub link: String,
}

/// The fields of a card about the licence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct LicenceFields {
    license: Option<Value>,
    license_name: Option<Value>,
    license_link: Option<Value>,
}

/// The longest name that is shown.
const LONGEST: usize = 200;

impl LicenceFields {
    /// The fields at the start of a README, between two lines of three hyphens.
    pub(super) fn of_readme(text: &str) -> Self {
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some("---") {
            return Self::default();
        }
        let head: Vec<&str> = lines.take_while(|line| line.trim_end() != "---").collect();
        let field = |key: &str| {
            let place = head.iter().position(|line| {
                line.strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with(':'))
            })?;
            let inline = head[place][key.len() + 1..].trim();
            let items = head[place + 1..]
                .iter()
                .map_while(|line| line.trim_start().strip_prefix("- "));
            let values: Vec<&str> = match inline {
                "" => items.collect(),
                value => vec![value],
            };
            let plain = |value: &str| value.trim().trim_matches(['"', '\'']).to_owned();
            let values: Vec<String> = values.into_iter().map(plain).collect();
            Some(Value::from(values))
        };
        Self {
            license: field("license"),
            license_name: field("license_name"),
            license_link: field("license_link"),
        }
    }

    /// Whether the card says nothing about the licence.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The licence. `text` is the address of its text if the repository has a file with it.
    pub(super) fn licence(&self, text: Option<String>, page: &str) -> Licence {
        let own_name = shown(&self.license_name);
        let name = match (shown(&self.license), own_name) {
            // A licence on the hub's list goes by its name on that list.
            (Some(id), Some(own)) if id == "other" => Some(own),
            (id, own) => id.or(own),
        };
        let is_address =
            |link: &String| link.starts_with("https://") && !link.contains(char::is_whitespace);
        let link = shown(&self.license_link).filter(is_address);
        Licence {
            name,
            link: link.or(text).unwrap_or_else(|| page.to_owned()),
        }
    }
}

/// One text, or several separated by commas, without control characters.
fn shown(value: &Option<Value>) -> Option<String> {
    let text = match value.as_ref()? {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            texts.join(", ")
        }
        _ => return None,
    };
    let plain: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    (!plain.trim().is_empty()).then(|| plain.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(readme: &str) -> Licence {
        LicenceFields::of_readme(readme).licence(None, "https://hub/org/name")
    }

    #[test]
    fn the_head_of_a_readme_names_the_licence() {
        let plain =
            of("---\nlicense: openrail++\ntags:\n- text-to-image\n---\n# A model\nlicense: mit\n");
        assert_eq!(plain.name.as_deref(), Some("openrail++"));
        assert_eq!(plain.link, "https://hub/org/name");
        let own = of(
            "---\r\nlicense: other\r\nlicense_name: \"some-community\"\r\nlicense_link: https://some.where/LICENSE\r\n---\r\n",
        );
        assert_eq!(own.name.as_deref(), Some("some-community"));
        assert_eq!(own.link, "https://some.where/LICENSE");
        let several = of("---\nlicense:\n- mit\n- apache-2.0\nlanguage: en\n---\n");
        assert_eq!(several.name.as_deref(), Some("mit, apache-2.0"));
    }

    #[test]
    fn a_readme_without_a_head_names_none_and_no_terminal_is_commanded() {
        for text in [
            "",
            "# A model\nlicense: mit\n",
            "---\ntags: x\n---\nlicense: mit",
        ] {
            assert_eq!(of(text).name, None, "{text}");
        }
        let evil = of("---\nlicense: \u{1b}[2Jmit\nlicense_link: javascript:x\n---\n");
        assert_eq!(evil.name.as_deref(), Some("[2Jmit"));
        assert_eq!(evil.link, "https://hub/org/name");
    }

    #[test]
    fn the_text_in_the_repository_is_where_it_stands_in_full() {
        let fields = LicenceFields::of_readme("---\nlicense: openrail++\n---\n");
        let licence = fields.licence(Some("https://hub/LICENSE.md".to_owned()), "page");
        assert_eq!(licence.link, "https://hub/LICENSE.md");
    }
}
