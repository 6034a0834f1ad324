//! Understands what a user means who types the address of a page of the hub, or a repository's id
//! with a file's path, where a repository, folder or file is expected. Nothing is fetched from such
//! an address; the message says what to type.

use percent_encoding::percent_decode_str;

use super::address::FileName;
use super::is_repository_id;

/// Names of the public hub.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// A repository, perhaps with a revision and a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::io) struct Typed {
    id: String,
    revision: Option<String>,
    file: Option<String>,
}

impl Typed {
    /// Reads `https://huggingface.co/owner/name[/blob/REVISION/FILE]`, the same without `https://`,
    /// `hf://owner/name[@REVISION][/FILE]`, and `owner/name/FILE.safetensors`.
    pub(in crate::io) fn read(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("hf://") {
            return Self::of_path(rest);
        }
        let scheme = ["https://", "http://"];
        let rest = scheme.iter().find_map(|scheme| text.strip_prefix(scheme));
        let (host, path) = rest.unwrap_or(text).split_once('/')?;
        match HOSTS.contains(&host) {
            true => Self::of_page(path.split(['?', '#']).next()?),
            // Any other path may be a path on this machine.
            false if rest.is_none() && text.ends_with(".safetensors") => {
                Self::of_path(text).filter(|typed| typed.file.is_some())
            }
            false => None,
        }
    }

    /// `owner/name`, `owner/name/tree/REVISION`, `owner/name/blob/REVISION/FILE`.
    fn of_page(path: &str) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parts: Vec<&str> = path.trim_end_matches('/').splitn(5, '/').collect();
        let file = match parts[..] {
            [_, _, "blob" | "resolve" | "raw", _, file] => Some(decoded(file)),
            _ => None,
        };
        let revision = parts.get(3).map(|revision| decoded(revision));
        Self::checked(parts.get(..2)?.join("/"), revision, file)
    }

    /// `owner/name/FILE`, `owner/name@REVISION/FILE`.
    fn of_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.splitn(3, '/').collect();
        let (name, revision) = match parts.get(1)?.split_once('@') {
            Some((name, revision)) => (name, Some(revision.replace("%2F", "/"))),
            None => (parts[1], None),
        };
        let file = parts.get(2).map(|file| (*file).to_owned());
        Self::checked(format!("{}/{name}", parts[0]), revision, file)
    }

    fn checked(id: String, revision: Option<String>, file: Option<String>) -> Option<Self> {
        let is_model = is_repository_id(&id)
            && !["datasets/", "spaces/"]
                .iter()
                .any(|kind| id.starts_with(kind));
        let is_file = file
            .as_deref()
            .is_none_or(|name| FileName::checked(name).is_ok());
        (is_model && is_file).then_some(Self {
            id,
            revision: revision.filter(|revision| revision != "main"),
            file,
        })
    }

    /// What to type instead: the id of a repository, or the command that fetches a file.
    pub(in crate::io) fn way_out(&self) -> String {
        let revision = self.revision.as_ref();
        let revision = revision.map_or_else(String::new, |name| format!(" --revision {name}"));
        match &self.file {
            None => format!("give the repository's id, {}{revision}", self.id),
            Some(file) => format!(
                "`oneactor fetch {} --file '{}'{revision}` fetches this file of the hub and prints its path: give that path",
                self.id,
                file.replace('\'', r"'\''")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_of_the_hub_are_understood() {
        let file = |id: &str, options: &str| {
            Some(format!(
                "`oneactor fetch {id} --file {options}` fetches this file of the hub and prints its path: give that path"
            ))
        };
        let id = |options: &str| Some(format!("give the repository's id, {options}"));
        for (text, way_out) in [
            ("https://huggingface.co/org/name", id("org/name")),
            ("huggingface.co/org/name/", id("org/name")),
            (
                "https://huggingface.co/org/name/tree/main/unet",
                id("org/name"),
            ),
            (
                "http://hf.co/org/name/tree/refs%2Fpr%2F1",
                id("org/name --revision refs/pr/1"),
            ),
            (
                "https://huggingface.co/org/name/blob/main/sub/my%20lora%231.safetensors?download=true",
                file("org/name", "'sub/my lora#1.safetensors'"),
            ),
            (
                "https://huggingface.co/org/name/resolve/v1/it's.safetensors",
                file("org/name", r"'it'\''s.safetensors' --revision v1"),
            ),
            (
                "hf://org/name@v1/a.safetensors",
                file("org/name", "'a.safetensors' --revision v1"),
            ),
            ("hf://org/name", id("org/name")),
            (
                "org/name/sub/a#1.safetensors",
                file("org/name", "'sub/a#1.safetensors'"),
            ),
            // Other hosts, other kinds of repository and paths that lead out of a repository are
            // not understood.
            (
                "https://mirror.example/org/name/blob/main/a.safetensors",
                None,
            ),
            ("https://huggingface.co/datasets/org/name", None),
            (
                "https://huggingface.co/org/name/blob/main/..%2F..%2Fa",
                None,
            ),
            ("org/name", None),
            ("org/name/../a.safetensors", None),
            ("./a/b.safetensors", None),
            ("a/b/c", None),
        ] {
            let understood = Typed::read(text).map(|typed| typed.way_out());
            assert_eq!(understood, way_out, "{text}");
        }
    }
}
