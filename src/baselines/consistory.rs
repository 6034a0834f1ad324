//! ConsiStory (arXiv 2402.03286): images that are drawn together share self-attention in the regions of their
//! subject. Reimplemented from the paper; nothing is tuned.
//!
//! Every step, in the self-attention of the decoder (Sec. 3.1, subject-driven self-attention, SDSA):
//!
//! ```text
//! K⁺ = [K_1 ⊕ … ⊕ K_N]    V⁺ = [V_1 ⊕ … ⊕ V_N]
//! M_i⁺ = [M_1 ⊕ … ⊕ M_{i-1} ⊕ 1 ⊕ M_{i+1} ⊕ … ⊕ M_N]
//! h_i = softmax(Q_i K⁺ᵀ / √d + log M_i⁺) V⁺
//! ```
//!
//! where M_j is the mask of image j's subject: the cross-attention of its base word, averaged over layers and
//! over all passes so far, split by Otsu's threshold. To keep layouts different (Sec. 3.2), each image sees
//! only a random part of the others' masks, drawn again for every step, and the queries of the first steps are
//! blended with those of a pass in which nothing is shared, `Q* = (1 - ν) Q + ν Q_vanilla`.
//!
//! This is the paper's variant with anchors: two images of the target prompt share attention with each other,
//! and every picture sees only itself and the anchors. So no picture depends on the other pictures. The anchors
//! are drawn again with each batch of pictures, because keeping their keys and values of all layers and steps
//! would take gigabytes at SDXL's size. A batch of B pictures takes as long as B + 2 pictures, and its blended
//! steps twice as long.
//!
//! Differences from the paper:
//! - Feature injection by correspondences (Sec. 3.3) is left out, and with it the second run.
//! - The anchors use the seeds of the target and of the most similar base image, so that the user has seen
//!   their subject; the paper uses random seeds.
//! - Attention is shared in step 1 too, with masks from the pass in which nothing is shared.
//! - Both rows of classifier-free guidance share attention, each with the same row of the anchors.

use std::path::Path;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{Baseline, Scene};
use crate::backbone::Conditioning;
use crate::backbone::attention_guide::{AttentionGuide, StepPass};
use crate::backbone::guidance::{Companions, Guidance, PlainGuidance};
use crate::error::usage;
use crate::libtorch::seeded;
use crate::method::base_set::BaseSet;
use crate::method::base_word::BaseWordPrompt;
use crate::method::masks::{subject_masks, word_maps};
use crate::method::otsu::Otsu;
use crate::method::target::most_like;
use crate::models::unet::attention_probe::{AttentionMaps, WatchedWords};
use crate::models::unet::cross_attention::AttentionRequest;
use crate::models::unet::shared_attention::{AttentionSharing, SharedPositions};

/// Probability that a position of another image's subject is hidden in a step (Sec. 3.2, self-attention dropout).
pub const DROPOUT: f64 = 0.5;
/// ν at the first and at the last blended step; it falls linearly in between (Sec. 3.2, vanilla queries).
pub const VANILLA_QUERIES: [f64; 2] = [0.9, 0.8];
/// The first 1 / 10 of the steps are blended: 5 of the paper's 50.
pub const STEPS_FOR_ONE_BLENDED: usize = 10;

/// The base images of a subject, two of which are drawn again as anchors.
pub struct Consistory {
    base: BaseSet,
}

impl Consistory {
    /// Reads `base.safetensors`.
    ///
    /// # Errors
    /// When the file cannot be used, and the same as for [`Self::new`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::new(BaseSet::read(path)?, path)
    }

    /// Takes the base images of the file at `path`.
    ///
    /// # Errors
    /// When the base images show several subjects.
    pub fn new(base: BaseSet, path: &Path) -> Result<Self> {
        match &base.facts.base_words[..] {
            [_] => Ok(Consistory { base }),
            words => Err(usage(format!(
                "consistory draws one subject: {} has the base words \"{}\"",
                path.display(),
                words.join("\", \"")
            ))),
        }
    }

    /// The seeds of the anchors: the seed of the target, and that of the most similar base image, if there is
    /// another.
    ///
    /// # Errors
    /// When the target is a photo.
    pub fn anchor_seeds(&self, target: usize) -> Result<Vec<i64>> {
        let seed = |image: usize| match self.base.seeds[image] {
            -1 => Err(usage(format!(
                "consistory draws its anchors from the seeds of base images, but image {image} is a photo: choose a base image \
                 as the target"
            ))),
            seed => Ok(seed),
        };
        let other = most_like(&self.base.encoder_features, target);
        [Some(target), other]
            .into_iter()
            .flatten()
            .map(seed)
            .collect()
    }

    /// The anchors for pictures of the scene's size, with the same negative prompt.
    fn anchors(&self, scene: &Scene, target: usize) -> Result<Anchors> {
        let (facts, [height, width]) = (&self.base.facts, scene.size);
        let prompt = BaseWordPrompt::with_words(
            scene.backbone,
            &facts.prompt,
            &facts.base_words,
            scene.size,
        )?;
        let noise = |seed: i64| scene.backbone.initial_latents(seed, height, width);
        let noise: Vec<Tensor> = self.anchor_seeds(target)?.into_iter().map(noise).collect();
        Ok(Anchors {
            latents: Tensor::cat(&noise, 0),
            prompt,
        })
    }
}

