//! Guidance: which rows each step predicts, and the equation that makes one prediction of theirs.

use tch::Tensor;

use super::Conditioning;
use super::attention_guide::AttentionGuide;

/// How one picture is guided. Steps are counted from 1, as in the paper.
pub trait Guidance {
    /// The U-Net rows of this step, the conditional one last among those of the plain prompt.
    fn conditioning(&self, step: usize) -> &Conditioning;

    /// The row with the prompt, whose features are h. Rows before it are without the prompt, rows after
    /// it with a prompt.
    fn conditional_row(&self, step: usize) -> usize;

    /// One prediction from the rows' predictions, each `[B, C, H, W]` f32.
    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor;

    /// One pass in so many is whole; those between continue from its features. An approximation where
    /// it is more than 1.
    fn feature_reuse(&self) -> usize {
        1
    }

    /// A new guide of attention for one run; `None`: attention is neither changed nor recorded.
    fn attention(&self) -> Option<Box<dyn AttentionGuide + '_>> {
        None
    }

    /// Images that are drawn along with those that were asked for, and are not returned.
    fn companions(&self) -> Option<&Companions> {
        None
    }
}

/// Images of another prompt beside those that were asked for, the same in every run.
pub struct Companions {
    /// Their initial latents `[A, C, H, W]`, of the size of the others.
    pub latents: Tensor,
    /// As many rows as the guidance has at every step, for one of them.
    pub conditioning: Conditioning,
}

/// Classifier-free guidance, Eq. (3): `ε(∅) + s [ε(c) - ε(∅)]`. With s of 1 or less the branch
/// without a prompt is not computed, as in diffusers.
pub struct PlainGuidance {
    conditioning: Conditioning,
    guidance_scale: Option<f64>,
}

impl PlainGuidance {
    /// Guidance from the negative branch to the prompt's.
    pub fn new(negative: &Conditioning, prompt: &Conditioning, guidance_scale: f64) -> Self {
        if guidance_scale <= 1.0 {
            return PlainGuidance {
                conditioning: Conditioning::cat(&[prompt]),
                guidance_scale: None,
            };
        }
        PlainGuidance {
            conditioning: Conditioning::cat(&[negative, prompt]),
            guidance_scale: Some(guidance_scale),
        }
    }
}

impl Guidance for PlainGuidance {
    fn conditioning(&self, _step: usize) -> &Conditioning {
        &self.conditioning
    }

    fn conditional_row(&self, _step: usize) -> usize {
        usize::from(self.guidance_scale.is_some())
    }

    fn combine(&self, _step: usize, rows: &[Tensor]) -> Tensor {
        match (self.guidance_scale, rows) {
            (Some(s), [uncond, cond]) => uncond + (cond - uncond) * s,
            (_, rows) => rows[0].shallow_clone(),
        }
    }
}
