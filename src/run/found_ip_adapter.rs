//! The files of an IP-Adapter, found once for all jobs that give the same names.

use anyhow::Result;

use super::located::LocatedModel;
use crate::config::ImagePromptJob;
use crate::io::ip_adapter::{Fingerprint, IpAdapterFiles, check_width};

/// The files of an adapter and its image encoder, with the commit or CRC-32 that identifies each.
pub struct FoundIpAdapter {
    pub(super) files: IpAdapterFiles,
    pub(super) fingerprints: [Fingerprint; 2],
}

impl FoundIpAdapter {
    /// Finds the files that `job` names for this model.
    ///
    /// # Errors
    /// When a file is missing, or the adapter does not fit the model.
    pub fn find(job: &ImagePromptJob, model: &LocatedModel, quiet: bool) -> Result<Self> {
        let (name, layout) = (model.files.name(), model.ip_adapter_layout());
        check_width(job.ip_adapter.as_deref(), name, layout, model.text_width())?;
        let find = |name: &str| model.find_beside(name, quiet);
        let files = IpAdapterFiles::locate(
            job.ip_adapter.as_deref(),
            job.image_encoder.as_deref(),
            (name, layout),
            &find,
        )?;
        let fingerprints = files.fingerprints()?;
        Ok(Self {
            files,
            fingerprints,
        })
    }
}
