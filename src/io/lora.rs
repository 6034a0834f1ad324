//! LoRA files (arXiv 2106.09685), merged into the weights when they are read:
//! `W + scale · alpha / rank · up · down`, in f32.
//!
//! A file names a layer as diffusers and PEFT do (`unet.….to_q.lora_A.weight`), or as kohya's
//! scripts do, with `_` for `.` (`lora_unet_…_to_q.lora_down.weight`). In SDXL's U-Net kohya's
//! scripts also use the original's names (`lora_unet_input_blocks_4_1_…`). A network that reads a
//! weight looks for LoRA layers under each of its names. Layers that no network has looked for
//! belong to another model.

mod keys;
pub mod metadata;
mod name;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::checksum::crc32;
use super::config_file::Notes;
use super::ldm_names::UnetNames;
use super::model_layout::refuse_pickled;
use super::tensors::TensorFile;
use super::values::is_finite;
use crate::error::{model, usage};
use crate::wording::counted;
use keys::{LoraLayer, Role};
use metadata::Metadata;
use name::Name;

/// The number of problems that a report lists; further problems are only counted.
const LISTED: usize = 12;

/// The beginning of the format in an actor's metadata.
const ACTOR: &str = "oneactor.actor/";

/// The file of a LoRA, and the scale at which it is merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraFacts {
    /// The file as the user named it.
    pub file: String,
    /// CRC-32 of the file.
    pub crc32: String,
    /// The scale that the user gave; 1 is the full effect.
    pub scale: f64,
}

/// Whether two models have the same LoRAs merged; paths of the files and their order are ignored.
pub fn are_same(here: &[LoraFacts], there: &[LoraFacts]) -> bool {
    let sorted = |loras: &[LoraFacts]| {
        let mut known: Vec<(String, u64)> = loras
            .iter()
            .map(|lora| (lora.crc32.clone(), lora.scale.to_bits()))
            .collect();
        known.sort();
        known
    };
    sorted(here) == sorted(there)
}

/// CRC-32 of the files in their order; `None` without LoRAs.
pub fn checksums(loras: &[LoraFacts]) -> Option<String> {
    let sums: Vec<&str> = loras.iter().map(|lora| lora.crc32.as_str()).collect();
    (!sums.is_empty()).then(|| sums.join(" "))
}

