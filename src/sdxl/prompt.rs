//! Prompts: text to tokens to what the U-Net reads.

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{Backbone, Conditioning, Pipeline};
use crate::error::{model, usage};
use crate::io::model_files::ModelFiles;
use crate::models::clip_text_model::{ClipTextModel, ClipTextOutput};
use crate::models::cross_attention::AttentionRequest;
use crate::models::unet_2d_condition::AddedConditions;
use crate::tokenizer::{ClipTokenizer, TokenizedPrompt, TokenizerFiles, WordError};

/// The tokenizers of all text encoders, one or two. They can be loaded without the networks, to check prompts
/// before anything large is read.
pub struct Tokenizers {
    tokenizers: Vec<ClipTokenizer>,
}

impl Tokenizers {
    /// Reads `tokenizer`, and `tokenizer_2` where the pipeline has it.
    ///
    /// # Errors
    /// When a file is missing or does not parse.
    pub fn load(files: &ModelFiles, pipeline: Pipeline) -> Result<Tokenizers> {
        let load = |folder: &&str| {
            let optional = |file: &str| files.optional_text(&format!("{folder}/{file}"));
            ClipTokenizer::new(&TokenizerFiles {
                vocab: &files.text(&format!("{folder}/vocab.json"))?,
                merges: &files.text(&format!("{folder}/merges.txt"))?,
                special_tokens_map: optional("special_tokens_map.json")?.as_deref(),
                tokenizer_config: optional("tokenizer_config.json")?.as_deref(),
            })
            .with_context(|| format!("loading {folder} of {}", files.name()))
        };
        let tokenizers: Vec<ClipTokenizer> = pipeline
            .tokenizers()
            .iter()
            .map(load)
            .collect::<Result<_>>()?;
        let limit = tokenizers[0].model_max_length();
        if tokenizers.iter().any(|t| t.model_max_length() != limit) {
            return Err(model(format!(
                "{}: its two tokenizers have different limits",
                files.name()
            )));
        }
        Ok(Tokenizers { tokenizers })
    }

    /// The model's limit, start and end token included.
    pub fn model_max_length(&self) -> usize {
        self.tokenizers[0].model_max_length()
    }

    /// The prompt as each text encoder reads it.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, prompt: &str) -> Result<Vec<TokenizedPrompt>> {
        self.tokenizers.iter().map(|t| t.encode(prompt)).collect()
    }

    /// The end of the prompt that the limit cuts off, if it does.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn lost_text<'a>(&self, prompt: &'a str) -> Result<Option<&'a str>> {
        Ok(self.tokenizers[0]
            .encode(prompt)?
            .cut_at
            .and_then(|at| prompt.get(at..)))
    }

    /// Places of the base word's W tokens among the prompt's, for each text encoder and for each
    /// time the prompt holds the word. SDXL's two differ behind a "!", which SDXL's second tokenizer
    /// uses for padding and therefore never joins with its neighbours.
    ///
    /// # Errors
    /// When the prompt does not hold the word, or only behind the limit; the message names both.
    pub fn word_positions(&self, prompt: &str, word: &str) -> Result<Vec<Vec<Vec<usize>>>> {
        let places = |tokenizer: &ClipTokenizer| {
            tokenizer.word_positions(prompt, word).map_err(|e| match e.downcast_ref::<WordError>() {
                Some(WordError::Missing) => usage(format!("prompt {prompt:?}: the base word {word:?} is not in it")),
                Some(WordError::CutOff) => usage(format!(
                    "prompt {prompt:?}: the base word {word:?} lies behind the limit of {} tokens; move it forward or shorten the prompt",
                    tokenizer.model_max_length()
                )),
                None => e,
            })
        };
        let mut found: Vec<_> = self.tokenizers.iter().map(places).collect::<Result<_>>()?;
        // The limit may cut the last occurrence off for one of them only.
        let times = found.iter().map(Vec::len).min().unwrap_or(0);
        found.iter_mut().for_each(|places| places.truncate(times));
        if let [first, second] = &found[..]
            && first[0].len() != second[0].len()
        {
            return Err(model(format!(
                "the two tokenizers make {} and {} tokens of {word:?}; choose another base word",
                first[0].len(),
                second[0].len()
            )));
        }
        Ok(found)
    }
}

impl Backbone {
    /// What the U-Net reads of one prompt, for a picture of this size. SDXL: penultimate hidden
    /// states of both encoders side by side `[1, S, D]`, the second one's projected pooled state, the
    /// sizes. SD: the last hidden state of its encoder behind the final norm, and nothing besides.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_prompt(&self, prompt: &str, height: i64, width: i64) -> Result<Conditioning> {
        let tokenized = self.tokenizers.encode(prompt)?;
        let encode = |(encoder, tokens): (&ClipTextModel, &TokenizedPrompt)| {
            let ids = Tensor::from_slice(&tokens.ids)
                .unsqueeze(0)
                .to_device(self.device);
            tch::no_grad(|| encoder.forward(&ids))
        };
        let outputs: Vec<ClipTextOutput> = self
            .text_encoders
            .iter()
            .zip(&tokenized)
            .map(encode)
            .collect();
        if self.pipeline == Pipeline::StableDiffusion {
            return Ok(Conditioning {
                prompt_embeds: outputs[0].last_hidden_state.shallow_clone(), // [1, S, D]
                added: None,
                request: AttentionRequest::default(),
            });
        }
        let penultimate = |i: usize| {
            let states = &outputs[i].hidden_states;
            &states[states.len() - 2]
        };
        Ok(Conditioning {
            prompt_embeds: Tensor::cat(&[penultimate(0), penultimate(1)], -1), // [1, S, D]
            added: Some(AddedConditions {
                text_embeds: outputs[1].pooled.shallow_clone(), // [1, D']
                time_ids: self.time_ids(height, width),
            }),
            request: AttentionRequest::default(),
        })
    }

    /// The branch without a prompt, ∅ in the paper's equations: zeros where no negative prompt is
    /// given and the checkpoint says `force_zeros_for_empty_prompt`; else the negative prompt, or
    /// the empty one.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_negative(
        &self,
        negative: Option<&str>,
        height: i64,
        width: i64,
    ) -> Result<Conditioning> {
        let encoded = self.encode_prompt(negative.unwrap_or(""), height, width)?;
        if negative.is_some() || !self.force_zeros_for_empty_prompt {
            return Ok(encoded);
        }
        Ok(Conditioning {
            prompt_embeds: encoded.prompt_embeds.zeros_like(),
            added: encoded.added.map(|added| AddedConditions {
                text_embeds: added.text_embeds.zeros_like(),
                time_ids: added.time_ids,
            }),
            request: AttentionRequest::default(),
        })
    }

    /// Original height and width, no crop, target height and width `[1, 6]`.
    fn time_ids(&self, height: i64, width: i64) -> Tensor {
        let sizes = [height, width, 0, 0, height, width].map(|n| n as f32);
        Tensor::from_slice(&sizes)
            .unsqueeze(0)
            .to_kind(Kind::Float)
            .to_device(self.device)
    }

    /// Widths of the text encoders' tokens; their sum is the width of a prompt embedding.
    pub fn token_widths(&self) -> &[i64] {
        &self.token_widths
    }
}
