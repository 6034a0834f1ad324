//! The only loader of weights: safetensors files, memory-mapped, checked both ways.
//!
//! A network asks for each of its tensors by name and shape and never fails on the way. What went
//! wrong is collected and reported together by [`Weights::finish`]: missing, misshapen and unused
//! tensors, each with its file and key. Whether all values are finite is seen by a [`FiniteScan`].
//!
//! [`FiniteScan`]: super::finite_scan::FiniteScan

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Div;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::blob::Blob;
use super::finite_scan::{Values, list};
use super::ldm_names::{LdmNames, Part, Place, UnetNames};
use super::lora::{LoraSet, LorasOfNetwork};
use super::low_rank::{LowRank, LowRankSet};
use super::single_file::{Component, is_no_weight};
use super::tensors::shape_of;
use crate::error::model;

/// The bytes of one file. A mapping is never unmapped: on a CPU in the file's own precision the
/// tensors *are* the mapping, and a model lives as long as the process.
fn bytes_of(blob: &Blob) -> Result<&'static [u8]> {
    match blob {
        Blob::Embedded { bytes, .. } | Blob::Mapped { bytes, .. } => Ok(bytes),
        Blob::Component(component) => Ok(component.bytes),
        Blob::File(path) => map_file(path),
    }
}

/// Maps a file for the life of the process.
///
/// # Errors
/// When it can not be read, or is empty.
pub(super) fn map_file(path: &Path) -> Result<&'static [u8]> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("opening {shown}"))?;
    if file.metadata().map(|m| m.len()).unwrap_or(0) == 0 {
        return Err(model(format!(
            "{shown}: the file is empty, expected safetensors"
        )));
    }
    // SAFETY: the mapping is private and only read. A file that somebody truncates while it is
    // mapped would fault; checkpoints are written once under their final name.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.with_context(|| format!("mapping {shown}"))?;
    Ok(Box::leak(Box::new(map)))
}

/// One tensor of a file, not yet loaded.
struct Entry {
    file: Rc<str>,
    dtype: Dtype,
    shape: Vec<i64>,
    data: &'static [u8],
}

#[derive(Default)]
struct Problems {
    missing: Vec<String>,
    misshapen: Vec<String>,
    non_finite: Vec<String>,
}

/// The weights of one network.
pub struct Weights {
    entries: BTreeMap<String, Entry>,
    /// Where the entries have the names of a single file, what they are in diffusers'.
    component: Option<Arc<Component>>,
    /// What is merged into the weights.
    loras: Option<LorasOfNetwork>,
    /// What is learnt beside the weights.
    updates: Option<Rc<LowRankSet>>,
    files: Vec<Rc<str>>,
    used: RefCell<BTreeSet<String>>,
    read: RefCell<Vec<Values>>,
    problems: RefCell<Problems>,
    device: Device,
    kind: Kind,
}

impl Weights {
    /// Opens the files of one network. Its tensors will be placed on `device` as `kind`.
    ///
    /// # Errors
    /// When a file can not be read, is no safetensors file or is cut off, or when two files hold
    /// the same tensor.
    pub fn open(blobs: &[Blob], device: Device, kind: Kind) -> Result<Weights> {
        let mut entries = BTreeMap::new();
        let mut files = Vec::new();
        let component = match blobs {
            [Blob::Component(component)] => Some(Arc::clone(component)),
            _ => None,
        };
        let prefix = component.as_ref().map_or("", |component| component.prefix);
        for blob in blobs {
            let file: Rc<str> = blob.name().into();
            let tensors = SafeTensors::deserialize(bytes_of(blob)?).map_err(|e| {
                model(format!(
                    "{file}: not a whole safetensors file ({e}); fetch or copy it again"
                ))
            })?;
            for (key, view) in tensors.iter() {
                let Some(short) = key.strip_prefix(prefix) else {
                    continue;
                };
                if component.is_some() && is_no_weight(key) {
                    continue;
                }
                let shape = shape_of(view.shape()).map_err(|expected| {
                    let found = view.shape();
                    model(format!("{file}: {key}: found {found:?}, {expected}"))
                })?;
                let entry = Entry {
                    file: Rc::clone(&file),
                    dtype: view.dtype(),
                    shape,
                    data: view.data(),
                };
                if entries.insert(short.to_string(), entry).is_some() {
                    return Err(model(format!(
                        "{file}: tensor {key} is also in another file of this network"
                    )));
                }
            }
            files.push(file);
        }
        Ok(Weights {
            entries,
            component,
            loras: None,
            updates: None,
            files,
            used: RefCell::default(),
            read: RefCell::default(),
            problems: RefCell::default(),
            device,
            kind,
        })
    }