impl Baseline for Consistory {
    fn guidance(&self, scene: &Scene) -> Result<Box<dyn Guidance>> {
        let target = scene.target.expect("chosen when the job was checked");
        let prompt = scene
            .backbone
            .encode_tokens(scene.prompt, scene.size[0], scene.size[1]);
        let anchors = self.anchors(scene, target)?;
        let guidance = SharedGuidance::new(scene.negative, &prompt, anchors, scene.guidance_scale);
        Ok(Box::new(guidance))
    }
}

/// Images that share their subject.
pub struct Anchors {
    /// Initial latents `[A, C, H, W]`.
    pub latents: Tensor,
    /// Their prompt. The attention of its base word shows the subject's region.
    pub prompt: BaseWordPrompt,
}

/// Classifier-free guidance of pictures whose attention includes the anchors' subject.
pub struct SharedGuidance {
    plain: PlainGuidance,
    anchors: Companions,
    /// The base word in the anchors' prompt.
    word: WatchedWords,
    otsu: Otsu,
}

impl SharedGuidance {
    /// Guidance for pictures of `prompt` against `negative`, the branch ∅, together with `anchors`.
    pub fn new(
        negative: &Conditioning,
        prompt: &Conditioning,
        anchors: Anchors,
        guidance_scale: f64,
    ) -> Self {
        let rows = |prompt| PlainGuidance::new(negative, prompt, guidance_scale);
        let c = &anchors.prompt.conditioning.prompt_embeds; // [1, S, D]
        let places = [anchors.prompt.places().concat()];
        let word = WatchedWords::new(&places, c.size()[1], c);
        let of_anchors = rows(&anchors.prompt.conditioning);
        SharedGuidance {
            plain: rows(prompt),
            word,
            otsu: Otsu::new(anchors.latents.device()),
            anchors: Companions {
                latents: anchors.latents,
                conditioning: Conditioning::cat(&[of_anchors.conditioning(1)]),
            },
        }
    }
}

impl Guidance for SharedGuidance {
    fn conditioning(&self, step: usize) -> &Conditioning {
        self.plain.conditioning(step)
    }

    fn conditional_row(&self, step: usize) -> usize {
        self.plain.conditional_row(step)
    }

    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor {
        self.plain.combine(step, rows)
    }

    fn attention(&self) -> Option<Box<dyn AttentionGuide + '_>> {
        Some(Box::new(SubjectSharing {
            guidance: self,
            image_numbers: Vec::new(),
            maps: None,
            passes: 0,
        }))
    }

    fn companions(&self) -> Option<&Companions> {
        Some(&self.anchors)
    }
}

/// The attention of one run: the anchors' subject masks, and the parts of them that each image sees.
struct SubjectSharing<'a> {
    guidance: &'a SharedGuidance,
    /// A number for each image `[n]`, derived from its initial latents.
    image_numbers: Vec<u32>,
    /// Sum of the base word's maps over all passes so far `[A, 1, H, W]`.
    maps: Option<Tensor>,
    passes: usize,
}

impl AttentionGuide for SubjectSharing<'_> {
    fn request(&mut self, pass: &StepPass) -> AttentionRequest {
        if pass.is_first {
            self.image_numbers = image_numbers(pass.initial_latents);
        }
        let word = &self.guidance.word;
        let vanilla = vanilla_queries(pass.step, pass.steps).map(|nu| {
            let attention = pass.attend(AttentionRequest {
                probe: Some(pass.probe(word)),
                sharing: Some(AttentionSharing::vanilla()),
                mask: None,
            });
            let maps = attention.maps.expect("the request has a probe");
            self.observe(pass.step, &maps, pass.latent_size());
            (attention.queries, nu)
        });
        AttentionRequest {
            probe: Some(pass.probe(word)),
            sharing: Some(AttentionSharing::Shared {
                positions: self.positions(pass.step),
                vanilla,
            }),
            mask: None,
        }
    }

    fn observe(&mut self, _step: usize, maps: &[AttentionMaps], latent_size: [i64; 2]) {
        let word = word_maps(maps, latent_size); // [A, 1, H, W]
        self.maps = Some(match self.maps.take() {
            None => word,
            Some(sum) => sum + word,
        });
        self.passes += 1;
    }
}

