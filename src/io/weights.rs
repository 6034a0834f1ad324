//! The only loader of weights: safetensors files, memory-mapped, checked against the network and
//! back.
//!
//! A network asks for each of its tensors by name and shape, and never fails on the way. Problems
//! are collected and reported together by [`Weights::finish`]: tensors that are missing, misshapen
//! or in an unsupported number format, each with its file and key. Tensors that no network reads
//! are named but do no harm, as in diffusers. A [`FiniteScan`] checks that all values are finite.
//!
//! [`FiniteScan`]: super::finite_scan::FiniteScan

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Div;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::blob::Blob;
use super::component::Component;
use super::finite_scan::{FloatBytes, list};
use super::header::defect;
use super::ldm_names::{LdmNames, LdmPart, LdmPlace, UnetNames};
use super::lora::{LoraSet, LorasOfNetwork};
use super::low_rank::{LowRank, LowRankSet};
use super::mapped::{let_go, map_file};
use super::single_file::is_no_weight;
use super::tensors::shape_of;
use super::upload::{UploadSource, upload};
use crate::error::model;

/// The bytes of one file. A mapping is never unmapped: on a CPU, tensors in the file's own
/// precision use the mapping directly, and a model lives as long as the process.
fn bytes_of(blob: &Blob) -> Result<&'static [u8]> {
    match blob {
        Blob::Embedded { bytes, .. } | Blob::Mapped { bytes, .. } => Ok(bytes),
        Blob::Component(component) => Ok(component.bytes),
        Blob::File(path) => map_file(path),
        Blob::Outline(blob) => bytes_of(blob),
        Blob::Unfetched { name } => Err(model(format!("{name} is not fetched yet"))),
    }
}

/// How much is known about the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Everything.
    FloatBytes,
    /// Names, shapes and number formats: every tensor is checked, and a placeholder is returned for
    /// it.
    Outline,
    /// Nothing: a placeholder is returned for every tensor.
    Nothing,
}

impl Known {
    fn of(blobs: &[Blob]) -> Known {
        match blobs {
            _ if blobs.iter().any(|b| matches!(b, Blob::Unfetched { .. })) => Known::Nothing,
            [Blob::Outline(_), ..] => Known::Outline,
            _ => Known::FloatBytes,
        }
    }
}

/// One tensor of a file, not yet loaded.
struct Entry {
    file: Rc<str>,
    dtype: Dtype,
    shape: Vec<i64>,
    data: &'static [u8],
}

/// What a network has read from its files.
pub struct Read {
    /// The values that were read, for a check that they are finite.
    pub values: Vec<FloatBytes>,
    /// The keys that the network does not need, as the file spells them.
    pub unused: Vec<String>,
}

#[derive(Default)]
struct Problems {
    missing: Vec<String>,
    misshapen: Vec<String>,
    unsupported: Vec<String>,
    non_finite: Vec<String>,
}

/// The weights of one network.
pub struct Weights {
    entries: BTreeMap<String, Entry>,
    /// For a single file, which names its entries differently, the table of diffusers' names.
    component: Option<Arc<Component>>,
    /// LoRAs that are merged into the weights.
    loras: Option<LorasOfNetwork>,
    /// Updates that are learnt beside the weights.
    updates: Option<Rc<LowRankSet>>,
    files: Vec<Rc<str>>,
    used: RefCell<BTreeSet<String>>,
    /// Tensors that may be unused.
    left_out: RefCell<BTreeSet<String>>,
    read: RefCell<Vec<FloatBytes>>,
    problems: RefCell<Problems>,
    known: Known,
    /// Whether all tensors are sent to the device together. On a CPU the mapped files are used
    /// directly.
    goes_together: bool,
    /// Tensors that were sent together and are not used yet, by key.
    uploaded: RefCell<Option<BTreeMap<String, Tensor>>>,
    /// Tensors with merged LoRAs, by the network's key, each with its name in messages.
    merged: RefCell<BTreeMap<String, (String, Tensor)>>,
    device: Device,
    kind: Kind,
}

