//! Guidance: the rows that each step predicts, and the equation that combines their predictions to one.

use tch::Tensor;

use super::Conditioning;
use super::attention_guide::AttentionGuide;

/// The guidance of a picture. Steps are counted from 1, as in the paper.
pub trait Guidance {
    /// The U-Net rows of this step, the conditional one last among those of the plain prompt.
    fn conditioning(&self, step: usize) -> &Conditioning;

    /// The row with the prompt, whose features are h. Rows before it are without the prompt, rows after
    /// it with a prompt.
    fn conditional_row(&self, step: usize) -> usize;

    /// Combines the rows' predictions, each `[B, C, H, W]` f32, to one prediction.
    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor;

    /// Only every N-th pass is whole, where N is this number; the passes between reuse its features. With more
    /// than 1 this is an approximation.
    fn feature_reuse(&self) -> usize {
        1
    }

    /// A new attention guide for one run; with `None` attention is neither changed nor recorded.
    fn attention(&self) -> Option<Box<dyn AttentionGuide + '_>> {
        None
    }

    /// Images that are drawn together with the requested images and are not returned.
    fn companions(&self) -> Option<&Companions> {
        None
    }
}

/// Images of another prompt that are drawn together with the requested images, the same in every run.
pub struct Companions {
    /// Their initial latents `[A, C, H, W]`, with the size of the other images.
    pub latents: Tensor,
    /// The rows of one companion, as many as the guidance has at every step.
    pub conditioning: Conditioning,
}

/// Classifier-free guidance, Eq. (3): `ε(∅) + s [ε(c) - ε(∅)]`. With s of 1 or less the branch
/// without a prompt is not computed, as in diffusers.
pub struct PlainGuidance {
    conditioning: Conditioning,
    guidance_scale: Option<f64>,
}

impl PlainGuidance {
    /// Guidance from the negative branch towards the prompt's branch.
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

/// A guidance whose predictions are rescaled to the standard deviation of the conditional row (arXiv
/// 2305.08891, Sec. 3.4).
pub struct RescaledGuidance<'a> {
    /// The guidance.
    pub guidance: &'a dyn Guidance,
    /// φ from 0 (no rescaling) to 1.
    pub phi: f64,
}

impl Guidance for RescaledGuidance<'_> {
    fn conditioning(&self, step: usize) -> &Conditioning {
        self.guidance.conditioning(step)
    }

    fn conditional_row(&self, step: usize) -> usize {
        self.guidance.conditional_row(step)
    }

    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor {
        let guided = self.guidance.combine(step, rows);
        rescaled(&guided, &rows[self.conditional_row(step)], self.phi)
    }

    fn feature_reuse(&self) -> usize {
        self.guidance.feature_reuse()
    }

    fn attention(&self) -> Option<Box<dyn AttentionGuide + '_>> {
        self.guidance.attention()
    }

    fn companions(&self) -> Option<&Companions> {
        self.guidance.companions()
    }
}

/// arXiv 2305.08891, Eqs. 15 and 16: `φ x σ(c) / σ(x) + (1 - φ) x` for a guided prediction x and the prediction
/// c of the prompt `[B, C, H, W]`, with the standard deviation σ over each image.
fn rescaled(guided: &Tensor, conditional: &Tensor, phi: f64) -> Tensor {
    let deviation = |x: &Tensor| x.std_dim([1i64, 2, 3].as_slice(), true, true);
    let factor = deviation(conditional) / deviation(guided);
    guided * (factor * phi + (1.0 - phi))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rescale_noise_cfg` of diffusers 0.42.1 for two images. f32 rounds values of up to 17 by 1e-6.
    #[test]
    fn a_prediction_is_rescaled_as_in_diffusers() {
        let image = |values: [f32; 8]| Tensor::from_slice(&values).view([2, 1, 2, 2]);
        let negative = image([0.1, -0.4, 0.3, 0.8, 1.0, 0.5, -0.25, 0.75]);
        let prompt = image([0.5, -0.2, -0.6, 1.0, 0.25, -1.5, 2.0, 0.5]);
        let guided = &negative + (&prompt - &negative) * 7.5;
        let expected = image([
            1.283_034_9,
            0.455_270_47,
            -2.669_540_6,
            0.951_929_15,
            -1.745_051_1,
            -5.470_971,
            6.272_751,
            -0.424_471_9,
        ]);
        let found = rescaled(&guided, &prompt, 0.7);
        let error = (found - expected).abs().max().double_value(&[]);
        assert!(error < 2e-6, "{error}");
        assert_eq!(rescaled(&guided, &prompt, 0.0), guided);
    }
}
