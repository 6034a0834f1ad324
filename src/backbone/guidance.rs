//! Guidance: which rows each step predicts, and the equation that makes one prediction of theirs.

use tch::Tensor;

use super::Conditioning;
use crate::models::unet::cross_attention::TokenMask;
use crate::models::unet::shared_attention::SharedPositions;

/// How one picture is guided. Steps are counted from 1, as in the paper.
pub trait Guidance {
    /// The U-Net rows of this step, the conditional one last among those of the plain prompt.
    fn conditioning(&self, step: usize) -> &Conditioning;

    /// Which of those rows has the prompt: its features are h. The rows before it are without the
    /// prompt, those after it with one.
    fn conditional_row(&self, step: usize) -> usize;

    /// One prediction from the rows' predictions, each `[B, C, H, W]` f32.
    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor;

    /// Every how many passes one is whole; those between go on from its features. An approximation
    /// where it is more than 1.
    fn feature_reuse(&self) -> usize {
        1
    }

    /// How this guidance looks at attention and changes it; most do neither.
    fn attention(&self) -> Option<&dyn AttentionGuide> {
        None
    }

    /// Images that are drawn along with those that are asked for, and are not given back.
    fn companions(&self) -> Option<&Companions> {
        None
    }
}

/// Images of another prompt beside those that are asked for, the same ones in every run.
pub struct Companions {
    /// Their initial latents `[A, C, H, W]`, of the size of the others.
    pub latents: Tensor,
    /// As many rows as the guidance has at every step, for one of them.
    pub conditioning: Conditioning,
}

/// A guidance that goes by what attention was before: it masks cross-attention, or shares
/// self-attention between images. Step 0 is a look at the picture before anything is drawn; it changes
/// nothing else.
pub trait AttentionGuide {
    /// Called as a run begins, with the initial latents of all images `[B, C, H, W]`, companions
    /// last, and the number of steps.
    fn begin(&self, _initial_latents: &Tensor, _steps: usize) {}

    /// The single row that step 0 passes, at the timestep of step 1; `None`: there is no step 0.
    fn first_look(&self) -> Option<&Conditioning> {
        None
    }

    /// Places of the tokens whose maps [`observe`](Self::observe) is to be shown after each pass of
    /// this step, as they stand in the conditional row of the companions, or of all images where there
    /// are none; `None` where no maps are needed.
    fn watched(&self, step: usize) -> Option<&Tensor>;

    /// Takes the maps of all cross-attention layers `[B, T, h, w]` f32 of that row, for latents of
    /// this height and width.
    fn observe(&self, step: usize, maps: &[Tensor], latent_size: [i64; 2]);

    /// Which tokens answer where at this step, in the rows of all B images.
    fn mask(&self, _step: usize) -> Option<TokenMask> {
        None
    }

    /// ν where this step's queries in the decoder's self-attention come to that part from a pass of
    /// the same latents in which nothing is shared, which is made first.
    fn vanilla_queries(&self, _step: usize) -> Option<f64> {
        None
    }

    /// What images share in the decoder's self-attention at this step; asked for when the pass above,
    /// if there is one, has been observed.
    fn shared(&self, _step: usize) -> Option<SharedPositions> {
        None
    }
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
