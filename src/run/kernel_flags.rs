//! Checks `--tf32` and `--attention` against the device and this build.

use anyhow::Result;
use tch::Device;

use crate::config::ModelJob;
use crate::error::usage;
use crate::libtorch::{self, AttentionImplementation};

/// Refuses the flags if the device cannot do what they ask for, or if this build has no shim to set libtorch with.
///
/// # Errors
/// With the flag and what to do.
pub fn check_flags(job: &ModelJob, device: Device) -> Result<()> {
    match (job.tf32, device.is_cuda()) {
        (Some(true), false) => {
            return Err(usage(
                "--tf32: the networks run on the CPU, which has no TF32, expected a GPU: leave the flag \
                 out or give --tf32=false, or name a GPU with --device",
            ));
        }
        (Some(_), true) => libtorch::require("--tf32")?,
        // A CPU computes without TF32 anyway.
        (Some(false), false) | (None, _) => {}
    }
    if let Some(kernel) = job.attention {
        if !device.is_cuda()
            && !matches!(
                kernel,
                AttentionImplementation::Flash | AttentionImplementation::Math
            )
        {
            return Err(usage(format!(
                "--attention: found {}, expected auto, flash or math on a CPU",
                kernel.name()
            )));
        }
        libtorch::require("--attention")?;
    }
    Ok(())
}
