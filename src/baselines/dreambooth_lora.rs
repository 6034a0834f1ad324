//! DreamBooth (arXiv 2208.12242) with low-rank updates (LoRA, arXiv 2106.09685), written from the papers: the
//! U-Net learns what "sks cat" looks like, without forgetting what "cat" looks like.
//!
//! `E ‖ε - ε_θ(z_t, t, c)‖² + λ E ‖ε' - ε_θ(z'_t', t', c_pr)‖²`, Eq. (2) of DreamBooth, in which z is the
//! target or its mirror image, with a template that has the identifier before the base word, and z' is one of
//! the other base images, with the prompt from which the plain model drew it, as in the paper's prior set. λ is
//! 1 (Sec. 4). θ is `W + B A` of rank 4 in every attention layer of the U-Net, as in diffusers'
//! `examples/dreambooth/train_dreambooth_lora_sdxl.py`, which is commonly run with the learning rate 1e-4; the
//! text encoders are frozen.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::{Baseline, Lesson, Scene};
use crate::backbone::guidance::{Guidance, PlainGuidance};
use crate::backbone::{Backbone, Conditioning};
use crate::error::usage;
use crate::io::low_rank::LowRankSet;
use crate::io::tensors::TensorFile;
use crate::libtorch::{seeded, sent};
use crate::method::base_set::BaseSet;
use crate::method::diffusion_rows::{DiffusionRows, loss_scale, parts};
use crate::method::learner::{Learner, Losses, TuneProgress};
use crate::method::origin::Origin;
use crate::method::target::variants;
use crate::tokenizer::find_word;

/// Version of the file's layout.
const FORMAT: &str = "oneactor.dreambooth-lora/v1";
/// R.
pub const RANK: i64 = 4;
/// λ, the weight of the prior's loss (Sec. 4 of DreamBooth).
const PRIOR_WEIGHT: f64 = 1.0;
/// The rare word that marks the subject. The paper picks a rare token of its model's vocabulary (Sec. 3.2);
/// this one is the usual choice for Stable Diffusion.
pub const IDENTIFIER: &str = "sks";

/// The prompt with an identifier before every occurrence of the base word.
pub fn marked(prompt: &str, base_word: &str, identifier: &str) -> String {
    let mut text = prompt.to_owned();
    for span in find_word(prompt, base_word).into_iter().rev() {
        text.insert_str(span.start, &format!("{identifier} "));
    }
    text
}

/// The identifier that a file was tuned with.
///
/// # Errors
/// When the file is missing, damaged or of another format.
pub fn identifier(path: &Path) -> Result<String> {
    let file = TensorFile::read_format(path, "the LoRA", FORMAT)?;
    file.text("identifier", path).map(str::to_owned)
}

/// The tuned model. Its updates are merged when the model is loaded, and its prompts already contain the identifier.
pub struct TunedNetworks(());

impl TunedNetworks {
    /// Checks that `backbone` has the updates of this file.
    ///
    /// # Errors
    /// When the updates are not merged.
    pub fn new(path: &Path, backbone: &Backbone) -> Result<Self> {
        let file = path.display().to_string();
        if backbone.facts.loras.iter().any(|lora| lora.file == file) {
            return Ok(TunedNetworks(()));
        }
        bail!("{file}: found a model without its updates, expected them merged")
    }
}

impl Baseline for TunedNetworks {
    fn guidance(&self, scene: &Scene) -> Result<Box<dyn Guidance>> {
        let [height, width] = scene.size;
        let prompt = scene.backbone.encode_tokens(scene.prompt, height, width);
        let plain = PlainGuidance::new(scene.negative, &prompt, scene.guidance_scale);
        Ok(Box::new(plain))
    }
}

/// One batch.
pub struct LessonRows {
    /// Index of the target's template.
    pub template: usize,
    /// A variant of the target and a picture of the prior.
    pub rows: DiffusionRows,
}

/// A running tuning of the U-Net.
pub struct DreamBooth<'a> {
    backbone: &'a Backbone,
    /// The templates with identifier and base word.
    templates: Vec<Conditioning>,
    /// c_pr: the prompt of the base images.
    class_prompt: Conditioning,
    target_variants: Tensor,
    /// z_0 of the other base images.
    prior: Tensor,
    parameters: BTreeMap<String, Tensor>,
    progress: TuneProgress,
}