    /// Merges what these LoRAs hold for the network `component` into its weights when they are read.
    #[must_use]
    pub fn with_loras(mut self, loras: &Rc<LoraSet>, component: &str) -> Weights {
        let unet = match self.component.as_ref().map(|c| &c.names) {
            Some(LdmNames::Unet(names)) => names.clone(),
            _ => UnetNames::of_diffusers(self.entries.keys().map(String::as_str)),
        };
        self.loras = LorasOfNetwork::new(loras, component, unet);
        self
    }

    /// Gives layers an update that is learnt.
    #[must_use]
    pub fn with_updates(mut self, updates: Option<Rc<LowRankSet>>) -> Weights {
        self.updates = updates;
        self
    }

    /// The place where a network's constructor begins to read.
    pub fn root(&self) -> WeightPath<'_> {
        WeightPath {
            weights: self,
            prefix: String::new(),
        }
    }

    /// Marks tensors that a checkpoint may hold and no network needs, such as saved position
    /// indices.
    pub fn allow_unused(&self, suffix: &str) {
        let keys = self
            .entries
            .keys()
            .filter(|key| key.ends_with(suffix))
            .cloned();
        self.used.borrow_mut().extend(keys);
    }

    /// Marks all tensors below a module that is left out.
    pub fn allow_unused_below(&self, module: &str) {
        let is_below = |key: &&String| {
            key.strip_prefix(module)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let keys = self.entries.keys().filter(is_below).cloned();
        self.used.borrow_mut().extend(keys);
    }

    /// Reports all that did not fit. Returns what was read, for a look at its values.
    ///
    /// # Errors
    /// When any tensor was missing, misshapen or left unused, or is not finite with a LoRA in it.
    pub fn finish(self) -> Result<Vec<Values>> {
        let prefix = self.prefix();
        let used = self.used.into_inner();
        let unused: Vec<String> = self
            .entries
            .iter()
            .filter(|(key, _)| !used.contains(*key))
            .map(|(key, entry)| format!("{prefix}{key} ({})", entry.file))
            .collect();
        let problems = self.problems.into_inner();
        let kinds = [
            ("missing", &problems.missing),
            ("misshapen", &problems.misshapen),
            ("non-finite", &problems.non_finite),
            ("unused", &unused),
        ];
        if kinds.iter().all(|(_, list)| list.is_empty()) {
            return Ok(self.read.into_inner());
        }
        let mut report = format!(
            "the weights do not fit the config: {}",
            self.files.join(", ")
        );
        for (kind, problems) in kinds.iter().filter(|(_, list)| !list.is_empty()) {
            list(&mut report, kind, problems);
        }
        Err(model(report))
    }

    /// Before the keys of this network in a single file.
    fn prefix(&self) -> &'static str {
        self.component.as_ref().map_or("", |c| c.prefix)
    }

    /// The key among the entries of what diffusers calls `key`, and what of it.
    fn place_of(&self, key: &str) -> Place {
        let found = self.component.as_ref().and_then(|c| c.names.find(key));
        found.unwrap_or_else(|| Place {
            key: key.to_owned(),
            part: Part::Whole,
        })
    }

    /// The tensor, with the LoRAs merged unless it is wanted as it is in the file.
    fn load(&self, key: &str, shape: &[i64], with_loras: bool) -> Tensor {
        // One number, however large the shape: nobody computes with it.
        let placeholder = || {
            let zero = Tensor::zeros([0i64; 0], (self.kind, self.device));
            zero.expand(shape, false)
        };
        let place = self.place_of(key);
        let full = format!("{}{}", self.prefix(), place.key);
        let Some(entry) = self.entries.get(&place.key) else {
            let files = self.files.join(", ");
            self.problems
                .borrow_mut()
                .missing
                .push(format!("{full} {shape:?} ({files})"));
            return placeholder();
        };
        let is_first = self.used.borrow_mut().insert(place.key);
        let kind = match entry.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            other => {
                let text = format!(
                    "{full} ({}): found {other:?}, expected floating point",
                    entry.file
                );
                self.problems.borrow_mut().misshapen.push(text);
                return placeholder();
            }
        };
        let expected = place.part.shape_in_file(shape, entry.shape.len());
        if entry.shape != expected {
            let text = format!(
                "{full} ({}): found {:?}, expected {expected:?}",
                entry.file, entry.shape
            );
            self.problems.borrow_mut().misshapen.push(text);
            return placeholder();
        }
        let name = format!("{full} ({})", entry.file);
        let view = place.part.of(&view(entry, kind), shape);
        let merged = match &self.loras {
            Some(loras) if with_loras => loras.merge(key, &view),
            _ => None,
        };
        let tensor = match merged {
            Some(merged) => {
                let merged = merged.to_device(self.device).to_kind(self.kind);
                // One number decides: a sum is finite only when every addend is.
                if !merged.sum(Kind::Float).double_value(&[]).is_finite() {
                    self.problems.borrow_mut().non_finite.push(name.clone());
                }
                merged
            }
            None if self.device == Device::Cpu => view.to_kind(self.kind),
            // Copied to plain memory first: page faults inside a copy to the GPU serialise it.
            None => view.copy().to_device(self.device).to_kind(self.kind),
        };
        if is_first {
            self.read.borrow_mut().push(Values {
                name,
                dtype: entry.dtype,
                kind: self.kind,
                data: entry.data,
            });
        }
        tensor
    }
}

