//! An actor: everything that is needed to draw a tuned subject, in one file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::base_set::BaseFacts;
use super::base_word::BaseWordPrompt;
use super::guidance::Offsets;
use super::origin::{BASE_CRC32, Origin, TARGET_IMAGE_CRC32, TargetImage};
use super::projector::{Projector, ProjectorConfig};
use super::templates;
use crate::error::usage;
use crate::io::json;
use crate::io::tensors::TensorFile;

/// Version of the file's layout.
const FORMAT: &str = "oneactor.actor/v1";
/// Prefix of the projector's parameters in the file.
const PROJECTOR: &str = "projector.";

/// A projector and the features that it was tuned on.
pub struct Actor {
    /// The facts of the base images.
    pub facts: BaseFacts,
    /// The kind of the subject.
    pub kind: templates::SubjectKind,
    /// The target among the base images.
    pub target: usize,
    /// The photo, if the target is a photo.
    pub target_image: Option<TargetImage>,
    /// CRC-32 of the file of the base set; files of earlier versions do not record it.
    pub base_crc32: Option<String>,
    /// φ.
    pub projector: Projector,
    /// h of all base images `[N, C, h, w]` f32, followed by h of the photo, if there is one.
    pub encoder_features: Tensor,
    /// Number of tokens of each base word; the sum is W.
    pub tokens_of_words: Vec<i64>,
}

impl Actor {
    /// Eqs. (16) and (17): the target's offset, and the mean of the others' offsets, for the prompt's words
    /// that belong to this actor, in the order and spelling of the prompt. A word of the actor that is not in
    /// the prompt gets no offset, which is possible because φ treats each token separately.
    ///
    /// # Errors
    /// When a word has a different number of tokens in this prompt than in the tuning.
    pub fn offsets(&self, prompt: &BaseWordPrompt) -> Result<Offsets> {
        let (c_b, rows) = self.base_embedding(prompt)?;
        let c_delta = tch::no_grad(|| self.projector.forward(&self.encoder_features, &c_b))
            .index_select(1, &Tensor::from_slice(&rows).to_device(c_b.device())); // [N, W', D]
        let n = c_delta.size()[0];
        let target = self.target as i64;
        let auxiliary: Vec<i64> = (0..n).filter(|&i| i != target).collect();
        let auxiliary = Tensor::from_slice(&auxiliary).to_device(c_delta.device());
        Ok(Offsets {
            target_offset: c_delta.get(target),
            average_offset: c_delta.index_select(0, &auxiliary).mean_dim(
                [0i64].as_slice(),
                false,
                Kind::Float,
            ),
        })
    }

