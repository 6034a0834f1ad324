//! Prompt weights, applied to the output of a text encoder.

use tch::{Kind, Tensor};

use crate::tokenizer::prompt_tokens::PromptTokens;

/// Applies weights to the hidden states `[n, S, D]` of the n chunks of a prompt. Returns the chunks one after
/// the other `[1, n S, D]`.
///
/// The rule is that of diffusers' `examples/community/lpw_stable_diffusion_xl.py`: a token's state x with
/// weight w becomes `e + w (x - e)`, where e is the state of the end token of its chunk. States with weight 1
/// are unchanged to the bit. stable-diffusion-webui instead multiplies x itself and restores the mean of all
/// states, so that each weight changes every token.
pub(super) fn weighted(states: &Tensor, tokens: &PromptTokens, encoder: usize) -> Tensor {
    let d = states.size()[2];
    let Some(weights) = tokens.weights(encoder) else {
        return states.reshape([1, -1, d]);
    };
    let n = tokens.num_chunks() as i64;
    let place = |values: Tensor| values.view([n, -1, 1]).to_device(states.device());
    let w = place(Tensor::from_slice(weights)); // [n, S, 1]
    let ends = place(Tensor::from_slice(tokens.ends(encoder))); // [n, 1, 1]
    let x = states.to_kind(Kind::Float);
    let e = x.gather(1, &ends.expand([-1, -1, d], false), false); // [n, 1, D]
    let moved = &e + &w * (&x - &e);
    x.where_self(&w.eq(1.0), &moved)
        .to_kind(states.kind())
        .reshape([1, -1, d])
}