impl Weights {
    /// Opens the files of one network. Its tensors will be placed on `device` as `kind`.
    ///
    /// # Errors
    /// When a file cannot be read, is not a safetensors file or is cut off, or when two files
    /// contain the same tensor.
    pub fn open(blobs: &[Blob], device: Device, kind: Kind) -> Result<Weights> {
        let known = Known::of(blobs);
        let (blobs, device) = match known {
            Known::FloatBytes => (blobs, device),
            Known::Outline => (blobs, Device::Cpu),
            Known::Nothing => (&[][..], Device::Cpu),
        };
        let mut entries = BTreeMap::new();
        let mut files = Vec::new();
        let component = match blobs {
            [Blob::Component(component)] => Some(Arc::clone(component)),
            [Blob::Outline(blob)] => match &**blob {
                Blob::Component(component) => Some(Arc::clone(component)),
                _ => None,
            },
            _ => None,
        };
        let prefix = component.as_ref().map_or("", |component| component.prefix);
        for blob in blobs {
            let file: Rc<str> = blob.name().into();
            let bytes = bytes_of(blob)?;
            let tensors = SafeTensors::deserialize(bytes).map_err(|_| {
                let defect = defect(bytes);
                model(format!("{file}: {defect}"))
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
            left_out: RefCell::default(),
            read: RefCell::default(),
            problems: RefCell::default(),
            known,
            goes_together: device != Device::Cpu,
            uploaded: RefCell::default(),
            merged: RefCell::default(),
            device,
            kind,
        })
    }

    /// Merges the layers of these LoRAs for the network `component` into its weights when they are
    /// read.
    #[must_use]
    pub fn with_loras(mut self, loras: &Rc<LoraSet>, component: &str) -> Weights {
        let unet = match self.component.as_ref().map(|c| &c.names) {
            Some(LdmNames::Unet(names)) => names.clone(),
            _ => UnetNames::of_diffusers(self.entries.keys().map(String::as_str)),
        };
        self.loras = LorasOfNetwork::new(loras, component, unet);
        if self.known == Known::Nothing
            && let Some(loras) = self.loras.take()
        {
            // Whether the layers fit is not known.
            loras.take_as_used();
        }
        self
    }

    /// Gives layers an update that is learnt.
    #[must_use]
    pub fn with_updates(mut self, updates: Option<Rc<LowRankSet>>) -> Weights {
        self.updates = updates;
        self
    }

    /// The path at which a network's constructor begins to read.
    pub fn root(&self) -> WeightPath<'_> {
        WeightPath {
            weights: self,
            prefix: String::new(),
        }
    }

    /// Marks tensors that a checkpoint may contain and no network needs, such as saved position
    /// indices.
    pub fn allow_unused(&self, suffix: &str) {
        let keys = self
            .entries
            .keys()
            .filter(|key| key.ends_with(suffix))
            .cloned();
        self.left_out.borrow_mut().extend(keys);
    }

    /// Marks all tensors below a module that is not read.
    pub fn allow_unused_below(&self, module: &str) {
        let is_below = |key: &&String| {
            key.strip_prefix(module)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let keys = self.entries.keys().filter(is_below).cloned();
        self.left_out.borrow_mut().extend(keys);
    }

    /// Reports all problems, or returns what was read.
    ///
    /// # Errors
    /// When a tensor was missing, misshapen or in an unsupported number format, or is not finite
    /// after a LoRA was merged.
    pub fn finish(self) -> Result<Read> {
        self.find_non_finite();
        let problems = self.problems.borrow();
        let kinds = [
            ("missing", &problems.missing),
            ("misshapen", &problems.misshapen),
            ("in an unsupported number format", &problems.unsupported),
            ("non-finite", &problems.non_finite),
        ];
        if kinds.iter().all(|(_, list)| list.is_empty()) {
            return Ok(Read {
                unused: self.unused(),
                values: self.read.take(),
            });
        }
        let mut report = format!(
            "the weights do not fit the config: {}",
            self.files.join(", ")
        );
        let unused = self.unused();
        // A missing tensor is often present under another name.
        let kinds = kinds.into_iter().chain([("unused", &unused)]);
        for (kind, found) in kinds.filter(|(_, found)| !found.is_empty()) {
            list(&mut report, kind, found);
        }
        Err(model(report))
    }

    /// Reports the tensors that are not finite after LoRAs were merged; waits for a GPU once.
    fn find_non_finite(&self) {
        let merged = self.merged.borrow();
        // Summing is enough for the check: a sum is finite only if every addend is.
        let sums: Vec<Tensor> = merged.values().map(|(_, t)| t.sum(Kind::Float)).collect();
        if sums.is_empty() {
            return;
        }
        let sums = Tensor::stack(&sums, 0).to_device(Device::Cpu);
        for (i, (name, _)) in (0..).zip(merged.values()) {
            if !sums.double_value(&[i]).is_finite() {
                self.problems.borrow_mut().non_finite.push(name.clone());
            }
        }
    }

    /// The keys that were neither read nor marked as unneeded.
    fn unused(&self) -> Vec<String> {
        let (used, left_out) = (self.used.borrow(), self.left_out.borrow());
        let is_unused = |key: &&String| !used.contains(*key) && !left_out.contains(*key);
        let keys = self.entries.keys().filter(is_unused);
        keys.map(|key| format!("{}{key}", self.prefix())).collect()
    }

    /// The prefix of this network's keys in a single file.
    fn prefix(&self) -> &'static str {
        self.component.as_ref().map_or("", |c| c.prefix)
    }

