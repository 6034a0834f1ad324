//! What IP-Adapter looks at, checked.

use anyhow::Result;
use serde::Serialize;

use super::check;
use crate::cli::Method;
use crate::cli::image_prompt::ImagePromptFlags;
use crate::error::usage;

/// λ of the examples of the authors and of diffusers in which a prompt stands beside the picture; the paper has 1 for
/// pictures from an image prompt alone.
const SCALE: f64 = 0.6;

/// The image prompt of a job. That the files fit the model is checked where both are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImagePromptJob {
    /// The adapter, where the flags name one.
    pub ip_adapter: Option<String>,
    /// Its image encoder, where the flags name one.
    pub image_encoder: Option<String>,
    /// λ.
    pub scale: f64,
}

impl ImagePromptJob {
    /// Checks the flags and fills in the defaults; `None` for other methods, which have no image prompt.
    ///
    /// # Errors
    /// With the flag, what was found and what was expected.
    pub fn check(flags: &ImagePromptFlags, method: Method) -> Result<Option<Self>> {
        if method != Method::IpAdapter {
            let given = [
                ("--ip-adapter", flags.ip_adapter.is_some()),
                ("--image-encoder", flags.image_encoder.is_some()),
                ("--ip-adapter-scale", flags.ip_adapter_scale.is_some()),
            ];
            return match given.iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((flag, _)) => Err(usage(format!(
                    "{flag} does nothing without --method ip-adapter"
                ))),
            };
        }
        for (flag, name) in [
            ("--ip-adapter", &flags.ip_adapter),
            ("--image-encoder", &flags.image_encoder),
        ] {
            if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
                return Err(usage(format!(
                    "{flag}: found an empty name, expected a file, a folder or a repository"
                )));
            }
        }
        let scale = flags.ip_adapter_scale.unwrap_or(SCALE);
        Ok(Some(Self {
            ip_adapter: flags.ip_adapter.clone(),
            image_encoder: flags.image_encoder.clone(),
            scale: check::number("--ip-adapter-scale", scale, 0.0..=10.0)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ip_adapter_has_an_image_prompt() -> Result<()> {
        let plain = ImagePromptFlags::default();
        assert_eq!(ImagePromptJob::check(&plain, Method::Oneactor)?, None);
        let job = ImagePromptJob::check(&plain, Method::IpAdapter)?;
        assert_eq!(job.map(|job| job.scale), Some(0.6));
        let scaled = ImagePromptFlags {
            ip_adapter_scale: Some(0.5),
            ..plain
        };
        let error = ImagePromptJob::check(&scaled, Method::Consistory).expect_err("no such method");
        assert!(
            error
                .to_string()
                .contains("--ip-adapter-scale does nothing without")
        );
        Ok(())
    }
}