/// LoRAs with strength and checksum, for a message.
pub fn describe(loras: &[LoraFacts]) -> String {
    let one = |lora: &LoraFacts| format!("LoRA {} at {} ({})", lora.file, lora.scale, lora.crc32);
    match loras {
        [] => "no LoRA".to_owned(),
        loras => loras.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

/// One LoRA file.
#[derive(Debug)]
struct Lora {
    facts: LoraFacts,
    layers: BTreeMap<Name, LoraLayer>,
}

/// The LoRAs of a model, and which of their layers were used.
#[derive(Debug, Default)]
pub struct LoraSet {
    loras: Vec<Lora>,
    /// Layers that a network has read, with the index of their LoRA.
    used: RefCell<BTreeSet<(usize, Name)>>,
    problems: RefCell<Vec<String>>,
}

impl LoraSet {
    /// Reads the files, each with its scale. `components` are those of the model; `notes` receives
    /// notes about what is ignored.
    ///
    /// # Errors
    /// When a file is missing, damaged, or another kind of adapter. Also when a key is unknown, has
    /// no partner, has values that are not finite, or is for a component that the model lacks; all
    /// such keys are named together.
    pub fn open(files: &[(&Path, f64)], components: &[&str], notes: &Notes) -> Result<LoraSet> {
        let mut set = LoraSet::default();
        let mut problems = Vec::new();
        for &(path, scale) in files {
            set.loras
                .push(Lora::open(path, scale, components, (&mut problems, notes))?);
        }
        report(&problems)?;
        Ok(set)
    }

    /// As [`LoraSet::open`], from the content of one file.
    ///
    /// # Errors
    /// As [`LoraSet::open`].
    pub fn read(name: &str, bytes: &[u8], scale: f64, components: &[&str]) -> Result<LoraSet> {
        let mut problems = Vec::new();
        let told = (&mut problems, &Notes::default());
        let lora = Lora::read(name.to_owned(), bytes, scale, components, told)?;
        report(&problems)?;
        Ok(LoraSet {
            loras: vec![lora],
            ..LoraSet::default()
        })
    }

    /// File and scale of each LoRA.
    pub fn facts(&self) -> Vec<LoraFacts> {
        self.loras.iter().map(|lora| lora.facts.clone()).collect()
    }

    /// Whether any LoRA is merged into the network `component`.
    pub fn reaches(&self, component: &str) -> bool {
        let mut names = self.loras.iter().flat_map(|lora| lora.layers.keys());
        names.any(|name| name.component == component)
    }

    /// The number of values of the network `component` that are copied and changed: all values of
    /// every weight that has a layer.
    pub fn merged_values(&self, component: &str) -> u64 {
        let layers = self.loras.iter().flat_map(|lora| &lora.layers);
        let reached = layers.filter(|(name, _)| name.component == component);
        let values: BTreeMap<&Name, u64> = reached
            .map(|(name, layer)| (name, layer.merged_values()))
            .collect();
        values.values().sum()
    }

    /// Reports all layers that did not fit, after the networks were read.
    ///
    /// # Errors
    /// When a layer of a file has other sizes than the model's layer, or the model has no such
    /// layer.
    pub fn finish(&self) -> Result<()> {
        let mut problems = self.problems.take();
        let used = self.used.borrow();
        for (i, lora) in self.loras.iter().enumerate() {
            let unused = lora.layers.iter().filter(|(name, _)| {
                let at = (i, (*name).clone());
                !used.contains(&at)
            });
            problems.extend(unused.map(|(_, layer)| {
                let file = &lora.facts.file;
                format!("{file}: {}: the model has no such layer", layer.key)
            }));
        }
        report(&problems)
    }
}

/// One error that lists all problems.
fn report(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let mut report = format!(
        "LoRA: {} cannot be used; the LoRA may be for another model, expected a LoRA for this model:",
        counted(problems.len(), "tensor", "tensors")
    );
    for problem in problems.iter().take(LISTED) {
        let _ = write!(report, "\n  {problem}");
    }
    if problems.len() > LISTED {
        let _ = write!(report, "\n  … and {} more", problems.len() - LISTED);
    }
    Err(model(report))
}

impl Lora {
    fn open(
        path: &Path,
        scale: f64,
        components: &[&str],
        told: (&mut Vec<String>, &Notes),
    ) -> Result<Lora> {
        let shown = path.display().to_string();
        refuse_pickled(path).context("LoRA")?;
        let bytes = std::fs::read(path)
            .map_err(|error| usage(format!("cannot read the LoRA {shown}: {error}")))?;
        Lora::read(shown, &bytes, scale, components, told)
    }

    /// As [`Lora::open`], from the content of the file `shown`.
    fn read(
        shown: String,
        bytes: &[u8],
        scale: f64,
        components: &[&str],
        told: (&mut Vec<String>, &Notes),
    ) -> Result<Lora> {
        let file = TensorFile::from_bytes(bytes)
            .map_err(|error| usage(format!("LoRA {shown}: {error:#}")))?;
        if let Some((key, kind)) = file.tensors.keys().find_map(|key| {
            let kind = keys::other_adapter(key)?;
            Some((key, kind))
        }) {
            return Err(model(format!(
                "LoRA {shown}: {key}: this is {kind}, which is not supported; expected a plain LoRA (lora_down and lora_up, or lora_A and lora_B)"
            )));
        }
        refuse_no_lora(&file, &shown)?;
        let (problems, notes) = told;
        let metadata = Metadata::read(&file.metadata, &format!("LoRA {shown}"), notes)?;
        let mut found = Vec::new();
        let layers = layers(&file, components, &mut found);
        let layers = layers
            .into_iter()
            .filter_map(|(name, mut layer)| {
                match layer.complete(&name, &metadata) {
                    Ok(()) => return Some((name, layer)),
                    Err(problem) => found.push(format!("{}: {problem}", layer.key)),
                }
                None
            })
            .collect::<BTreeMap<_, _>>();
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("{shown}: {problem}")),
        );
        Ok(Lora {
            facts: LoraFacts {
                file: shown,
                crc32: crc32(bytes),
                scale,
            },
            layers,
        })
    }
}

/// Refuses a file that contains no layer of a LoRA at all.
fn refuse_no_lora(file: &TensorFile, shown: &str) -> Result<()> {
    let format = file.metadata.get("format").map_or("", String::as_str);
    if format.starts_with(ACTOR) {
        return Err(usage(format!(
            "LoRA {shown}: found an actor of this program, expected a LoRA: give the file as an actor instead"
        )));
    }
    if file.tensors.keys().any(|key| keys::parse(key).is_some()) {
        return Ok(());
    }
    let tensors = counted(file.tensors.len(), "tensor", "tensors");
    Err(usage(format!(
        "LoRA {shown}: found none of a LoRA's tensors (lora_down and lora_up, or lora_A and lora_B) among its \
         {tensors}: this is not a LoRA, check the path"
    )))
}

