//! A checked job of `generate-base`.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::prompts::{fill_in, require_word};
use super::{DrawingJob, ModelJob, check};
use crate::cli::GenerateBaseFlags;
use crate::error::usage;

/// A checked job of `generate-base`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenerateBaseJob {
    /// Target prompt, with the base word in it.
    pub prompt: String,
    /// Base word.
    pub subject: String,
    /// Folder of the results.
    pub output_dir: PathBuf,
    /// Base images: N.
    pub num_images: usize,
    /// How the images are drawn.
    #[serde(flatten)]
    pub drawing: DrawingJob,
    /// Which model draws.
    #[serde(flatten)]
    pub model: ModelJob,
}

impl GenerateBaseJob {
    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// With the flag, what was found and what was expected.
    pub fn check(flags: &GenerateBaseFlags) -> Result<Self> {
        let prompt = check::required("--prompt", "what is to be drawn", &flags.prompt)?;
        let subject = check::required(
            "--subject",
            "the word of the prompt that names the subject",
            &flags.subject,
        )?;
        let subject = subject.trim().to_owned();
        if subject.is_empty() {
            return Err(usage(
                "--subject: found an empty text, expected a word of the prompt",
            ));
        }
        let prompt = fill_in(&prompt, &subject);
        require_word(&prompt, &subject)?;
        let output_dir = check::required(
            "--output-dir",
            "the folder for the results",
            &flags.output_dir,
        )?;
        let num_images = check::count("--num-images", flags.num_images.unwrap_or(11), 2..=1000)?;
        Ok(Self {
            prompt,
            subject,
            output_dir,
            num_images,
            drawing: DrawingJob::check(&flags.drawing, flags.guidance_scale, num_images)?,
            model: ModelJob::check(&flags.model)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> GenerateBaseFlags {
        GenerateBaseFlags {
            prompt: Some("a small hobbit".into()),
            subject: Some("hobbit".into()),
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
            subject: Some("dwarf".into()),
            ..flags()
        };
        assert!(refused(other).contains("\"dwarf\" is missing from the prompt \"a small hobbit\""));
    }
}
