//! Cluster-conditioned guidance (Sec. 3.3).

use anyhow::Result;
use tch::Tensor;

use super::base_word::BaseWordPrompt;
use crate::error::usage;
use crate::sdxl::Conditioning;
use crate::sdxl::denoise::{Guidance, PlainGuidance};

/// How a picture is drawn with an actor; the paper's values are the default.
#[derive(Clone, Debug, PartialEq)]
pub struct GuidanceSettings {
    /// v, Eq. (15): how much of the target's offset is added.
    pub semantic_scale: f64,
    /// The same for the average offset. Eq. (19) read literally does not scale it.
    pub average_scale: f64,
    /// η1: attraction to the target's sub-cluster.
    pub eta_1: f64,
    /// η2: exclusion from the auxiliary ones.
    pub eta_2: f64,
    /// First and last guided step, counted from 1.
    pub guided_steps: (usize, usize),
    /// Scale of plain guidance on all other steps.
    pub guidance_scale: f64,
}

impl Default for GuidanceSettings {
    fn default() -> Self {
        GuidanceSettings {
            semantic_scale: 0.8,
            average_scale: 1.0,
            eta_1: 8.5,
            eta_2: 1.0,
            guided_steps: (1, 20),
            guidance_scale: 7.5,
        }
    }
}

/// The offsets of one actor for one prompt, f32.
#[derive(Debug)]
pub struct Offsets {
    /// c_Δ^tar, Eq. (16) `[W, D]`.
    pub target_offset: Tensor,
    /// c_Δ^aver, Eq. (17) `[W, D]`.
    pub average_offset: Tensor,
}

/// Eq. (19) on the guided steps, Eq. (3) on the others.
pub struct ClusterGuidance {
    guided: Conditioning,
    plain: PlainGuidance,
    settings: GuidanceSettings,
}

impl ClusterGuidance {
    /// Guidance for `prompt` against `negative`, the branch ∅. With `eta_2` 0 the average branch
    /// does not exist and every step costs what plain guidance costs.
    ///
    /// # Errors
    /// When the offsets are not of the prompt's width and number of tokens.
    pub fn new(
        negative: &Conditioning,
        prompt: &BaseWordPrompt,
        offsets: &Offsets,
        settings: &GuidanceSettings,
    ) -> Result<Self> {
        let expected = prompt.base_embedding().size();
        for offset in [&offsets.target_offset, &offsets.average_offset] {
            if offset.size() != expected {
                return Err(usage(format!(
                    "an offset of shape {:?} does not fit the prompt's base word, expected {expected:?}",
                    offset.size()
                )));
            }
        }
        let c = &prompt.conditioning;
        let branch = |offset: &Tensor, scale: f64| {
            c.with_prompt_embeds(
                prompt.shifted(
                    &(offset * scale)
                        .to_device(c.prompt_embeds.device())
                        .unsqueeze(0),
                ),
            )
        };
        let target = branch(&offsets.target_offset, settings.semantic_scale); // c + v c_Δ^tar
        let average = branch(&offsets.average_offset, settings.average_scale); // c + c_Δ^aver
        let guided = match settings.eta_2 == 0.0 {
            true => Conditioning::cat(&[negative, &target]),
            false => Conditioning::cat(&[negative, &target, &average]),
        };
        Ok(ClusterGuidance {
            guided,
            plain: PlainGuidance::new(negative, c, settings.guidance_scale),
            settings: settings.clone(),
        })
    }

    fn is_guided(&self, step: usize) -> bool {
        let (first, last) = self.settings.guided_steps;
        (first..=last).contains(&step)
    }
}

impl Guidance for ClusterGuidance {
    fn conditioning(&self, step: usize) -> &Conditioning {
        if self.is_guided(step) {
            &self.guided
        } else {
            self.plain.conditioning(step)
        }
    }

    fn conditional_row(&self, step: usize) -> usize {
        if self.is_guided(step) {
            1
        } else {
            self.plain.conditional_row(step)
        }
    }

    /// Eq. (19): `ε = ε(∅) + η1 [ε(c + v c_Δ^tar) - ε(∅)] - η2 [ε(c + c_Δ^aver) - ε(∅)]`.
    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor {
        let (eta_1, eta_2) = (self.settings.eta_1, self.settings.eta_2);
        match rows {
            _ if !self.is_guided(step) => self.plain.combine(step, rows),
            [eps, eps_tar, eps_aver] => eps + (eps_tar - eps) * eta_1 - (eps_aver - eps) * eta_2,
            [eps, eps_tar] => eps + (eps_tar - eps) * eta_1,
            _ => unreachable!("a guided step has two or three rows"),
        }
    }
}