impl SubjectSharing<'_> {
    /// The positions of the anchors that the images see at a step.
    fn positions(&self, step: usize) -> SharedPositions {
        let rows = self.guidance.plain.conditioning(step).rows();
        let sum = self.maps.as_ref().expect("a pass has been observed");
        let subjects =
            subject_masks(&(sum / self.passes as f64), &self.guidance.otsu).squeeze_dim(1); // [A, H, W]
        let kept = kept(&self.image_numbers, step, &subjects);
        SharedPositions::new(&subjects, &kept, rows)
    }
}

/// ν of a step, counted from 1, of `steps`. It falls from 0.9 to 0.8 over the first tenth of the steps, which
/// is at least one step.
fn vanilla_queries(step: usize, steps: usize) -> Option<f64> {
    let blended = steps.div_ceil(STEPS_FOR_ONE_BLENDED);
    let [first, last] = VANILLA_QUERIES;
    let way = (step - 1) as f64 / (blended - 1).max(1) as f64;
    (step <= blended).then_some(first + (last - first) * way)
}

/// A number for each image `[n, C, H, W]`: the CRC-32 of its initial latents. Dropout depends on this number
/// and on nothing else in the batch.
fn image_numbers(initial_latents: &Tensor) -> Vec<u32> {
    let number = |i: i64| {
        let latents = initial_latents.get(i).to_device(Device::Cpu);
        let values = Vec::<f32>::try_from(latents.to_kind(Kind::Float).flatten(0, -1));
        let values = values.expect("latents are a list of numbers");
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        crc32fast::hash(&bytes)
    };
    (0..initial_latents.size()[0]).map(number).collect()
}

/// The positions of the A anchors that each of n images may see in a step `[n, A, H, W]`, after dropout. An
/// anchor, one of the last A images, does not see itself a second time.
fn kept(image_numbers: &[u32], step: usize, subjects: &Tensor) -> Tensor {
    let anchors = subjects.size()[0];
    let first_anchor = image_numbers.len() as i64 - anchors;
    let of_image = |(i, number): (usize, &u32)| {
        let _drawing = seeded(i64::from(*number) + step as i64);
        let uniform = Tensor::rand(subjects.size(), (Kind::Float, Device::Cpu));
        let kept = uniform.ge(DROPOUT).to_kind(Kind::Float);
        if i as i64 >= first_anchor {
            let _ = kept.get(i as i64 - first_anchor).zero_();
        }
        kept
    };
    let images: Vec<Tensor> = image_numbers.iter().enumerate().map(of_image).collect();
    Tensor::stack(&images, 0).to_device(subjects.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tenth_of_the_steps_is_blended_less_and_less() {
        let of = |steps: usize| -> Vec<f64> {
            (1..=steps)
                .map_while(|step| vanilla_queries(step, steps))
                .map(|nu| (nu * 1000.0).round() / 1000.0)
                .collect()
        };
        assert_eq!(of(50), [0.9, 0.875, 0.85, 0.825, 0.8]);
        assert_eq!(of(30), [0.9, 0.85, 0.8]);
        assert_eq!(of(4), [0.9]);
    }

    #[test]
    fn half_of_the_others_is_seen_and_nothing_of_oneself_again() {
        let subjects = Tensor::ones([2, 20, 30], (Kind::Float, Device::Cpu));
        let kept_at = |step| kept(&[5, 6, 7], step, &subjects);
        let share = |kept: &Tensor, i, a| kept.get(i).get(a).mean(Kind::Float).double_value(&[]);
        let kept = kept_at(1);
        for (image, anchor) in [(0, 0), (0, 1), (1, 1), (2, 0)] {
            let share = share(&kept, image, anchor);
            // Three standard deviations of 600 coin tosses.
            assert!((share - 0.5).abs() < 0.062, "{image} {anchor}: {share}");
        }
        assert_eq!(share(&kept, 1, 0), 0.0);
        assert_eq!(share(&kept, 2, 1), 0.0);
        assert_ne!(kept, kept_at(2));
        assert_eq!(kept, kept_at(1));
    }
}