    /// c_b of all this actor's words `[W, D]`, with zeros for the words that are not in the prompt; and the row
    /// indices of the words that are, in the prompt's order.
    fn base_embedding(&self, prompt: &BaseWordPrompt) -> Result<(Tensor, Vec<i64>)> {
        let config = &self.projector.config;
        let here = prompt.base_embedding();
        let tokens_here = prompt.tokens_of_words();
        let of_words = here.split_with_sizes(&tokens_here[..], 0);
        let starts = self.tokens_of_words.iter().scan(0, |next, tokens| {
            *next += tokens;
            Some(*next - tokens)
        });
        let starts: Vec<i64> = starts.collect();
        let c_b = Tensor::zeros(
            [config.num_tokens, config.token_width],
            (Kind::Float, here.device()),
        );
        let mut rows = Vec::new();
        for (i, word) in prompt.words().iter().enumerate() {
            let Some(own) = self.facts.base_words.iter().position(|known| known == word) else {
                continue;
            };
            let tokens = self.tokens_of_words[own];
            if of_words[i].size() != [tokens, config.token_width] {
                return Err(usage(format!(
                    "the base word {word:?} has vectors of shape {:?} here, expected [{tokens}, {}] as in the tuning",
                    of_words[i].size(),
                    config.token_width
                )));
            }
            c_b.narrow(0, starts[own], tokens).copy_(&of_words[i]);
            rows.extend(starts[own]..starts[own] + tokens);
        }
        Ok((c_b, rows))
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// When a tensor cannot be saved.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let origin = Origin {
            facts: self.facts.clone(),
            target_image: self.target_image.clone(),
            base_crc32: self.base_crc32.clone(),
        };
        let mut file = TensorFile {
            metadata: origin.metadata(FORMAT),
            ..TensorFile::default()
        };
        for (name, tensor) in self.projector.parameters() {
            file.insert(&format!("{PROJECTOR}{name}"), tensor);
        }
        file.insert("encoder_features", &self.encoder_features);
        let config = &self.projector.config;
        for (key, value) in [
            ("kind", text_of(&self.kind)?),
            ("target", self.target.to_string()),
            ("head", text_of(&config.head)?),
            ("num_tokens", config.num_tokens.to_string()),
            ("token_width", config.token_width.to_string()),
            (
                "tokens_of_words",
                serde_json::to_string(&self.tokens_of_words)?,
            ),
        ] {
            file.metadata.insert(key.to_string(), value);
        }
        file.to_bytes()
    }

    /// Reads `actor.safetensors` and places it on `device`.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another format.
    pub fn read(path: &Path, device: Device) -> Result<Actor> {
        let file = TensorFile::read_format(path, "the actor", FORMAT)?;
        Actor::from_file(&file, path, device).with_context(|| format!("reading {}", path.display()))
    }

    /// The actor in the contents of the file at `path`.
    ///
    /// # Errors
    /// When a part is missing, or when parts do not fit together.
    pub fn from_file(file: &TensorFile, path: &Path, device: Device) -> Result<Actor> {
        let encoder_features = file
            .get("encoder_features", path)?
            .to_kind(Kind::Float)
            .to_device(device);
        let (n, c, h, w) = encoder_features
            .size4()
            .map_err(|e| usage(format!("encoder_features: {e}")))?;
        if [c, h, w].contains(&0) {
            return Err(usage(format!(
                "encoder_features: found [{n}, {c}, {h}, {w}], expected no dimension to be 0"
            )));
        }
        let config = projector_config(file, path, [c, h, w])?;
        let parameters: BTreeMap<String, Tensor> = file
            .tensors
            .iter()
            .filter_map(|(name, t)| {
                Some((name.strip_prefix(PROJECTOR)?.to_string(), t.shallow_clone()))
            })
            .collect();
        let target_image = match file.metadata.get("target_image") {
            Some(name) => Some(TargetImage {
                name: name.clone(),
                crc32: file.text(TARGET_IMAGE_CRC32, path)?.to_owned(),
            }),
            None => None,
        };
        let target: i64 = file.number("target", path)?;
        if !(0..n).contains(&target) {
            return Err(usage(format!(
                "metadata \"target\": found {target}, expected 0 to {}",
                n - 1
            )));
        }
        let facts = BaseFacts::from_file(file, path)?;
        Ok(Actor {
            tokens_of_words: tokens_of_words(file, path, &facts, config.num_tokens)?,
            facts,
            kind: word(file, path, "kind")?,
            target: target as usize,
            target_image,
            base_crc32: file.metadata.get(BASE_CRC32).cloned(),
            projector: Projector::from_parameters(config, &parameters, device)?,
            encoder_features,
        })
    }
}

/// The configuration of the projector in a file's metadata, for features `[C', h, w]`.
fn projector_config(
    file: &TensorFile,
    path: &Path,
    feature_shape: [i64; 3],
) -> Result<ProjectorConfig> {
    let number = |key: &str, most: i64| -> Result<i64> {
        let found = file.number(key, path)?;
        if !(1..=most).contains(&found) {
            return Err(usage(format!(
                "metadata {key:?}: found {found}, expected 1 to {most}"
            )));
        }
        Ok(found)
    };
    Ok(ProjectorConfig {
        feature_shape,
        num_tokens: number("num_tokens", 1 << 16)?,
        token_width: number("token_width", 1 << 18)?,
        head: word(file, path, "head")?,
    })
}

/// The number of tokens of each base word. Files with one word may lack the list.
fn tokens_of_words(
    file: &TensorFile,
    path: &Path,
    facts: &BaseFacts,
    num_tokens: i64,
) -> Result<Vec<i64>> {
    let found = file.list("tokens_of_words", path)?;
    let found = found.unwrap_or_else(|| vec![num_tokens]);
    let is_possible = |tokens: &i64| (1..=num_tokens).contains(tokens);
    if found.len() != facts.base_words.len()
        || !found.iter().all(is_possible)
        || found.iter().sum::<i64>() != num_tokens
    {
        return Err(usage(format!(
            "metadata \"tokens_of_words\": found {found:?}, expected {} numbers with the sum {num_tokens}",
            facts.base_words.len(),
        )));
    }
    Ok(found)
}

/// Reads an enum from its one word in a file's metadata.
fn word<T: serde::de::DeserializeOwned>(file: &TensorFile, path: &Path, key: &str) -> Result<T> {
    let value = file.text(key, path).map(serde_json::Value::from)?;
    json::from_value(&value)
        .map_err(|problem| usage(format!("{}: metadata {key:?}: {problem}", path.display())))
}

/// The one word that stands for an enum in JSON.
fn text_of<T: serde::Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_value(value)?
        .as_str()
        .unwrap_or_default()
        .to_string())
}