/// The tensor as it lies in the file, on the CPU.
fn view(entry: &Entry, kind: Kind) -> Tensor {
    let mut strides = vec![1; entry.shape.len()];
    for i in (1..entry.shape.len()).rev() {
        strides[i - 1] = strides[i] * entry.shape[i];
    }
    // SAFETY: `data` holds exactly the bytes of `shape` and `kind` (checked by the parser), lives
    // as long as the process (see `map_file`), and frozen weights are never written.
    #[allow(unsafe_code)]
    unsafe {
        Tensor::from_blob(
            entry.data.as_ptr(),
            &entry.shape,
            &strides,
            kind,
            Device::Cpu,
        )
    }
}

/// A place inside a network's weights. `&path / "conv_in"` descends as the checkpoint's keys do.
#[derive(Clone)]
pub struct WeightPath<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl WeightPath<'_> {
    /// The tensor `name` at this place, of exactly this shape. A tensor that does not fit is
    /// replaced by zeros, which take no memory, and reported by [`Weights::finish`].
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        self.weights.load(&self.key(name), shape, true)
    }

    /// As [`WeightPath::tensor`], as the checkpoint has it, without LoRAs.
    pub fn tensor_of_checkpoint(&self, name: &str, shape: &[i64]) -> Tensor {
        self.weights.load(&self.key(name), shape, false)
    }

    /// The update that is learnt of the linear layer at this place; `None` where none is.
    pub fn low_rank(&self, d_in: i64, d_out: i64) -> Option<LowRank> {
        let updates = self.weights.updates.as_ref()?;
        updates.of(&self.prefix, (d_in, d_out), self.weights.device)
    }

    /// Whether the checkpoint has a tensor of this name here.
    pub fn contains(&self, name: &str) -> bool {
        let place = self.weights.place_of(&self.key(name));
        self.weights.entries.contains_key(&place.key)
    }

    /// Shape of the checkpoint's tensor of this name, whatever was expected of it; `None` without one.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        let place = self.weights.place_of(&self.key(name));
        let entry = self.weights.entries.get(&place.key)?;
        Some(&entry.shape)
    }

    /// This place as diffusers' keys spell it.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

impl<'a, T: std::fmt::Display> Div<T> for &WeightPath<'a> {
    type Output = WeightPath<'a>;

    fn div(self, name: T) -> WeightPath<'a> {
        WeightPath {
            weights: self.weights,
            prefix: self.key(&name.to_string()),
        }
    }
}

impl<'a, T: std::fmt::Display> Div<T> for WeightPath<'a> {
    type Output = WeightPath<'a>;

    fn div(self, name: T) -> WeightPath<'a> {
        &self / name
    }
}
