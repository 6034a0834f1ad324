//! Prompts: from text to tokens to the conditions of the U-Net.

use std::rc::Rc;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::prompt_weights::weighted;
use super::{Backbone, Conditioning, Pipeline};
use crate::error::model;
use crate::io::model_files::ModelFiles;
use crate::models::clip_text_model::{ClipTextConfig, ClipTextModel, ClipTextOutput};
use crate::models::unet::unet_2d_condition::AddedConditions;
use crate::tokenizer::prompt_tokens::{PromptOptions, PromptTokens};
use crate::tokenizer::{ClipTokenizer, folder};

/// Embeddings that replace those of some of a text encoder's tokens.
pub struct Replaced {
    /// Indices of the replaced tokens `[n]`, counted over all chunks.
    pub places: Tensor,
    /// Their new embeddings `[n, D]`.
    pub embeddings: Tensor,
}

/// The tokenizers of all text encoders, one or two. They can be loaded without the networks, so that prompts
/// are checked before large files are read.
pub struct Tokenizers {
    tokenizers: Vec<ClipTokenizer>,
}

impl Tokenizers {
    /// Reads `tokenizer`, and `tokenizer_2` if the pipeline has it.
    ///
    /// # Errors
    /// When a file is missing or cannot be parsed.
    pub fn load(files: &ModelFiles, pipeline: Pipeline) -> Result<Tokenizers> {
        let folders = pipeline.tokenizers().iter();
        let tokenizers: Vec<ClipTokenizer> = folders
            .map(|folder| folder::read(files, folder))
            .collect::<Result<_>>()?;
        let limit = tokenizers[0].model_max_length();
        if tokenizers.iter().any(|t| t.model_max_length() != limit) {
            return Err(model(format!(
                "{}: the two tokenizers have different token limits, expected the same",
                files.name()
            )));
        }
        Ok(Tokenizers { tokenizers })
    }

    /// Whether words were added to any of the tokenizers, as by textual inversion.
    pub fn have_added_words(&self) -> bool {
        self.tokenizers.iter().any(ClipTokenizer::has_added_words)
    }

    /// Refuses the text encoder of tokenizer `i` if it cannot read all tokens of the tokenizer, and returns a
    /// note for the user if there is one.
    ///
    /// # Errors
    /// Names the numbers that do not fit.
    pub fn check_encoder(&self, i: usize, config: &ClipTextConfig) -> Result<Option<String>> {
        let tokenizer = &self.tokenizers[i];
        tokenizer.check_encoder(config.vocab_size, config.max_position_embeddings)?;
        Ok(tokenizer.unused_rows(config.vocab_size))
    }

    /// The model's token limit, including start and end token.
    pub fn model_max_length(&self) -> usize {
        self.tokenizers[0].model_max_length()
    }

    /// Tokenizes the prompt for the text encoders; each word in `whole` stays in one chunk.
    ///
    /// # Errors
    /// When the weights in the prompt cannot be read, or the prompt has too many chunks.
    pub fn tokens(
        &self,
        prompt: &str,
        options: PromptOptions,
        whole: &[&str],
    ) -> Result<PromptTokens> {
        PromptTokens::new(&self.tokenizers, prompt, options, whole)
    }

    /// Tokenizes a prompt without weights and cuts it off at the limit, as in diffusers.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn plain_tokens(&self, prompt: &str) -> Result<PromptTokens> {
        self.tokens(prompt, PromptOptions::default(), &[])
    }
}

impl Backbone {
    /// The conditions of one prompt that is read as in diffusers, see [`Self::encode_tokens`].
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_prompt(&self, prompt: &str, height: i64, width: i64) -> Result<Conditioning> {
        let tokens = self.tokenizers.plain_tokens(prompt)?;
        Ok(self.encode_tokens(&tokens, height, width))
    }

    /// The conditions of one prompt, for a picture of this size, with the chunks one after the other. SDXL: the
    /// penultimate hidden states of both encoders side by side `[1, S, D]`, the projected pooled state of the
    /// second encoder, and the sizes. The pooled state is that of the first chunk, without weights, as in
    /// stable-diffusion-webui and ComfyUI. SD: only the last hidden state of its encoder after the final norm.
    pub fn encode_tokens(&self, tokens: &PromptTokens, height: i64, width: i64) -> Conditioning {
        tch::no_grad(|| self.encode_replaced(tokens, &[], [height, width]))
    }

