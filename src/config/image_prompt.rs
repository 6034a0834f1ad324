//! The checked image prompt of IP-Adapter.

use anyhow::Result;
use serde::Serialize;

use super::check;
use crate::cli::Method;
use crate::cli::image_prompt::ImagePromptFlags;
use crate::error::usage;

/// The image prompt of a job. Whether the files fit the model is checked when both are loaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImagePromptJob {
    /// The adapter, if the flags name one.
    pub ip_adapter: Option<String>,
    /// Its image encoder, if the flags name one.
    pub image_encoder: Option<String>,
    /// Weight of the image prompt, λ.
    pub scale: f64,
}

impl ImagePromptJob {
    /// Checks the flags and fills in the defaults; `None` for other methods, which have no image prompt.
    ///
    /// # Errors
    /// Names the flag, the value found and the value expected.
    pub fn check(flags: &ImagePromptFlags, method: Method) -> Result<Option<Self>> {
        if method != Method::IpAdapter {
            return Ok(None);
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
        Ok(Some(Self {
            ip_adapter: flags.ip_adapter.clone(),
            image_encoder: flags.image_encoder.clone(),
            scale: check::declared_number(
                ImagePromptFlags::ip_adapter_scale(),
                flags.ip_adapter_scale,
            )?,
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
        Ok(())
    }
}