    /// The key among the entries of the tensor that diffusers calls `key`, and which part of it to
    /// use.
    fn place_of(&self, key: &str) -> LdmPlace {
        let found = self.component.as_ref().and_then(|c| c.names.find(key));
        found.unwrap_or_else(|| LdmPlace {
            key: key.to_owned(),
            part: LdmPart::Whole,
        })
    }

    /// The entry on the device if all entries are sent together. They are sent at the first call,
    /// unless a problem was found before. A whole entry is handed out once, so that its memory is
    /// free as soon as the network does not need it.
    fn uploaded(&self, place: &LdmPlace) -> Option<Tensor> {
        let problems = self.problems.borrow();
        let fits = problems.missing.is_empty()
            && problems.misshapen.is_empty()
            && problems.unsupported.is_empty();
        let mut uploaded = self.uploaded.borrow_mut();
        if uploaded.is_none() && self.goes_together && fits {
            *uploaded = Some(self.upload());
        }
        let all = uploaded.as_mut()?;
        match place.part {
            LdmPart::Whole => all.remove(&place.key),
            _ => all.get(&place.key).map(Tensor::shallow_clone),
        }
    }

    /// Sends all entries that can be weights, except for those marked as unneeded, in the order of
    /// their files. Empty entries are left out, because nothing bounds their shape.
    fn upload(&self) -> BTreeMap<String, Tensor> {
        let left_out = self.left_out.borrow();
        let goes =
            |(key, entry): &(&String, &Entry)| !left_out.contains(*key) && !entry.data.is_empty();
        let mut entries: Vec<_> = self.entries.iter().filter(goes).collect();
        entries.sort_by_key(|(_, entry)| entry.data.as_ptr());
        let source = |(key, entry): (&String, &Entry)| {
            let source = UploadSource {
                data: entry.data,
                shape: entry.shape.clone(),
                kind: floating(entry.dtype)?,
            };
            Some((key.clone(), source))
        };
        let (keys, sources): (Vec<_>, Vec<_>) = entries.into_iter().filter_map(source).unzip();
        let tensors = upload(&sources, self.device, self.kind);
        keys.into_iter().zip(tensors).collect()
    }

    /// The weight `key` of this shape with LoRAs; `None` if no LoRA changes it. On a GPU it takes the place of the
    /// checkpoint's tensor.
    fn merge(
        &self,
        loras: &LorasOfNetwork,
        key: &str,
        shape: &[i64],
        (name, weight): (&str, &dyn Fn() -> Tensor),
    ) -> Option<Tensor> {
        if let Some((_, merged)) = self.merged.borrow().get(key) {
            return Some(merged.shallow_clone());
        }
        let (weight, merged) = loras.merge(key, shape, weight)?;
        let merged = if self.device == Device::Cpu {
            merged.to_kind(self.kind)
        } else {
            let mut weight = weight.to_kind(self.kind);
            weight.copy_(&merged);
            weight
        };
        let named = (name.to_owned(), merged.shallow_clone());
        self.merged.borrow_mut().insert(key.to_owned(), named);
        Some(merged)
    }

