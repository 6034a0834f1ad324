//! The base words in a prompt, and the offsets that are added to their embeddings.

use std::collections::BTreeSet;

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::backbone::{Backbone, Conditioning};
use crate::tokenizer::prompt_tokens::PromptTokens;

/// An encoded prompt that contains one or more base words.
pub struct BaseWordPrompt {
    /// The encoded prompt, one row.
    pub conditioning: Conditioning,
    words: Vec<String>,
    /// The prompt's embeddings without prompt weights `[1, S, D]`, as the projector was tuned on.
    unweighted: Tensor,
    /// The part of the embeddings that each text encoder made.
    encoders: Vec<EncoderPart>,
}

/// The columns of c that one text encoder made, and the positions of the base words in them.
struct EncoderPart {
    /// First column.
    start: i64,
    /// Number of columns.
    width: i64,
    /// For every word, the positions of its W tokens: one tensor `[W]` for each occurrence in the prompt.
    positions: Vec<Vec<Tensor>>,
}

impl EncoderPart {
    fn columns(&self, xs: &Tensor) -> Tensor {
        xs.narrow(-1, self.start, self.width)
    }
}

impl BaseWordPrompt {
    /// Encodes `prompt` for a picture of this size, in the same way as diffusers.
    ///
    /// # Errors
    /// When the prompt does not contain the word within the token limit.
    pub fn new(
        backbone: &Backbone,
        prompt: &str,
        base_word: &str,
        height: i64,
        width: i64,
    ) -> Result<Self> {
        Self::with_words(backbone, prompt, &[base_word], [height, width])
    }

    /// The same with several base words, for a picture of this height and width. In the other methods, the W
    /// tokens are those of all words, one word after the other.
    ///
    /// # Errors
    /// When the prompt does not contain one of the words within the token limit.
    pub fn with_words(
        backbone: &Backbone,
        prompt: &str,
        base_words: &[impl AsRef<str>],
        size: [i64; 2],
    ) -> Result<Self> {
        let tokens = backbone.tokenizers.plain_tokens(prompt)?;
        Self::from_tokens(backbone, &tokens, base_words, size)
    }

    /// The same from tokens, which may have prompt weights. A weight on a base word scales the prompt's own
    /// embedding. The offset is computed from the embedding without the weight, and is scaled by v.
    ///
    /// # Errors
    /// When the tokens do not contain one of the words.
    pub fn from_tokens(
        backbone: &Backbone,
        tokens: &PromptTokens,
        base_words: &[impl AsRef<str>],
        [height, width]: [i64; 2],
    ) -> Result<Self> {
        let tensor = |places: &Vec<usize>| {
            let places: Vec<i64> = places.iter().map(|&i| i as i64).collect();
            Tensor::from_slice(&places).to_device(backbone.device())
        };
        let mut start = 0;
        let part = |&width: &i64| {
            let part = EncoderPart {
                start,
                width,
                positions: Vec::new(),
            };
            start += width;
            part
        };
        let mut encoders: Vec<EncoderPart> = backbone.token_widths().iter().map(part).collect();
        for word in base_words {
            let places = tokens.word_positions(word.as_ref())?;
            for (encoder, places) in encoders.iter_mut().zip(&places) {
                encoder.positions.push(places.iter().map(tensor).collect());
            }
        }
        let conditioning = backbone.encode_tokens(tokens, height, width);
        let unweighted = if tokens.is_weighted() {
            let unweighted = tokens.without_weights();
            backbone
                .encode_tokens(&unweighted, height, width)
                .prompt_embeds
        } else {
            conditioning.prompt_embeds.shallow_clone()
        };
        Ok(BaseWordPrompt {
            conditioning,
            words: base_words.iter().map(|w| w.as_ref().to_owned()).collect(),
            unweighted,
            encoders,
        })
    }

    /// The base words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The number of tokens of each word.
    pub fn tokens_of_words(&self) -> Vec<i64> {
        let numel = |occurrences: &Vec<Tensor>| occurrences[0].numel() as i64;
        self.encoders[0].positions.iter().map(numel).collect()
    }

    /// W, the number of tokens of all words.
    pub fn num_tokens(&self) -> i64 {
        self.tokens_of_words().iter().sum()
    }

    /// c_b: the prompt's rows at the first occurrence of each base word, without weights, `[W, D]` f32.
    pub fn base_embedding(&self) -> Tensor {
        let c = self.unweighted.get(0); // [S, D]
        let rows = |part: &EncoderPart| {
            let c = part.columns(&c);
            let words = part.positions.iter();
            let rows: Vec<Tensor> = words.map(|times| c.index_select(0, &times[0])).collect();
            Tensor::cat(&rows, 0)
        };
        let columns: Vec<Tensor> = self.encoders.iter().map(rows).collect();
        Tensor::cat(&columns, -1).to_kind(Kind::Float)
    }

    /// Eqs. (8) and (15): `c_b' = c_b + v c_Δ` at all occurrences of the words. Makes one row of prompt
    /// embeddings for each row of `semantic_offset [R, W, D]`, which is already scaled by v. Differentiable in
    /// the offset. Returns `[R, S, D]` in the prompt's precision.
    pub fn shifted(&self, semantic_offset: &Tensor) -> Tensor {
        self.shifted_words(semantic_offset, 0..self.words.len())
    }

    /// The same for only some of the words; the others stay unchanged.
    pub fn shifted_words(&self, semantic_offset: &Tensor, words: std::ops::Range<usize>) -> Tensor {
        let c = &self.conditioning.prompt_embeds; // [1, S, D]
        let c_delta = semantic_offset.to_kind(c.kind()); // [R, W, D]
        let rows = c_delta.size()[0];
        let of_words = c_delta.split_with_sizes(self.tokens_of_words(), 1);
        let shifted = |part: &EncoderPart| {
            let mut c_prime = part.columns(c).expand([rows, -1, -1], false);
            for word in words.clone() {
                let c_delta = part.columns(&of_words[word]);
                for places in &part.positions[word] {
                    c_prime = c_prime.index_add(1, places, &c_delta);
                }
            }
            c_prime
        };
        let parts: Vec<Tensor> = self.encoders.iter().map(shifted).collect();
        Tensor::cat(&parts, -1)
    }

    /// For each word, the positions in c that its offset changes, in ascending order: its tokens in both
    /// encoders, at all occurrences.
    pub fn places(&self) -> Vec<Vec<i64>> {
        let of_word = |word: usize| {
            let tensors = self.encoders.iter().flat_map(|part| &part.positions[word]);
            let places: BTreeSet<i64> = tensors
                .flat_map(|places| Vec::<i64>::try_from(places).expect("places are whole numbers"))
                .collect();
            places.into_iter().collect()
        };
        (0..self.words.len()).map(of_word).collect()
    }
}
