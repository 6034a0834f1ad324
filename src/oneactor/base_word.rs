//! The base word inside a prompt, and how an offset moves it.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::sdxl::{Backbone, Conditioning};
use crate::tokenizer::prompt_tokens::PromptTokens;

/// A prompt that holds the base word, encoded.
pub struct BaseWordPrompt {
    /// The prompt, one row.
    pub conditioning: Conditioning,
    /// The prompt's embeddings without weights `[1, S, D]`: what the projector was tuned on.
    unweighted: Tensor,
    /// What each text encoder gave of every token.
    encoders: [EncoderPart; 2],
}

/// The columns of c that one text encoder gave, and where the base word stands in them.
struct EncoderPart {
    /// First column.
    start: i64,
    /// Number of columns.
    width: i64,
    /// Places of the word's W tokens, one tensor `[W]` for each time the prompt holds it.
    positions: Vec<Tensor>,
}

impl EncoderPart {
    fn columns(&self, xs: &Tensor) -> Tensor {
        xs.narrow(-1, self.start, self.width)
    }
}

impl BaseWordPrompt {
    /// Encodes `prompt` for a picture of this size, as diffusers reads it.
    ///
    /// # Errors
    /// When the prompt does not hold the word within the limit of tokens.
    pub fn new(
        backbone: &Backbone,
        prompt: &str,
        base_word: &str,
        height: i64,
        width: i64,
    ) -> Result<Self> {
        let tokens = backbone.tokenizers.plain_tokens(prompt)?;
        Self::from_tokens(backbone, &tokens, base_word, height, width)
    }

    /// Encodes a prompt for a picture of this size. A weight on the word acts on the prompt's own
    /// embedding; the offset comes from the embedding without it, and has v for a weight.
    ///
    /// # Errors
    /// When the tokens do not hold the word.
    pub fn from_tokens(
        backbone: &Backbone,
        tokens: &PromptTokens,
        base_word: &str,
        height: i64,
        width: i64,
    ) -> Result<Self> {
        let tensor = |places: &Vec<usize>| {
            let places: Vec<i64> = places.iter().map(|&i| i as i64).collect();
            Tensor::from_slice(&places).to_device(backbone.device())
        };
        let positions = tokens.word_positions(base_word)?;
        let [width_1, width_2] = backbone.token_widths();
        let part = |start: i64, width: i64, positions: &[Vec<usize>]| EncoderPart {
            start,
            width,
            positions: positions.iter().map(tensor).collect(),
        };
        let conditioning = backbone.encode_tokens(tokens, height, width);
        let unweighted = match tokens.is_weighted() {
            true => {
                let unweighted = tokens.without_weights();
                backbone
                    .encode_tokens(&unweighted, height, width)
                    .prompt_embeds
            }
            false => conditioning.prompt_embeds.shallow_clone(),
        };
        Ok(BaseWordPrompt {
            conditioning,
            unweighted,
            encoders: [
                part(0, width_1, &positions[0]),
                part(width_1, width_2, &positions[1]),
            ],
        })
    }

    /// W, the number of tokens that the word is made of.
    pub fn num_tokens(&self) -> i64 {
        self.encoders[0].positions[0].numel() as i64
    }

    /// c_b: the prompt's rows at the base word, where it stands first, without weights `[W, D]` f32.
    pub fn base_embedding(&self) -> Tensor {
        let c = self.unweighted.get(0); // [S, D]
        let rows = self
            .encoders
            .each_ref()
            .map(|part| part.columns(&c).index_select(0, &part.positions[0]));
        Tensor::cat(&rows, -1).to_kind(Kind::Float)
    }

    /// Eqs. (8) and (15): `c_b' = c_b + v c_Δ` wherever the word stands, one row of prompt
    /// embeddings for each row of `semantic_offset [R, W, D]`; v is the offset's own affair.
    /// Differentiable in the offset. Returns `[R, S, D]` in the prompt's precision.
    pub fn shifted(&self, semantic_offset: &Tensor) -> Tensor {
        let c = &self.conditioning.prompt_embeds; // [1, S, D]
        let c_delta = semantic_offset.to_kind(c.kind()); // [R, W, D]
        let rows = c_delta.size()[0];
        let parts = self.encoders.each_ref().map(|part| {
            let (c, c_delta) = (part.columns(c), part.columns(&c_delta));
            let c_prime = c.expand([rows, -1, -1], false);
            part.positions.iter().fold(c_prime, |c_prime, places| {
                c_prime.index_add(1, places, &c_delta)
            })
        });
        Tensor::cat(&parts, -1)
    }
}
