//! The base images of a subject, which `generate-base` writes and `tune` reads.

use std::path::Path;

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::backbone::ModelFacts;
use crate::error::usage;
use crate::io::json;
use crate::io::lora::{self, LoraFacts};
use crate::io::tensors::TensorFile;

/// Version of the file's layout.
const FORMAT: &str = "oneactor.base/v1";

/// Largest side in pixels, the same as for `--width` and `--height`.
const LARGEST: i64 = 8192;

/// The prompt, the size and the model of the base images.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseFacts {
    /// The target prompt.
    pub prompt: String,
    /// The base words in the prompt: one, or one for each subject of the joint variant.
    pub base_words: Vec<String>,
    /// Size in pixels.
    pub width: i64,
    /// Size in pixels.
    pub height: i64,
    /// The model that drew the images.
    pub model: ModelFacts,
}

/// N base images, without their pixels.
#[derive(Debug)]
pub struct BaseSet {
    /// The facts that all images share.
    pub facts: BaseFacts,
    /// Final latents `[N, 4, H/8, W/8]` f32, as diffusers returns them with
    /// `output_type="latent"`.
    pub latents: Tensor,
    /// h of every image, Eq. (7) `[N, C, h, w]` f32.
    pub encoder_features: Tensor,
    /// The seed of every image; -1 for a photo.
    pub seeds: Vec<i64>,
}

impl BaseSet {
    /// N.
    pub fn num_base_images(&self) -> usize {
        self.seeds.len()
    }

    /// Joins the images of several sets that share the same facts.
    ///
    /// # Errors
    /// When there is no set, or when the facts of two sets differ.
    pub fn cat(parts: &[BaseSet]) -> Result<BaseSet> {
        let first = parts.first().ok_or_else(|| usage("no base images"))?;
        if let Some(other) = parts.iter().find(|part| part.facts != first.facts) {
            return Err(usage(format!(
                "base images with different settings cannot be joined: found {:?} and {:?}",
                first.facts, other.facts
            )));
        }
        let join =
            |f: fn(&BaseSet) -> &Tensor| Tensor::cat(&parts.iter().map(f).collect::<Vec<_>>(), 0);
        Ok(BaseSet {
            facts: first.facts.clone(),
            latents: join(|part| &part.latents),
            encoder_features: join(|part| &part.encoder_features),
            seeds: parts.iter().flat_map(|part| part.seeds.clone()).collect(),
        })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// When a tensor cannot be saved.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut file = TensorFile::default();
        file.insert("latents", &self.latents);
        file.insert("encoder_features", &self.encoder_features);
        file.insert("seeds", &Tensor::from_slice(&self.seeds));
        file.metadata = self.facts.to_metadata();
        file.metadata.insert("format".into(), FORMAT.into());
        file.to_bytes()
    }

    /// Reads `base.safetensors`.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another format, or its tensors do not agree.
    pub fn read(path: &Path) -> Result<BaseSet> {
        let file = TensorFile::read_format(path, "the base set", FORMAT)?;
        let facts = BaseFacts::from_file(&file, path)?;
        let latents = file.get("latents", path)?.to_kind(Kind::Float);
        let encoder_features = file.get("encoder_features", path)?.to_kind(Kind::Float);
        let seeds = file.get("seeds", path)?.to_kind(Kind::Int64);
        let n = seeds.numel() as i64;
        if latents.dim() != 4
            || encoder_features.dim() != 4
            || latents.size()[0] != n
            || encoder_features.size()[0] != n
        {
            return Err(usage(format!(
                "{}: found latents {:?}, encoder_features {:?} and {n} seeds, expected the same number of \
                images and matching sizes",
                path.display(),
                latents.size(),
                encoder_features.size()
            )));
        }
        let mut list = vec![0; n as usize];
        seeds.copy_data(&mut list, n as usize);
        Ok(BaseSet {
            facts,
            latents,
            encoder_features,
            seeds: list,
        })
    }
}

impl BaseFacts {
    /// The facts as text for a file's metadata.
    pub fn to_metadata(&self) -> std::collections::BTreeMap<String, String> {
        let words = match &self.base_words[..] {
            [word] => ("base_word", word.clone()),
            words => ("base_words", serde_json::json!(words).to_string()),
        };
        let mut metadata: std::collections::BTreeMap<String, String> = [
            ("prompt", self.prompt.clone()),
            words,
            ("width", self.width.to_string()),
            ("height", self.height.to_string()),
            ("model", self.model.name.clone()),
            ("model_fingerprint", self.model.fingerprint.clone()),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        if !self.model.loras.is_empty() {
            metadata.insert(
                "loras".into(),
                serde_json::json!(self.model.loras).to_string(),
            );
        }
        metadata
    }

    /// The facts in any file that is made from base images: an actor, or the base set itself.
    ///
    /// # Errors
    /// When the file is missing or damaged, or does not record base images.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_file(&TensorFile::read(path)?, path)
    }

    /// The facts in a file's metadata.
    ///
    /// # Errors
    /// When the metadata does not record base images.
    pub fn from_file(file: &TensorFile, path: &Path) -> Result<Self> {
        let text = |key: &str| file.text(key, path).map(str::to_owned);
        let side = |key: &str| -> Result<i64> {
            let found: i64 = file.number(key, path)?;
            if (8..=LARGEST).contains(&found) && found % 8 == 0 {
                Ok(found)
            } else {
                Err(usage(format!(
                    "{}: metadata {key:?}: found {found}, expected a multiple of 8 from 8 to {LARGEST}",
                    path.display()
                )))
            }
        };
        let loras = file.metadata.get("loras").map_or("[]", String::as_str);
        let loras = json::read(loras).map_err(|problem| {
            usage(format!("{}: metadata \"loras\": {problem}", path.display()))
        })?;
        Ok(BaseFacts {
            prompt: text("prompt")?,
            base_words: match file.list("base_words", path)? {
                Some(words) => words,
                None => vec![text("base_word")?],
            },
            width: side("width")?,
            height: side("height")?,
            model: ModelFacts {
                name: text("model")?,
                fingerprint: text("model_fingerprint")?,
                loras,
            },
        })
    }

    /// A warning if the merged LoRAs differ from those with which `what` was made. That may be intended, to
    /// draw the subject in another style.
    pub fn other_loras(&self, loras: &[LoraFacts], what: &str) -> Option<String> {
        let made_with = &self.model.loras;
        (!lora::are_same(made_with, loras)).then(|| {
            format!(
                "{what} was made with {}, but this run uses {}: the subject may look different",
                lora::describe(made_with),
                lora::describe(loras)
            )
        })
    }

    /// Refuses a model other than the one that drew these images.
    ///
    /// # Errors
    /// When the fingerprints differ. The message names both models.
    pub fn check_model(&self, model: &ModelFacts, what: &str) -> Result<()> {
        if self.model.fingerprint == model.fingerprint {
            return Ok(());
        }
        Err(usage(format!(
            "{what} was made with the model {} ({}), but this run uses {} ({}): use the model {}",
            self.model.name, self.model.fingerprint, model.name, model.fingerprint, self.model.name
        )))
    }
}
