//! The page of `evaluate`, and the command that makes the page again.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use super::super::shell::quoted;
use super::super::{check, layers};
use crate::cli::EvaluateFlags;

/// A page with pictures, scores and plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The file of the page.
    pub path: PathBuf,
    /// The command that measures the same again, for a POSIX shell.
    pub command: String,
}

impl Report {
    /// The page that the flags ask for; `None` if they ask for none.
    ///
    /// # Errors
    /// When the file name does not end in .html, because the page could then overwrite a picture.
    pub(super) fn check(flags: &EvaluateFlags) -> Result<Option<Self>> {
        let Some(path) = &flags.report else {
            return Ok(None);
        };
        check::page("--report", path)?;
        Ok(Some(Self {
            path: path.clone(),
            command: command(flags)?,
        }))
    }
}

/// The command line that sets all flags, including those of the batch file and of the environment.
fn command(flags: &EvaluateFlags) -> Result<String> {
    let mut words = vec!["oneactor evaluate".to_owned()];
    for path in flags.pictures.iter().flatten() {
        words.push(quoted(&path.display().to_string()));
    }
    let mut settings = layers::settings(flags)?;
    settings.remove("pictures");
    for (key, value) in settings {
        let flag = format!("--{}", key.replace('_', "-"));
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            words.push(match value {
                Value::String(text) if text.starts_with('-') => format!("{flag}={}", quoted(&text)),
                Value::String(text) => format!("{flag} {}", quoted(&text)),
                value => format!("{flag}={value}"),
            });
        }
    }
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_holds_every_flag_as_a_shell_reads_it() -> Result<()> {
        let flags = EvaluateFlags {
            pictures: Some(vec![PathBuf::from("out"), PathBuf::from("more pictures")]),
            metrics: Some(vec!["clip_i".to_owned(), "clip_t".to_owned()]),
            prompt: Some("a robot's hat; $HOME".to_owned()),
            fail_below: Some(vec!["clip_i=0.8".to_owned()]),
            report: Some(PathBuf::from("a.html")),
            offline: Some(true),
            ..EvaluateFlags::default()
        };
        let report = Report::check(&flags)?.expect("there is one");
        assert!(
            report
                .command
                .starts_with("oneactor evaluate out 'more pictures' --"),
            "{}",
            report.command
        );
        for part in [
            "--metrics clip_i --metrics clip_t",
            r"--prompt 'a robot'\''s hat; $HOME'",
            "--fail-below clip_i=0.8",
            "--report a.html",
            "--offline=true",
        ] {
            assert!(report.command.contains(part), "{}", report.command);
        }
        Ok(())
    }

    #[test]
    fn only_a_page_may_be_written_over() {
        for name in ["out/0000-0.png", "report", env!("CARGO_MANIFEST_DIR")] {
            let flags = EvaluateFlags {
                report: Some(PathBuf::from(name)),
                ..EvaluateFlags::default()
            };
            let error = Report::check(&flags).expect_err(name).to_string();
            assert!(error.contains("expected the name of a file that ends in .html"));
        }
    }
}
