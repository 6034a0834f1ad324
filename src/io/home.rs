//! Replaces `~` at the start of a path. A shell does so too, but not in a JSON file, in quotes or
//! after `--flag=`.

use std::borrow::Cow;
use std::env;

/// The path that a text names: a leading `~` or `~/` stands for the home folder.
///
/// # Errors
/// When there is no home folder, or the text begins with `~` and another name.
pub fn expanded(text: &str) -> Result<Cow<'_, str>, String> {
    expanded_in(text, || {
        let home = env::home_dir().filter(|home| home.is_absolute())?;
        home.to_str().map(str::to_owned)
    })
}

fn expanded_in(text: &str, home: impl Fn() -> Option<String>) -> Result<Cow<'_, str>, String> {
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(Cow::Borrowed(text));
    };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(format!(
            "found \"{text}\", but only ~/ stands for a home folder: write the whole path, or ./{text} for a name that \
             begins with ~"
        ));
    }
    match home() {
        Some(home) => Ok(Cow::Owned(format!("{}{rest}", home.trim_end_matches('/')))),
        None => Err(format!(
            "found \"{text}\", but no home folder is known: set HOME, or write the whole path"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_folder_at_the_start_alone() {
        let read = |text| expanded_in(text, || Some("/home/me/".to_owned()));
        let cases = [
            ("~", "/home/me"),
            ("~/a b/c.png", "/home/me/a b/c.png"),
            ("~/x.safetensors:0.8", "/home/me/x.safetensors:0.8"),
            ("./~/x", "./~/x"),
            ("a~b", "a~b"),
            ("", ""),
        ];
        for (text, path) in cases {
            assert_eq!(read(text).as_deref(), Ok(path), "{text}");
        }
        let refused = read("~bob/x").expect_err("another's home folder");
        assert!(
            refused.contains("\"~bob/x\"") && refused.contains("./~bob/x"),
            "{refused}"
        );
        let homeless = expanded_in("~/x", || None).expect_err("nobody's home folder");
        assert!(homeless.contains("set HOME"), "{homeless}");
    }
}
