//! A network that can be unloaded to free its memory, and is loaded again from its files when it is needed. The
//! files stay mapped, so that the system can keep their contents in its cache.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result};
use tch::{Device, Kind};

use crate::io::blob::Blob;
use crate::io::finite_scan::FloatBytes;
use crate::io::lora::LoraSet;
use crate::io::low_rank::LowRankSet;
use crate::io::model_files::ModelFiles;
use crate::io::weights::{Read, WeightPath, Weights};
use crate::libtorch;

/// The files, the device and the precision of a network.
struct WeightsSource {
    blobs: Vec<Blob>,
    loras: Rc<LoraSet>,
    updates: RefCell<Option<Rc<LowRankSet>>>,
    component: String,
    placement: Placement,
}

/// The device and the precision of a network.
#[derive(Clone, Copy)]
pub(super) struct Placement {
    /// The device.
    pub(super) device: Device,
    /// The precision.
    pub(super) kind: Kind,
}

/// A network's constructor.
type Build<T> = dyn Fn(&WeightPath) -> Result<T>;

/// A frozen network of type `T`, loaded or unloaded.
pub(super) struct Reloadable<T> {
    origin: WeightsSource,
    build: Box<Build<T>>,
    built: RefCell<Option<Rc<T>>>,
}

impl<T: 'static> Reloadable<T> {
    /// Opens a component's weights, builds its network, and checks that both fit. The weights that were read
    /// are added to `values`.
    ///
    /// # Errors
    /// When a file is missing or does not fit.
    pub(super) fn load(
        files: &ModelFiles,
        component: &str,
        placement: Placement,
        values: &mut Vec<FloatBytes>,
        build: impl Fn(&WeightPath) -> Result<T> + 'static,
    ) -> Result<Self> {
        let load = || -> Result<Self> {
            let blobs = files.weights(component)?.into_iter().map(Blob::mapped);
            let origin = WeightsSource {
                blobs: blobs.collect::<Result<_>>()?,
                loras: Rc::clone(files.loras()),
                updates: RefCell::default(),
                component: component.to_owned(),
                placement,
            };
            let (network, read) = origin.network(&build)?;
            values.extend(read.values);
            files.note_unused(&read.unused);
            Ok(Reloadable {
                origin,
                build: Box::new(build),
                built: RefCell::new(Some(Rc::new(network))),
            })
        };
        load().with_context(|| format!("loading {component} of {}", files.name()))
    }

    /// The network, loaded again if it was unloaded.
    pub(super) fn get(&self) -> Rc<T> {
        let mut built = self.built.borrow_mut();
        let network = built.get_or_insert_with(|| {
            let again = self.origin.network(&*self.build);
            Rc::new(again.expect("the same bytes were a network before").0)
        });
        Rc::clone(network)
    }

    /// Loads the network again, with or without updates of its layers.
    pub(super) fn set_updates(&self, updates: Option<Rc<LowRankSet>>) {
        self.origin.updates.replace(updates);
        self.release();
    }

    /// Unloads the network.
    pub(super) fn release(&self) {
        if self.built.take().is_some() {
            libtorch::trim_memory();
        }
    }

    /// Whether the network is loaded.
    #[cfg(test)]
    pub(super) fn is_built(&self) -> bool {
        self.built.borrow().is_some()
    }
}

impl WeightsSource {
    fn network<T: 'static>(&self, build: &Build<T>) -> Result<(T, Read)> {
        let _frozen = tch::no_grad_guard();
        let placement = self.placement;
        let weights = Weights::open(&self.blobs, placement.device, placement.kind)?
            .with_loras(&self.loras, &self.component)
            .with_updates(self.updates.borrow().clone());
        weights.allow_unused("embeddings.position_ids");
        let network = build(&weights.root())?;
        Ok((network, weights.finish()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backbone, LoadOptions, MemoryOptions};
    use super::*;
    use crate::io::model_files::ModelOptions;
    use tch::Tensor;

    fn toy(cpu_offload: bool) -> Result<Backbone> {
        let files = ModelFiles::locate(&ModelOptions {
            model: "toy".to_owned(),
            ..ModelOptions::default()
        })?;
        let options = LoadOptions {
            device: Device::Cpu,
            kind: Kind::Float,
            vae: None,
            memory: MemoryOptions {
                cpu_offload,
                ..MemoryOptions::default()
            },
        };
        Backbone::load(&files, &options, &mut |_| ())
    }

    /// Whether the text encoders, the U-Net and the VAE are in memory.
    fn in_memory(backbone: &Backbone) -> [bool; 3] {
        let texts: Vec<bool> = backbone
            .text_encoders
            .iter()
            .map(Reloadable::is_built)
            .collect();
        assert!(texts.iter().all(|&text| text == texts[0]), "both or none");
        [texts[0], backbone.unet.is_built(), backbone.vae.is_built()]
    }

    /// A prompt, a prediction and a picture; `look` is shown the backbone after each.
    fn work(backbone: &Backbone, look: &mut dyn FnMut(&Backbone)) -> Result<[Tensor; 3]> {
        let prompt = backbone.encode_prompt("a photo of a cat", 64, 64)?;
        look(backbone);
        let latents = backbone.initial_latents(1, 64, 64);
        let timesteps = Tensor::from_slice(&[500.0f32]);
        let noise_pred = tch::no_grad(|| backbone.predict(&latents, &timesteps, &prompt));
        look(backbone);
        let picture = backbone.decode(&latents)?;
        look(backbone);
        Ok([prompt.prompt_embeds, noise_pred, picture])
    }

    #[test]
    fn with_offload_only_the_network_that_runs_is_in_memory_and_results_are_the_same() -> Result<()>
    {
        let whole = toy(false)?;
        assert_eq!(in_memory(&whole), [true; 3]);
        let offloaded = toy(true)?;
        assert_eq!(in_memory(&offloaded), [false; 3]);
        let expected = work(&whole, &mut |whole| assert_eq!(in_memory(whole), [true; 3]))?;
        for _ in 0..2 {
            let mut seen = Vec::new();
            let found = work(&offloaded, &mut |backbone| seen.push(in_memory(backbone)))?;
            let [text, unet, vae] = [0, 1, 2].map(|only| [0, 1, 2].map(|i| i == only));
            assert_eq!(seen, [text, unet, vae]);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected);
            }
        }
        Ok(())
    }

    #[test]
    fn a_network_that_was_let_go_comes_back() -> Result<()> {
        let backbone = toy(false)?;
        let first = backbone.encode_prompt("a red robot", 64, 64)?.prompt_embeds;
        backbone.release_text_encoders();
        backbone.release_vae();
        assert_eq!(in_memory(&backbone), [false, true, false]);
        let again = backbone.encode_prompt("a red robot", 64, 64)?.prompt_embeds;
        assert_eq!(in_memory(&backbone), [true, true, false]);
        assert_eq!(first, again);
        Ok(())
    }
}
