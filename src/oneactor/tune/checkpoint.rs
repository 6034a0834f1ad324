//! A tuning on disk, between two steps.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use tch::Tensor;

use super::Tuner;
use crate::io::tensors::TensorFile;
use crate::oneactor::projector::Projector;

impl Tuner<'_> {
    /// All that [`restore`](Self::restore) needs.
    ///
    /// # Errors
    /// When a tensor can not be saved.
    pub fn checkpoint(&self) -> Result<Vec<u8>> {
        let mut file = TensorFile::default();
        for (name, tensor) in self.projector.parameters() {
            file.insert(&format!("now.{name}"), tensor);
        }
        for (name, tensor) in &self.best {
            file.insert(&format!("best.{name}"), tensor);
        }
        let (optimizer_steps, moments) = self.optimizer.state();
        for (name, tensor) in &moments {
            file.insert(&format!("adamw.{name}"), tensor);
        }
        for (key, value) in [
            ("step", self.step.to_string()),
            ("optimizer_steps", optimizer_steps.to_string()),
            ("convergence", serde_json::to_string(&self.convergence)?),
        ] {
            file.metadata.insert(key.to_string(), value);
        }
        file.to_bytes()
    }

    /// Goes on from a checkpoint of a tuning with the same options.
    ///
    /// # Errors
    /// When the file does not fit; then nothing has changed but the projector's values.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let file = TensorFile::read(path)?;
        let device = self.backbone.device();
        let group = |prefix: &str| -> BTreeMap<String, Tensor> {
            let named = |(name, t): (&String, &Tensor)| {
                Some((name.strip_prefix(prefix)?.to_string(), t.to_device(device)))
            };
            file.tensors.iter().filter_map(named).collect()
        };
        let config = self.projector.config.clone();
        self.projector = Projector::from_parameters(config.clone(), &group("now."), device)?;
        self.best = Projector::from_parameters(config, &group("best."), device)?.snapshot();
        self.optimizer
            .restore(file.number("optimizer_steps", path)?, &group("adamw."));
        self.convergence = serde_json::from_str(file.text("convergence", path)?)?;
        self.step = file.number("step", path)?;
        Ok(())
    }
}