/// The tensors of a file, grouped by layer.
fn layers(
    file: &TensorFile,
    components: &[&str],
    problems: &mut Vec<String>,
) -> BTreeMap<Name, LoraLayer> {
    let mut layers: BTreeMap<Name, LoraLayer> = BTreeMap::new();
    for (key, tensor) in &file.tensors {
        let Some((name, role)) = keys::parse(key) else {
            problems.push(format!("{key}: not a known key of a LoRA"));
            continue;
        };
        if !components.contains(&name.component) {
            let component = name.component;
            problems.push(format!("{key}: the model has no {component}"));
            continue;
        }
        if !is_finite(tensor) {
            problems.push(format!("{key}: holds a value that is not finite"));
            continue;
        }
        let layer = layers.entry(name).or_insert_with(|| LoraLayer::new(key));
        let is_new = match role {
            Role::Down => {
                layer.key.clone_from(key);
                layer.down.replace(tensor.shallow_clone()).is_none()
            }
            Role::Up => layer.up.replace(tensor.shallow_clone()).is_none(),
            Role::Alpha if tensor.numel() == 1 => {
                let alpha = tensor.to_kind(Kind::Double).sum(Kind::Double);
                layer.alpha.replace(alpha.double_value(&[])).is_none()
            }
            Role::Alpha => {
                problems.push(format!(
                    "{key}: found {:?}, expected one number",
                    tensor.size()
                ));
                continue;
            }
        };
        if !is_new {
            problems.push(format!(
                "{key}: the file has this layer twice ({})",
                layer.key
            ));
        }
    }
    layers
}

/// The LoRAs of a model for one of its networks.
pub(super) struct LorasOfNetwork {
    set: Rc<LoraSet>,
    component: &'static str,
    /// The sizes of the U-Net, on which the original's names of its layers depend.
    unet: UnetNames,
}

impl LorasOfNetwork {
    /// `None` if no LoRA is for `component`.
    pub(super) fn new(set: &Rc<LoraSet>, component: &str, unet: UnetNames) -> Option<Self> {
        let component = *name::COMPONENTS.iter().find(|known| **known == component)?;
        set.reaches(component).then(|| Self {
            set: Rc::clone(set),
            component,
            unet,
        })
    }

    /// The weight `key` of this shape, and the weight with all LoRAs merged, f32 on the same device; `None` if no
    /// LoRA has a layer for it.
    pub(super) fn merge(
        &self,
        key: &str,
        shape: &[i64],
        weight: &dyn Fn() -> Tensor,
    ) -> Option<(Tensor, Tensor)> {
        let layers = self.layers(key, shape);
        if layers.is_empty() {
            return None;
        }
        let weight = weight();
        let merged = layers
            .iter()
            .fold(weight.to_kind(Kind::Float), |before, (layer, scale)| {
                before + layer.delta(shape, weight.device()) * *scale
            });
        Some((weight, merged))
    }

    /// As [`LorasOfNetwork::merge`], for a weight of this shape whose values are not read.
    pub(super) fn check(&self, key: &str, shape: &[i64]) {
        self.layers(key, shape);
    }

    /// The layers of all LoRAs for the weight `key` of this shape, each with its scale. Layers that
    /// do not fit are left out and reported by [`LoraSet::finish`].
    fn layers(&self, key: &str, shape: &[i64]) -> Vec<(&LoraLayer, f64)> {
        let Some(module) = key.strip_suffix(".weight") else {
            return Vec::new();
        };
        let names = self.names(module);
        let mut fitting = Vec::new();
        for (i, lora) in self.set.loras.iter().enumerate() {
            let mut found = names
                .iter()
                .filter_map(|name| Some((name, lora.layers.get(name)?)));
            let Some((name, layer)) = found.next() else {
                continue;
            };
            let file = &lora.facts.file;
            let complain = |key: &str, what: String| {
                let text = format!("{file}: {key}: {what}");
                self.set.problems.borrow_mut().push(text);
            };
            for (name, twice) in found {
                complain(&twice.key, format!("the same layer as {}", layer.key));
                self.set.used.borrow_mut().insert((i, name.clone()));
            }
            self.set.used.borrow_mut().insert((i, name.clone()));
            match layer.check(shape) {
                Ok(()) => fitting.push((layer, lora.facts.scale)),
                Err(what) => complain(&layer.key, what),
            }
        }
        fitting
    }

    /// Marks all layers for this network as used, because the network's layers are not known.
    pub(super) fn take_as_used(&self) {
        for (i, lora) in self.set.loras.iter().enumerate() {
            let own = lora.layers.keys();
            let own = own.filter(|name| name.component == self.component);
            let mut used = self.set.used.borrow_mut();
            used.extend(own.map(|name| (i, name.clone())));
        }
    }

    /// All names of a layer.
    fn names(&self, module: &str) -> BTreeSet<Name> {
        let module = module.strip_prefix("text_model.").unwrap_or(module);
        let mut names = vec![module.to_owned(), module.replace('.', "_")];
        if self.component == "unet" {
            let original = self.unet.find(module);
            names.extend(original.map(|name| name.replace('.', "_")));
        }
        let component = self.component;
        names
            .into_iter()
            .map(|module| Name { component, module })
            .collect()
    }
}