    /// The same with other embeddings for some tokens: one [`Replaced`] for each text encoder, or none.
    /// Differentiable in these embeddings, through the text encoders.
    pub fn encode_replaced(
        &self,
        tokens: &PromptTokens,
        replaced: &[Replaced],
        [height, width]: [i64; 2],
    ) -> Conditioning {
        let chunks = tokens.num_chunks() as i64;
        let encode = |(i, encoder): (usize, &Rc<ClipTextModel>)| {
            let ids = Tensor::from_slice(tokens.ids(i))
                .view([chunks, -1])
                .to_device(self.device);
            let mut embeddings = encoder.token_embeddings(&ids); // [n, S, D]
            if let Some(Replaced {
                places,
                embeddings: new,
            }) = replaced.get(i)
            {
                let shape = embeddings.size();
                let new = new.to_kind(embeddings.kind());
                embeddings = embeddings
                    .flatten(0, 1)
                    .index_copy(0, places, &new)
                    .view(&shape[..]);
            }
            encoder.forward_embeddings(&ids, embeddings)
        };
        let outputs: Vec<ClipTextOutput> = self
            .text_encoders()
            .iter()
            .enumerate()
            .map(encode)
            .collect();
        if self.pipeline == Pipeline::StableDiffusion {
            return Conditioning {
                prompt_embeds: weighted(&outputs[0].last_hidden_state, tokens, 0), // [1, S, D]
                added: None,
                image: None,
            };
        }
        let penultimate = |i: usize| {
            let states = &outputs[i].hidden_states;
            weighted(&states[states.len() - 2], tokens, i)
        };
        Conditioning {
            prompt_embeds: Tensor::cat(&[penultimate(0), penultimate(1)], -1), // [1, S, D]
            added: Some(AddedConditions {
                text_embeds: outputs[1].pooled.narrow(0, 0, 1), // [1, D']
                time_ids: self.time_ids(height, width),
            }),
            image: None,
        }
    }

    /// The token embeddings of a text encoder for these tokens, without position embeddings `[n, D]` f32.
    pub fn token_embeddings(&self, encoder: usize, ids: &[i64]) -> Tensor {
        let ids = Tensor::from_slice(ids).unsqueeze(0).to_device(self.device);
        let encoder = &self.text_encoders()[encoder];
        tch::no_grad(|| {
            encoder
                .token_embeddings(&ids)
                .squeeze_dim(0)
                .to_kind(Kind::Float)
        })
    }

    /// The branch without a prompt, ∅ in the paper's equations: zeros if no negative prompt is given and the
    /// checkpoint has `force_zeros_for_empty_prompt`; otherwise the negative prompt, or the empty prompt.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_negative(
        &self,
        negative: Option<&str>,
        height: i64,
        width: i64,
    ) -> Result<Conditioning> {
        let tokens = self.tokenizers.plain_tokens(negative.unwrap_or(""))?;
        Ok(self.encode_negative_tokens(&tokens, negative.is_some(), height, width))
    }

    /// The same from tokens, which are those of the empty prompt unless a negative prompt `is_given`.
    pub fn encode_negative_tokens(
        &self,
        tokens: &PromptTokens,
        is_given: bool,
        height: i64,
        width: i64,
    ) -> Conditioning {
        if is_given || !self.force_zeros_for_empty_prompt {
            return self.encode_tokens(tokens, height, width);
        }
        let zeros = |size: &[i64]| Tensor::zeros(size, (self.kind, self.device));
        let (s, d): (usize, i64) = (tokens.ids(0).len(), self.token_widths.iter().sum());
        Conditioning {
            prompt_embeds: zeros(&[1, s as i64, d]),
            added: self.unet_config.pooled_width().map(|d| AddedConditions {
                text_embeds: zeros(&[1, d]),
                time_ids: self.time_ids(height, width),
            }),
            image: None,
        }
    }

    /// Original height and width, no crop, target height and width `[1, 6]`.
    fn time_ids(&self, height: i64, width: i64) -> Tensor {
        let sizes = [height, width, 0, 0, height, width].map(|n| n as f32);
        Tensor::from_slice(&sizes)
            .unsqueeze(0)
            .to_kind(Kind::Float)
            .to_device(self.device)
    }

    /// Width of each text encoder's tokens; the sum is the width of a prompt embedding.
    pub fn token_widths(&self) -> &[i64] {
        &self.token_widths
    }
}
