//! The checked model, and where it runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{check, effect};

use crate::cli::{AttentionKernel, ModelFlags};
use crate::device::{DeviceName, Dtype};
use crate::error::usage;
use crate::io::model_files::way_to_hub_file;
use crate::libtorch::AttentionImplementation;

/// The model if none is named.
pub const DEFAULT_MODEL: &str = "stabilityai/stable-diffusion-xl-base-1.0";

/// The model, and where it runs. Jobs for which all these values are equal share one loaded model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelJob {
    /// Repository, folder or `toy`; `None` if the flags name no model.
    pub model: Option<String>,
    /// Weight files to prefer.
    pub variant: Option<String>,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// Another VAE: repository or folder.
    pub vae: Option<String>,
    /// LoRA files, each with its scale, in the order of the flags.
    pub loras: Vec<(PathBuf, f64)>,
    /// A LoRA that a method has tuned, applied after `loras`.
    #[serde(skip)]
    pub tuned_lora: Option<PathBuf>,
    /// Where the networks run.
    pub device: DeviceName,
    /// Number format of the networks.
    pub dtype: Dtype,
    /// TF32 everywhere or nowhere; `None` means in convolutions only.
    pub tf32: Option<bool>,
    /// The only attention kernel that is allowed; `None` allows all.
    pub attention: Option<AttentionImplementation>,
    /// Whether the VAE works in tiles.
    pub vae_tiling: bool,
    /// Side of a tile in pixels; `None` means the VAE's own size.
    pub vae_tile_size: Option<i64>,
    /// Whether only the running network is in the device's memory.
    pub cpu_offload: bool,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl ModelJob {
    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// Names the flag, the value found and the value expected.
    pub fn check(flags: &ModelFlags) -> Result<Self> {
        let named = |flag: &str, value: &Option<String>| match value {
            Some(text) if text.trim().is_empty() => Err(usage(format!(
                "{flag}: found an empty text, expected a name"
            ))),
            value => Ok(value.clone()),
        };
        effect::check(flags)?;
        Ok(Self {
            model: named("--model", &flags.model)?,
            variant: named("--variant", &flags.variant)?,
            revision: named("--revision", &flags.revision)?,
            vae: named("--vae", &flags.vae)?,
            loras: flags
                .lora
                .iter()
                .flatten()
                .map(|text| lora(text))
                .collect::<Result<_>>()?,
            tuned_lora: None,
            device: device(flags.device.as_deref())?,
            dtype: flags.dtype.unwrap_or_default(),
            tf32: flags.tf32,
            attention: flags.attention.and_then(attention),
            vae_tiling: flags.vae_tiling.unwrap_or(false),
            vae_tile_size: vae_tile_size(flags)?,
            cpu_offload: flags.cpu_offload.unwrap_or(false),
            offline: flags.offline.unwrap_or(false),
        })
    }
}

/// Range of a LoRA's scale. A negative scale subtracts what the LoRA has learnt.
const SCALES: std::ops::RangeInclusive<f64> = -10.0..=10.0;

/// `FILE` or `FILE:SCALE`.
fn lora(text: &str) -> Result<(PathBuf, f64)> {
    let is_file = |name: &str| Path::new(name).is_file();
    if is_file(text) {
        return Ok((PathBuf::from(text), 1.0));
    }
    let Some((file, scale)) = text.rsplit_once(':').filter(|(file, _)| is_file(file)) else {
        let is_scale = |scale: &str| scale.parse::<f64>().is_ok();
        let name = text.rsplit_once(':').filter(|(_, scale)| is_scale(scale));
        let way_out = way_to_hub_file(name.map_or(text, |(name, _)| name));
        return Err(usage(format!(
            "--lora: there is no file {text}: expected FILE.safetensors or FILE.safetensors:SCALE{}",
            way_out.map_or_else(String::new, |way_out| format!("; {way_out}"))
        )));
    };
    let number = scale.trim().parse().map_err(|_| {
        usage(format!(
            "--lora: found the scale \"{scale}\" after {file}, expected a number, as in {file}:0.8"
        ))
    })?;
    Ok((
        PathBuf::from(file),
        check::number("--lora", number, SCALES)?,
    ))
}

fn attention(kernel: AttentionKernel) -> Option<AttentionImplementation> {
    match kernel {
        AttentionKernel::Auto => None,
        AttentionKernel::Flash => Some(AttentionImplementation::Flash),
        AttentionKernel::Efficient => Some(AttentionImplementation::Efficient),
        AttentionKernel::Cudnn => Some(AttentionImplementation::Cudnn),
        AttentionKernel::Math => Some(AttentionImplementation::Math),
    }
}

/// The size of a tile. Whether it is a valid multiple is checked when the VAE is known.
fn vae_tile_size(flags: &ModelFlags) -> Result<Option<i64>> {
    let size = check::count_if_given(ModelFlags::vae_tile_size(), flags.vae_tile_size)?;
    Ok(size.map(|size| size as i64))
}

/// The device of the flag, or the default. Whether the machine has this device is checked later.
///
/// # Errors
/// When the text names no device.
pub(super) fn device(flag: Option<&str>) -> Result<DeviceName> {
    flag.map_or(Ok(DeviceName::default()), |text| {
        text.parse()
            .map_err(|error| usage(format!("--device: {error}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_a_file_with_or_without_a_scale() -> Result<()> {
        let path = std::env::temp_dir().join(format!("oneactor-lora-{}", std::process::id()));
        std::fs::write(&path, "")?;
        let name = path.display();
        let found = [":0.5", "", ":-2"].map(|scale| lora(&format!("{name}{scale}")));
        let wrong = [":x", ":", ":11", ":nan", "x:1"].map(|scale| lora(&format!("{name}{scale}")));
        std::fs::remove_file(&path)?;
        for (found, scale) in found.into_iter().zip([0.5, 1.0, -2.0]) {
            assert_eq!(found?, (path.clone(), scale));
        }
        for wrong in wrong {
            let error = wrong.expect_err("no scale").to_string();
            assert!(error.starts_with("--lora: "), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_tile_has_a_size_only_with_tiling() -> Result<()> {
        let flags = |tiling, size| ModelFlags {
            vae_tiling: tiling,
            vae_tile_size: size,
            ..ModelFlags::default()
        };
        let size = |flags: &ModelFlags| ModelJob::check(flags).map(|job| job.vae_tile_size);
        assert_eq!(size(&flags(Some(true), Some(512)))?, Some(512));
        assert_eq!(size(&flags(Some(true), None))?, None);
        for (wrong, message) in [
            (
                flags(None, Some(512)),
                "--vae-tile-size has no effect without --vae-tiling",
            ),
            (flags(Some(true), Some(31)), "--vae-tile-size: found 31"),
        ] {
            let error = size(&wrong).expect_err("it is refused").to_string();
            assert!(error.starts_with(message), "{error}");
        }
        Ok(())
    }
}