    /// The tensor. LoRAs are merged unless `with_loras` is false.
    fn load(&self, key: &str, shape: &[i64], with_loras: bool) -> Tensor {
        // A single number expanded to the shape, however large; no computation uses it.
        let placeholder = || {
            let zero = Tensor::zeros([0i64; 0], (self.kind, self.device));
            zero.expand(shape, false)
        };
        if self.known == Known::Nothing {
            return placeholder();
        }
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
        let is_first = self.used.borrow_mut().insert(place.key.clone());
        let Some(kind) = floating(entry.dtype) else {
            let text = format!(
                "{full} ({}): found {:?}, expected F16, BF16, F32 or F64: convert the file to fp16",
                entry.file, entry.dtype
            );
            self.problems.borrow_mut().unsupported.push(text);
            return placeholder();
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
        if self.known == Known::Outline {
            if let (Some(loras), true) = (&self.loras, with_loras) {
                loras.check(key, shape);
            }
            return placeholder();
        }
        let name = format!("{full} ({})", entry.file);
        let view = || place.part.of(&view(entry, kind), shape);
        let on_device = || match self.uploaded(&place) {
            Some(uploaded) => place.part.of(&uploaded, shape),
            None if self.device == Device::Cpu => view(),
            // First copied to plain memory: page faults inside a copy to the GPU would make it
            // serial.
            None => view().copy().to_device(self.device),
        };
        let merged = match &self.loras {
            Some(loras) if with_loras => self.merge(loras, key, shape, (&name, &on_device)),
            _ => None,
        };
        let is_merged = merged.is_some();
        let tensor = merged.unwrap_or_else(|| on_device().to_kind(self.kind));
        // On a CPU a weight in the file's own precision uses the mapped file. All other weights
        // were copied.
        let stays = self.device == Device::Cpu && !is_merged && kind == self.kind;
        if self.device == Device::Cpu && !stays {
            let_go(entry.data);
        }
        if is_first {
            self.read.borrow_mut().push(FloatBytes {
                name,
                dtype: entry.dtype,
                kind: self.kind,
                data: entry.data,
                stays,
            });
        }
        tensor
    }
}

/// The kind of a number format that is supported for weights.
fn floating(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F64 => Some(Kind::Double),
        _ => None,
    }
}

/// The tensor as it is stored in the file, on the CPU.
fn view(entry: &Entry, kind: Kind) -> Tensor {
    let mut strides = vec![1; entry.shape.len()];
    for i in (1..entry.shape.len()).rev() {
        strides[i - 1] = strides[i] * entry.shape[i];
    }
    // SAFETY: `data` has exactly the bytes for `shape` and `kind` (checked by the parser), lives as
    // long as the process (see `map_file`), and frozen weights are never written to.
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

/// A path inside a network's weights. `&path / "conv_in"` descends like the checkpoint's keys.
#[derive(Clone)]
pub struct WeightPath<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl WeightPath<'_> {
    /// The tensor `name` at this path, of exactly this shape. A tensor that does not fit is
    /// replaced by zeros, which take no memory, and reported by [`Weights::finish`].
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        self.weights.load(&self.key(name), shape, true)
    }

    /// As [`WeightPath::tensor`], but as in the checkpoint, without LoRAs.
    pub fn tensor_of_checkpoint(&self, name: &str, shape: &[i64]) -> Tensor {
        self.weights.load(&self.key(name), shape, false)
    }

    /// The update that is learnt for the linear layer at this path; `None` if it has no update.
    pub fn low_rank(&self, d_in: i64, d_out: i64) -> Option<LowRank> {
        let updates = self.weights.updates.as_ref()?;
        updates.of(&self.prefix, (d_in, d_out), self.weights.device)
    }

    /// Whether the checkpoint has a tensor of this name at this path.
    pub fn contains(&self, name: &str) -> bool {
        let place = self.weights.place_of(&self.key(name));
        self.weights.entries.contains_key(&place.key)
    }

    /// Shape of the checkpoint's tensor of this name; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        let place = self.weights.place_of(&self.key(name));
        let entry = self.weights.entries.get(&place.key)?;
        Some(&entry.shape)
    }

    /// This path in the spelling of diffusers' keys.
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

#[cfg(test)]
mod tests {
    use super::super::tensors::TensorFile;
    use super::*;

    /// A file with weights in two precisions, integers, and a module that is left out.
    fn weights(kind: Kind) -> Weights {
        let mut file = TensorFile::default();
        let numbers = |n, kind| Tensor::arange(n, (kind, Device::Cpu));
        file.insert("whole.weight", &numbers(15, Kind::Float).view([3, 5]));
        file.insert("joint.weight", &numbers(12, Kind::Half).view([6, 2]));
        file.insert("joint.position_ids", &numbers(4, Kind::Int64));
        file.insert("other.weight", &numbers(2, Kind::Float));
        file.insert("other.nothing", &numbers(0, Kind::Float));
        let blob = Blob::Embedded {
            name: "weights.safetensors",
            bytes: Vec::leak(file.to_bytes().expect("known kinds")),
        };
        Weights::open(&[blob], Device::Cpu, kind).expect("a whole file")
    }

