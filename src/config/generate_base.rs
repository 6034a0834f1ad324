//! A checked job of `generate-base`.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::drawing::prompt_options;
use super::prompts::{PLACEHOLDER, fill_in, overlapping_words, require_word};
use super::{ControlJob, DrawingJob, ModelJob, check};
use crate::cli::GenerateBaseFlags;
use crate::error::usage;

/// A checked job of `generate-base`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenerateBaseJob {
    /// Target prompt, with the base word in it.
    pub prompt: String,
    /// Base words: one, or several for subjects that become one actor together.
    pub subjects: Vec<String>,
    /// Folder of the results.
    pub output_dir: PathBuf,
    /// Number of base images, N.
    pub num_images: usize,
    /// How the images are drawn.
    #[serde(flatten)]
    pub drawing: DrawingJob,
    /// Control images of the drawing.
    pub control: Option<ControlJob>,
    /// Which model draws.
    #[serde(flatten)]
    pub model: ModelJob,
}

impl GenerateBaseJob {
    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// Names the flag, the value found and the value expected.
    pub fn check(flags: &GenerateBaseFlags) -> Result<Self> {
        let prompt = check::required("--prompt", "what is to be drawn", &flags.prompt)?;
        let subjects = subjects(flags)?;
        let options = prompt_options(&flags.drawing);
        let prompt = match &subjects[..] {
            [subject] => fill_in(&prompt, &options.literal(subject)),
            _ if prompt.contains(PLACEHOLDER) => {
                return Err(usage(format!(
                    "--prompt: {PLACEHOLDER} stands for one base word, but there are {}: write the words themselves",
                    subjects.len()
                )));
            }
            _ => prompt,
        };
        let text = options.plain_text(&prompt)?;
        for subject in &subjects {
            require_word(&text, subject)?;
        }
        let output_dir = check::required(
            "--output-dir",
            "the folder for the results",
            &flags.output_dir,
        )?;
        check::folder("--output-dir", &output_dir)?;
        let num_images = check::declared_count(GenerateBaseFlags::num_images(), flags.num_images)?;
        Ok(Self {
            prompt,
            subjects,
            output_dir,
            num_images,
            drawing: DrawingJob::check(&flags.drawing, flags.guidance_scale, num_images)?,
            control: ControlJob::check(&flags.control)?,
            model: ModelJob::check(&flags.model)?,
        })
    }
}

/// The base words, without spaces around them.
fn subjects(flags: &GenerateBaseFlags) -> Result<Vec<String>> {
    let given = check::required(
        "--subject",
        "the word of the prompt that names the subject",
        &flags.subject,
    )?;
    let subjects: Vec<String> = given.iter().map(|word| word.trim().to_owned()).collect();
    if subjects.is_empty() || subjects.iter().any(String::is_empty) {
        return Err(usage(
            "--subject: found an empty text, expected a word in the prompt",
        ));
    }
    if let Some((first, second)) = overlapping_words(&subjects) {
        return Err(usage(format!(
            "--subject: found \"{}\" and \"{}\", expected words that do not contain each other",
            subjects[first], subjects[second]
        )));
    }
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> GenerateBaseFlags {
        GenerateBaseFlags {
            prompt: Some("a small hobbit".into()),
            subject: Some(vec!["hobbit".into()]),
            output_dir: Some("out".into()),
            ..GenerateBaseFlags::default()
        }
    }

    #[test]
    fn the_paper_draws_eleven_images() -> Result<()> {
        assert_eq!(GenerateBaseJob::check(&flags())?.num_images, 11);
        Ok(())
    }

    #[test]
    fn wrong_flags_are_refused_by_name() {
        let refused = |flags: GenerateBaseFlags| {
            let error = GenerateBaseJob::check(&flags).expect_err("the flags are wrong");
            format!("{error:#}")
        };
        let one = GenerateBaseFlags {
            num_images: Some(1),
            ..flags()
        };
        assert!(refused(one).contains("--num-images: found 1, expected a whole number from 2"));
        let no_prompt = GenerateBaseFlags {
            prompt: None,
            ..flags()
        };
        assert!(refused(no_prompt).contains("--prompt is missing"));
        let other = GenerateBaseFlags {
            subject: Some(vec!["dwarf".into()]),
            ..flags()
        };
        assert!(refused(other).contains("\"dwarf\" is missing from the prompt \"a small hobbit\""));
    }
}
