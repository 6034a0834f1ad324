//! Semantic interpolation (Fig. 3): how strongly a prompt is meant, beside how strongly it guides.

use tch::{Kind, Tensor};

use crate::backbone::Conditioning;
use crate::models::unet::unet_2d_condition::AddedConditions;

/// `c' = c_∅ + g (c - c_∅)`, from the encoded empty prompt to the prompt and, with g above 1,
/// beyond it. Written as `(1 - g) c_∅ + g c`, which gives both ends to the bit.
///
/// The pooled embedding moves in the same way, so that g of 0 is the empty prompt in all that the
/// U-Net reads; the paper does not speak of it. Sizes stay the prompt's. SD 1.5 and 2.1 have neither.
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
