//! The prompt and the negative prompt of a picture. They are rows of one batch, so they must have the same length.

use anyhow::Result;

use super::prompt::Tokenizers;
use super::{Backbone, Conditioning};
use crate::tokenizer::prompt_tokens::{PromptOptions, PromptTokens};

/// Prompt and negative prompt. The shorter one is padded with empty chunks to the same number of chunks.
#[derive(Clone, Debug)]
pub struct PromptPair {
    /// The prompt.
    pub prompt: PromptTokens,
    /// The negative prompt, or the empty one.
    pub negative: PromptTokens,
    has_negative: bool,
}

impl PromptPair {
    /// Tokenizes both prompts; each word in `whole` stays in one chunk.
    ///
    /// # Errors
    /// When weights cannot be read, or a prompt has too many chunks.
    pub fn new(
        tokenizers: &Tokenizers,
        prompt: &str,
        negative: Option<&str>,
        options: PromptOptions,
        whole: &[&str],
    ) -> Result<PromptPair> {
        let mut pair = PromptPair {
            prompt: tokenizers.tokens(prompt, options, whole)?,
            negative: tokenizers.tokens(negative.unwrap_or(""), options, &[])?,
            has_negative: negative.is_some(),
        };
        let chunks = pair.prompt.num_chunks().max(pair.negative.num_chunks());
        pair.prompt.pad_to(chunks);
        pair.negative.pad_to(chunks);
        Ok(pair)
    }

    /// The empty prompt, encoded with as many chunks as the prompt has.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_empty(
        &self,
        backbone: &Backbone,
        height: i64,
        width: i64,
    ) -> Result<Conditioning> {
        let mut empty = backbone.tokenizers.plain_tokens("")?;
        empty.pad_to(self.prompt.num_chunks());
        Ok(backbone.encode_tokens(&empty, height, width))
    }

    /// The branch without the prompt, ∅: see [`Backbone::encode_negative`].
    pub fn encode_negative(&self, backbone: &Backbone, height: i64, width: i64) -> Conditioning {
        backbone.encode_negative_tokens(&self.negative, self.has_negative, height, width)
    }
}
