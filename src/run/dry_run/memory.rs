//! Estimates the memory of a job from its stages and the networks that are loaded in each stage.

use anyhow::Result;
use tch::Kind;

use super::super::session::Session;
use super::Forecast;
use super::sizes::{network_size, part_of, size_of_tensors};
use crate::backbone::files::{networks_in_one_file, pipeline_files, vae_files};
use crate::backbone::memory::{
    Activations, MemoryStage, ModelPart, NetworkSize, PROGRAM, peak_of_gpu, peak_of_process,
};
use crate::io::model_files::{ModelFiles, NeededFile};
use crate::libtorch::resident_bytes;

/// The most memory that a job needs at a time, in bytes.
pub(super) struct Memory {
    pub peak: u64,
    /// The share of the program and libtorch before anything is loaded; `None` for the memory of a GPU.
    pub program: Option<u64>,
}

impl Forecast {
    /// The most memory that the job needs at a time.
    pub(super) fn memory(
        &self,
        session: &Session,
        networks: &[(ModelPart, NetworkSize)],
    ) -> Memory {
        let offload = self.model.job.cpu_offload;
        let keeps_text = self.keeps_text || !session.is_last_job.get();
        if self.model.device.is_cuda() {
            return Memory {
                peak: peak_of_gpu(networks, &self.stages(keeps_text, true), offload),
                program: None,
            };
        }
        let program = resident_bytes().unwrap_or(PROGRAM);
        let stages = self.stages(keeps_text, false);
        Memory {
            peak: peak_of_process(program, networks, &stages, offload),
            program: Some(program),
        }
    }

    /// The stages of the job. On a CPU an actor is in memory twice, as its file and as tensors.
    fn stages(&self, keeps_text: bool, on_gpu: bool) -> Vec<MemoryStage> {
        use ModelPart::{Text, Unet, Vae};
        let actors = if on_gpu { 1 } else { 2 } * self.actor_bytes;
        let after_text: &[ModelPart] = if keeps_text { &[] } else { &[Text] };
        let stage = |without, runs, bytes| MemoryStage {
            without,
            runs,
            activations: Activations(bytes),
        };
        let mut stages = vec![
            stage(&[], &[Vae], self.target.0),
            stage(after_text, &[Unet], self.passing.0 + actors),
            stage(after_text, &[Vae], self.decoding.0 + actors),
            stage(
                match (self.keeps_text, self.tunes_networks && on_gpu) {
                    (_, true) => &[],
                    (true, false) => &[Vae],
                    (false, false) => &[Text, Vae],
                },
                &[Text, Unet],
                self.tuning.0,
            ),
        ];
        if on_gpu {
            // Actors are read before the text encoders are unloaded.
            stages.push(stage(&[], &[Text], actors));
        }
        stages
    }

    /// The sizes of the networks, and the bytes that are still to be downloaded.
    pub(super) fn networks(&self) -> Result<(Vec<(ModelPart, NetworkSize)>, u64)> {
        let model = &self.model;
        let has_other_vae = model.vae.is_some();
        let vae_kind = model.pipeline.vae_kind(&model.vae_config, model.kind);
        let kind_of = |folder: &str| match folder {
            "vae" => vae_kind,
            _ => model.kind,
        };
        let merged = |folder: &str, size: NetworkSize| {
            let values = model.files.loras().merged_values(folder);
            size.merged(values * kind_of(folder).elt_size_in_bytes() as u64)
        };
        let mut missing = 0;
        let mut size = |files: &ModelFiles, needed: &[NeededFile], kind: Kind| {
            missing += needed.iter().filter_map(|file| file.missing).sum::<u64>();
            network_size(files, needed, kind)
        };
        let mut networks = Vec::new();
        for (folder, tensors) in networks_in_one_file(&model.files, has_other_vae)? {
            let found = size_of_tensors(&tensors, kind_of(folder));
            networks.push((part_of(folder), merged(folder, found)));
        }
        if networks.is_empty() {
            for (folder, needed) in pipeline_files(&model.files, has_other_vae)? {
                let found = size(&model.files, &needed, kind_of(folder))?;
                networks.push((part_of(folder), merged(folder, found)));
            }
        }
        if let Some(vae) = &model.vae {
            networks.push((ModelPart::Vae, size(vae, &vae_files(vae)?, vae_kind)?));
        }
        for (files, needed) in &self.beside {
            networks.push((ModelPart::Beside, size(files, needed, model.kind)?));
        }
        Ok((networks, missing))
    }
}
