//! The address of a hub. A mirror's address may contain a user's name and password, which must be
//! sent to the mirror alone.

use std::fmt;

use anyhow::Result;

use crate::error::usage;

/// The public hub.
pub const PUBLIC_ENDPOINT: &str = "https://huggingface.co";

/// The address of a hub, without a slash at the end. `Debug` and `Display` hide the part before an
/// `@`.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Checks the address in the variable HF_ENDPOINT.
    ///
    /// # Errors
    /// When it cannot be the address of a hub.
    pub(super) fn checked(text: &str) -> Result<Self> {
        let text = text.trim().trim_end_matches('/');
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        // Nothing could be appended after `?` or `#`. A token does not belong there either, because
        // every log would contain it.
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '?' && c != '#';
        let is_address = |rest: &str| {
            !rest.is_empty() && rest.chars().all(is_plain) && !has_slash_in_password(rest)
        };
        if rest.is_some_and(is_address) {
            return Ok(Self(text.to_owned()));
        }
        let start = text.split(['?', '#']).next().unwrap_or_default();
        Err(usage(format!(
            "HF_ENDPOINT is `{}`{}, expected an address such as {PUBLIC_ENDPOINT}; a token is given by HF_TOKEN",
            without_user(start),
            if start == text { "" } else { " with a query" }
        )))
    }

    /// The full address for requests.
    pub(super) fn address(&self) -> &str {
        &self.0
    }
}

impl From<String> for Endpoint {
    fn from(address: String) -> Self {
        Self(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_user(&self.0))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// `https://host/path` of `https://user:password@host/path`.
pub(in crate::io) fn without_user(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        // This is not an address, so nothing of it is shown.
        return if address.contains('@') {
            "…".to_owned()
        } else {
            address.to_owned()
        };
    };
    if has_slash_in_password(rest) {
        return format!("{scheme}://…");
    }
    let host_end = rest.find('/').unwrap_or(rest.len());
    let start = rest[..host_end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[start..])
}

/// Whether `rest`, an address after its scheme, may contain a name and a password with a slash,
/// which should be written as `%2F`: the part before the slash does not end in a port number, and
/// an `@` comes later.
fn has_slash_in_password(rest: &str) -> bool {
    let Some((host, path)) = rest.split_once('/') else {
        return false;
    };
    let has_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = host.contains('@') || host.split_once(':').is_none_or(|(_, port)| has_port(port));
    !is_host && path.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_for_the_hub_alone() -> Result<()> {
        let endpoint = Endpoint::checked("https://me:pa@ss@mirror.example:8080/hf/@x/")?;
        assert_eq!(
            endpoint.address(),
            "https://me:pa@ss@mirror.example:8080/hf/@x"
        );
        assert_eq!(endpoint.to_string(), "https://mirror.example:8080/hf/@x");
        assert!(!format!("{endpoint:?}").contains("pa@ss"));
        Ok(())
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_what_may_be_secret() {
        for text in [
            "https://mirror.example?token=hf_secret",
            "https://mirror.example#hf_secret",
            "https://me:hf_sec/hf_secret@mirror.example",
            "https://me:a/hf_secret@mirror.example?x",
            "me:hf_secret@mirror.example",
            "ftp://me:hf_secret@mirror.example",
        ] {
            let said = Endpoint::checked(text).expect_err(text).to_string();
            assert!(!said.contains("hf_secret"), "{said}");
        }
    }
}
