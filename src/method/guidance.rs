//! Cluster-conditioned guidance (Sec. 3.3).

use anyhow::Result;
use serde::Serialize;
use tch::Tensor;

use super::base_word::BaseWordPrompt;
use super::regions::Regions;
use crate::backbone::Conditioning;
use crate::backbone::attention_guide::AttentionGuide;
use crate::backbone::guidance::{Guidance, PlainGuidance};
use crate::error::usage;

/// Settings of drawing with an actor. The paper's values are the defaults.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuidanceSettings {
    /// v, Eq. (15): scale of the target's offset.
    pub semantic_scale: f64,
    /// Scale of the average offset. Eq. (19) as printed has no such scale.
    pub average_scale: f64,
    /// η1: strength of the pull towards the target's sub-cluster.
    pub eta_1: f64,
    /// η2: strength of the push away from the auxiliary sub-clusters.
    pub eta_2: f64,
    /// First and last guided step, counted from 1.
    pub guided_steps: (usize, usize),
    /// Scale of plain guidance on all other steps.
    pub guidance_scale: f64,
}

impl GuidanceSettings {
    /// The paper's values (Sec. 4).
    pub const PAPER: Self = GuidanceSettings {
        semantic_scale: 0.8,
        average_scale: 1.0,
        eta_1: 8.5,
        eta_2: 1.0,
        guided_steps: (1, 20),
        guidance_scale: 7.5,
    };
}

impl Default for GuidanceSettings {
    fn default() -> Self {
        Self::PAPER
    }
}

/// The offsets of one or several actors for one prompt, f32.
#[derive(Debug)]
pub struct Offsets {
    /// c_Δ^tar, Eq. (16) `[W, D]`.
    pub target_offset: Tensor,
    /// c_Δ^aver, Eq. (17) `[W, D]`.
    pub average_offset: Tensor,
}

impl Offsets {
    /// The offsets of several actors, in the order of the prompt's words.
    pub fn cat(parts: &[Offsets]) -> Offsets {
        let join =
            |f: fn(&Offsets) -> &Tensor| Tensor::cat(&parts.iter().map(f).collect::<Vec<_>>(), 0);
        Offsets {
            target_offset: join(|part| &part.target_offset),
            average_offset: join(|part| &part.average_offset),
        }
    }
}

/// Eq. (19) on the guided steps, Eq. (3) on the others.
pub struct ClusterGuidance {
    guided: Conditioning,
    plain: PlainGuidance,
    settings: GuidanceSettings,
    /// The regions in which the offsets act; `None` means the whole picture.
    regions: Option<Regions>,
}

impl ClusterGuidance {
    /// Guidance for `prompt` against `negative`, the branch ∅. With `eta_2` 0 there is no average branch, and a
    /// step takes as long as with plain guidance.
    ///
    /// # Errors
    /// When the offsets do not have the prompt's width and number of tokens.
    pub fn new(
        negative: &Conditioning,
        prompt: &BaseWordPrompt,
        offsets: &Offsets,
        settings: &GuidanceSettings,
    ) -> Result<Self> {
        let embeds = branches(prompt, offsets, settings, |offset| prompt.shifted(offset))?;
        Ok(Self::from_branches(negative, prompt, &embeds, settings))
    }

    /// The same, with each word's offset confined to the mask of its subject (the paper's independent variant).
    /// Inside the mask, cross-attention uses the word's key and value with the offset; outside, those without.
    /// This holds for the target's row and for the average's row. `placed` says for each word of the prompt
    /// whether it has a mask; the offset of a word without a mask (a style) acts everywhere.
    ///
    /// # Errors
    /// The same as for [`ClusterGuidance::new`].
    pub fn with_regions(
        negative: &Conditioning,
        (prompt, placed): (&BaseWordPrompt, &[bool]),
        offsets: &Offsets,
        settings: &GuidanceSettings,
    ) -> Result<Self> {
        let embeds = branches(prompt, offsets, settings, |offset| {
            Regions::both_states(prompt, placed, offset)
        })?;
        let rows = embeds.len() + 1;
        Ok(ClusterGuidance {
            regions: Some(Regions::new(prompt, placed, rows, settings.guided_steps)),
            ..Self::from_branches(negative, prompt, &embeds, settings)
        })
    }

    /// Guidance with these prompt embeddings `[1, S, D]` of the branches that have the prompt.
    fn from_branches(
        negative: &Conditioning,
        prompt: &BaseWordPrompt,
        embeds: &[Tensor],
        settings: &GuidanceSettings,
    ) -> Self {
        let c = &prompt.conditioning;
        // Tokens that only the branches with the prompt have are zeros in the branch without it.
        let missing = embeds[0].size()[1] - negative.prompt_embeds.size()[1];
        let empty =
            negative.with_prompt_embeds(negative.prompt_embeds.constant_pad_nd([0, 0, 0, missing]));
        let branches = embeds
            .iter()
            .map(|e| c.with_prompt_embeds(e.shallow_clone()));
        let branches: Vec<Conditioning> = branches.collect();
        let rows: Vec<&Conditioning> = std::iter::once(&empty).chain(&branches).collect();
        ClusterGuidance {
            guided: Conditioning::cat(&rows),
            plain: PlainGuidance::new(negative, c, settings.guidance_scale),
            settings: settings.clone(),
            regions: None,
        }
    }

    /// Masks `[B, G, H, W]` of the subjects at the last guided step, ones and zeros, in the order of the
    /// prompt's words that have a mask. `None` if offsets act everywhere, or before anything is drawn.
    pub fn masks(&self) -> Option<Tensor> {
        self.regions.as_ref().and_then(Regions::masks)
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

    fn attention(&self) -> Option<Box<dyn AttentionGuide + '_>> {
        let regions = self.regions.as_ref();
        regions.map(|regions| Box::new(regions) as Box<dyn AttentionGuide>)
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

/// Prompt embeddings of the target's branch, `c + v c_Δ^tar`, and, unless `eta_2` is 0, of the average branch,
/// `c + c_Δ^aver`. `embeds` adds a scaled offset `[1, W, D]` to the prompt.
fn branches(
    prompt: &BaseWordPrompt,
    offsets: &Offsets,
    settings: &GuidanceSettings,
    embeds: impl Fn(&Tensor) -> Tensor,
) -> Result<Vec<Tensor>> {
    let c_b = prompt.base_embedding();
    let branch = |offset: &Tensor, scale: f64| {
        if offset.size() != c_b.size() {
            return Err(usage(format!(
                "an offset of shape {:?} does not fit the prompt's base word, expected {:?}",
                offset.size(),
                c_b.size()
            )));
        }
        Ok(embeds(
            &(offset * scale).to_device(c_b.device()).unsqueeze(0),
        ))
    };
    let target = branch(&offsets.target_offset, settings.semantic_scale)?;
    let average = branch(&offsets.average_offset, settings.average_scale)?;
    Ok(if settings.eta_2 == 0.0 {
        vec![target]
    } else {
        vec![target, average]
    })
}
