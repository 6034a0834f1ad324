//! Which model, and where it runs, checked.

use anyhow::Result;
use serde::Serialize;

use crate::cli::{Dtype, ModelFlags};
use crate::error::usage;

/// The model where none is named.
pub const DEFAULT_MODEL: &str = "stabilityai/stable-diffusion-xl-base-1.0";

/// Which model, and where it runs. Jobs that agree in all of it share one loaded model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelJob {
    /// Repository, folder or `toy`; `None` where the flags name none.
    pub model: Option<String>,
    /// Weight files to prefer.
    pub variant: Option<String>,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// Another VAE: repository or folder.
    pub vae: Option<String>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Number format of the networks.
    pub dtype: Dtype,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl ModelJob {
    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// With the flag, what was found and what was expected.
    pub fn check(flags: &ModelFlags) -> Result<Self> {
        let named = |flag: &str, value: &Option<String>| match value {
            Some(text) if text.trim().is_empty() => Err(usage(format!(
                "{flag}: found an empty text, expected a name"
            ))),
            value => Ok(value.clone()),
        };
        Ok(Self {
            model: named("--model", &flags.model)?,
            variant: named("--variant", &flags.variant)?,
            revision: named("--revision", &flags.revision)?,
            vae: named("--vae", &flags.vae)?,
            device: device(flags.device.as_deref().unwrap_or("auto"))?,
            dtype: flags.dtype.unwrap_or(Dtype::Auto),
            offline: flags.offline.unwrap_or(false),
        })
    }
}

fn device(name: &str) -> Result<String> {
    let is_index = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match name {
        "auto" | "cpu" | "cuda" => Ok(name.to_owned()),
        _ if name.strip_prefix("cuda:").is_some_and(is_index) => Ok(name.to_owned()),
        _ => Err(usage(format!(
            "--device: found \"{name}\", expected auto, cpu, cuda or cuda:N"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_is_refused() {
        for good in ["auto", "cpu", "cuda", "cuda:0", "cuda:12"] {
            assert_eq!(device(good).ok().as_deref(), Some(good));
        }
        for bad in ["gpu", "cuda:", "cuda:x", "mps", ""] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
