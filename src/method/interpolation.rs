//! Semantic interpolation (Fig. 3): scales the meaning of a prompt, independently of the guidance scale.

use tch::{Kind, Tensor};

use crate::backbone::Conditioning;
use crate::models::unet::unet_2d_condition::AddedConditions;

/// `c' = c_∅ + g (c - c_∅)`, from the encoded empty prompt (g = 0) to the prompt (g = 1) and beyond it (g > 1).
/// Computed as `(1 - g) c_∅ + g c`, which is exact to the bit at g = 0 and g = 1.
///
/// The pooled embedding, which the paper does not mention, is interpolated in the same way, so that with g = 0
/// the U-Net reads exactly the empty prompt. The size conditioning stays that of the prompt. SD 1.5 and 2.1
/// have neither a pooled embedding nor size conditioning.
pub fn interpolated(empty: &Conditioning, prompt: &Conditioning, g: f64) -> Conditioning {
    let between = |empty: &Tensor, prompt: &Tensor| {
        let mixed = empty.to_kind(Kind::Float) * (1.0 - g) + prompt.to_kind(Kind::Float) * g;
        mixed.to_kind(prompt.kind())
    };
    let added = empty.added.as_ref().zip(prompt.added.as_ref());
    Conditioning {
        prompt_embeds: between(&empty.prompt_embeds, &prompt.prompt_embeds),
        added: added.map(|(empty, prompt)| AddedConditions {
            text_embeds: between(&empty.text_embeds, &prompt.text_embeds),
            time_ids: prompt.time_ids.shallow_clone(),
        }),
        image: None,
    }
}