impl<'a> DreamBooth<'a> {
    /// Encodes the prompts and the target's variants, and adds the updates to the U-Net until this value is dropped.
    ///
    /// # Errors
    /// When the base images were drawn by another model, or when there is no base image besides the target.
    pub fn new(backbone: &'a Backbone, base: &BaseSet, lesson: &Lesson) -> Result<Self> {
        let base_word = lesson.base_word(backbone, base)?;
        let others = lesson.others(base);
        if others.is_empty() {
            return Err(usage(
                "the base set has 1 image, expected at least 2, because the images other than the target are \
                the prior",
            ));
        }
        let (height, width) = (base.facts.height, base.facts.width);
        let encode = |prompt: &String| backbone.encode_prompt(prompt, height, width);
        let prompts = lesson.kind.prompts(&[format!("{IDENTIFIER} {base_word}")]);
        let templates = prompts.iter().map(encode).collect::<Result<_>>()?;
        let class_prompt = encode(&base.facts.prompt)?;
        let target_variants = variants(backbone, &lesson.target(backbone, base), None)?;
        let others = Tensor::from_slice(&others);
        let prior = base
            .latents
            .index_select(0, &others.to_device(base.latents.device()));

        let updates = Rc::new(LowRankSet::new(RANK, lesson.course.seed));
        backbone.update_unet(Some(&updates));
        let parameters = updates.parameters();
        let mut tuner = DreamBooth {
            progress: TuneProgress::new(lesson.course, &parameters),
            prior: prior.to_device(backbone.device()),
            backbone,
            templates,
            class_prompt,
            target_variants,
            parameters,
        };
        tuner.begin();
        Ok(tuner)
    }

    fn draw(&self, seed: i64) -> LessonRows {
        let _drawing = seeded(seed);
        let cpu = (Kind::Int64, tch::Device::Cpu);
        let below = |n: i64| Tensor::randint(n, [1], cpu).int64_value(&[0]);
        let template = below(self.templates.len() as i64) as usize;
        let one_of = |rows: &Tensor| rows.narrow(0, below(rows.size()[0]), 1);
        let z_0 = Tensor::cat(&[one_of(&self.target_variants), one_of(&self.prior)], 0);
        LessonRows {
            template,
            rows: DiffusionRows::draw(self.backbone, z_0),
        }
    }

    /// The errors of both rows, or of one of them.
    fn errors(&self, batch: &LessonRows, first: i64, count: i64) -> Tensor {
        let text = Conditioning::cat(&[&self.templates[batch.template], &self.class_prompt]);
        let rows = batch.rows.narrow(first, count);
        rows.errors(self.backbone, &text.narrow(first, count))
    }

    /// Splits the rows into parts that fit in memory.
    fn micro_batches(&self, batch: &LessonRows) -> impl Iterator<Item = (i64, i64)> {
        parts(batch.rows.count(), self.progress.course().micro_batch)
    }

    /// Takes one optimiser step on this batch. Returns the errors of both rows before the step.
    ///
    /// # Errors
    /// When an error is not finite.
    pub fn learn(&mut self, batch: &LessonRows) -> Result<Tensor> {
        let scale = loss_scale(self.backbone.kind());
        let weights = Tensor::from_slice(&[scale, PRIOR_WEIGHT * scale]).to_kind(Kind::Float);
        let weights = sent(&weights, self.backbone.device());
        let mut errors = Vec::new();
        for (first, count) in self.micro_batches(batch) {
            let part = self.errors(batch, first, count);
            let loss = (&part * weights.narrow(0, first, count)).sum(Kind::Float);
            loss.backward();
            errors.push(part.detach());
        }
        let errors = Tensor::cat(&errors, 0);
        self.progress.descend(&self.parameters, scale, &errors)
    }
}

/// Eq. (2) from both rows' errors.
fn losses(errors: &Tensor) -> Losses {
    let [subject, prior] = [0, 1].map(|row| errors.double_value(&[row]));
    Losses {
        loss: subject + PRIOR_WEIGHT * prior,
        parts: vec![("loss_subject", subject), ("loss_prior", prior)],
    }
}

impl Drop for DreamBooth<'_> {
    fn drop(&mut self) {
        self.backbone.update_unet(None);
    }
}

impl Learner for DreamBooth<'_> {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn progress(&self) -> &TuneProgress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut TuneProgress {
        &mut self.progress
    }

    fn learn_from(&mut self, seed: i64) -> Result<Losses> {
        Ok(losses(&self.learn(&self.draw(seed))?))
    }

    fn loss_on(&self, seed: i64) -> Tensor {
        let batch = self.draw(seed);
        let part = |(first, count)| self.errors(&batch, first, count);
        let parts: Vec<Tensor> = self.micro_batches(&batch).map(part).collect();
        let errors = Tensor::cat(&parts, 0).to_kind(Kind::Double);
        errors.get(0) + errors.get(1) * PRIOR_WEIGHT
    }

    /// A LoRA file with diffusers' keys.
    fn file(&self, origin: &Origin) -> Result<Vec<u8>> {
        let mut file = TensorFile {
            metadata: origin.metadata(FORMAT),
            ..TensorFile::default()
        };
        file.metadata.insert("identifier".into(), IDENTIFIER.into());
        for (name, tensor) in self.progress.best() {
            file.insert(&format!("unet.{name}"), tensor);
        }
        file.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_stands_before_every_base_word() {
        let cases = [
            ("a cat and a catfish", "a sks cat and a catfish"),
            ("Cat, (cat:1.2)", "sks Cat, (sks cat:1.2)"),
            ("a dog", "a dog"),
        ];
        for (prompt, expected) in cases {
            assert_eq!(marked(prompt, "cat", IDENTIFIER), expected);
        }
    }
}
