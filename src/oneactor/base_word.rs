//! The base word inside a prompt, and how an offset moves it.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::sdxl::{Conditioning, Sdxl};

/// A prompt that holds the base word, encoded.
pub struct BaseWordPrompt {
    /// The prompt, one row.
    pub conditioning: Conditioning,
    /// Places of the word's W tokens, one list for each time the prompt holds it.
    positions: Vec<Vec<i64>>,
}

impl BaseWordPrompt {
    /// Encodes `prompt` for a picture of this size.
    ///
    /// # Errors
    /// When the prompt does not hold the word within the limit of tokens.
    pub fn new(sdxl: &Sdxl, prompt: &str, base_word: &str, height: i64, width: i64) -> Result<Self> {
        let positions = sdxl.tokenizers.word_positions(prompt, base_word)?;
        let positions = positions.iter().map(|p| p.iter().map(|&i| i as i64).collect()).collect();
        Ok(BaseWordPrompt { conditioning: sdxl.encode_prompt(prompt, height, width)?, positions })
    }

    /// W, the number of tokens that the word is made of.
    pub fn num_tokens(&self) -> i64 {
        self.positions[0].len() as i64
    }

    /// c_b: the prompt's rows at the base word, where it stands first `[W, D]` f32.
    pub fn base_embedding(&self) -> Tensor {
        let embeds = &self.conditioning.prompt_embeds;
        let places = Tensor::from_slice(&self.positions[0]).to_device(embeds.device());
        embeds.get(0).index_select(0, &places).to_kind(Kind::Float)
    }

    /// Eqs. (8) and (15): `c_b' = c_b + v c_Δ` wherever the word stands, one row of prompt
    /// embeddings for each row of `semantic_offset [R, W, D]`; v is the offset's own affair.
    /// Differentiable in the offset. Returns `[R, S, D]` in the prompt's precision.
    pub fn shifted(&self, semantic_offset: &Tensor) -> Tensor {
        let c = &self.conditioning.prompt_embeds; // [1, S, D]
        let c_delta = semantic_offset.to_kind(c.kind()); // [R, W, D]
        let (_, s, d) = c.size3().expect("prompt embeddings have three axes");
        let mut c_prime = c.expand([c_delta.size()[0], s, d], false);
        for places in &self.positions {
            let places = Tensor::from_slice(places).to_device(c.device());
            c_prime = c_prime.index_add(1, &places, &c_delta);
        }
        c_prime
    }
}