    #[test]
    fn on_a_cpu_a_weight_in_its_own_precision_is_the_file() {
        let read = |weights: &Weights| (&weights.root() / "whole").tensor("weight", &[3, 5]);
        let lies_in_the_file = |kind| {
            let weights = weights(kind);
            weights.entries["whole.weight"].data.as_ptr() == read(&weights).data_ptr().cast()
        };
        assert!(lies_in_the_file(Kind::Float));
        assert!(!lies_in_the_file(Kind::Half));
    }

    #[test]
    fn weights_that_go_together_are_those_of_the_file() {
        for kind in [Kind::Float, Kind::Half] {
            let read = |goes_together| {
                let mut weights = weights(kind);
                weights.allow_unused("position_ids");
                weights.allow_unused_below("other");
                weights.goes_together = goes_together;
                let root = weights.root();
                let whole = (&root / "whole").tensor("weight", &[3, 5]);
                let keys = |all: &BTreeMap<String, Tensor>| all.keys().cloned().collect();
                let waiting = weights.uploaded.borrow().as_ref().map(keys);
                let others = vec!["joint.weight".to_owned()];
                assert_eq!(waiting, goes_together.then_some(others));
                // The second time from the file.
                assert_eq!((&root / "whole").tensor("weight", &[3, 5]), whole);
                let read = [whole, (&root / "joint").tensor("weight", &[6, 2])];
                weights.finish().expect("all were read");
                read
            };
            assert_eq!(read(true), read(false));
        }
    }

    #[test]
    fn parts_of_a_single_file_s_tensors_are_those_of_the_file() {
        let numbers = |shape: [i64; 2]| Tensor::arange(12, (Kind::Float, Device::Cpu)).view(shape);
        let mut file = TensorFile::default();
        let joint = "c.transformer.resblocks.0.attn.in_proj_weight";
        file.insert(joint, &numbers([6, 2]));
        file.insert("c.text_projection", &numbers([3, 4]));
        let component = Component {
            path: "model.safetensors".into(),
            bytes: Vec::leak(file.to_bytes().expect("known kinds")),
            prefix: "c.",
            names: LdmNames::OpenClip {
                has_linear_projection: false,
            },
        };
        let blob = Blob::Component(Arc::new(component));
        let read = |goes_together| {
            let open = Weights::open(std::slice::from_ref(&blob), Device::Cpu, Kind::Float);
            let mut weights = open.expect("a whole file");
            weights.goes_together = goes_together;
            let layer = &weights.root() / "text_model.encoder.layers.0.self_attn";
            let third = |name| (&layer / name).tensor("weight", &[2, 2]);
            let thirds = ["q_proj", "k_proj", "v_proj"].map(third);
            let turned = (&weights.root() / "text_projection").tensor("weight", &[4, 3]);
            assert_eq!(weights.uploaded.borrow().is_some(), goes_together);
            weights.finish().expect("all were read");
            (thirds, turned)
        };
        let found = read(true);
        assert_eq!(found, read(false));
        let (thirds, turned) = found;
        assert_eq!(Tensor::cat(&thirds, 0), numbers([6, 2]));
        assert_eq!(turned, numbers([3, 4]).tr());
    }

    #[test]
    fn an_unsupported_number_format_has_its_own_heading() {
        let weights = weights(Kind::Float);
        let _ = (&weights.root() / "joint").tensor("position_ids", &[4]);
        let _ = (&weights.root() / "whole").tensor("weight", &[5, 3]);
        let report = weights.finish().err().expect("two problems").to_string();
        let format = "1 in an unsupported number format:\n    joint.position_ids";
        assert!(report.contains(format), "{report}");
        assert!(report.contains("found I64, expected F16"), "{report}");
        assert!(
            report.contains("1 misshapen:\n    whole.weight"),
            "{report}"
        );
    }

    #[test]
    fn what_does_not_fit_is_not_sent() {
        let mut weights = weights(Kind::Float);
        weights.goes_together = true;
        let _ = (&weights.root() / "whole").tensor("weight", &[5, 3]);
        let _ = (&weights.root() / "joint").tensor("weight", &[6, 2]);
        assert!(weights.uploaded.borrow().is_none());
    }
}
