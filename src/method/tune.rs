//! Tuning, Algorithm 1 (Sec. 3.2): draw a batch, embed, noise, predict, three losses, step.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::actor::Actor;
use super::base_set::BaseSet;
use super::base_word::BaseWordPrompt;
use super::crop::CropBox;
use super::diffusion_rows::{DiffusionRows, loss_scale, parts};
use super::learner::{Course, Learner, Losses, TuneProgress};
use super::loss::{
    LossWeights, auxiliary_loss, average_loss, row_weights, target_loss, total_loss,
};
use super::origin::Origin;
use super::projector::{Head, Projector, ProjectorConfig};
use super::target::variants;
use super::templates;
use crate::backbone::Backbone;
use crate::error::usage;
use crate::libtorch::{seeded, sent};

/// The settings of a tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneOptions {
    /// The target among the base images.
    pub target: usize,
    /// A part of the target that is also learnt enlarged.
    pub crop: Option<CropBox>,
    /// The kind of the subject, which decides the templates.
    pub kind: templates::SubjectKind,
    /// The projector's last layer.
    pub head: Head,
    /// K, the number of auxiliary samples in a batch.
    pub num_auxiliary: usize,
    /// λ1 and λ2.
    pub loss_weights: LossWeights,
    /// Steps, learning rate and seed.
    pub course: Course,
}

/// One batch of K + 2 rows: the target, K auxiliary samples, the average.
pub struct TuningRows {
    /// Index of the template.
    pub template: usize,
    /// The K auxiliary samples, as indices of base images.
    pub auxiliary: Vec<i64>,
    /// The K + 2 rows.
    pub rows: DiffusionRows,
}

/// A running tuning.
pub struct Tuner<'a> {
    backbone: &'a Backbone,
    options: TuneOptions,
    /// h of all base images.
    h: Tensor,
    /// z_0 of all base images.
    latents: Tensor,
    /// z_0 of the target's variants: the target, its mirror image and its crop.
    target_variants: Tensor,
    templates: Vec<BaseWordPrompt>,
    /// The weights of the rows' errors in Eq. (14), multiplied by the loss's scale, `[K + 2]`.
    row_weights: Tensor,
    projector: Projector,
    progress: TuneProgress,
}

impl<'a> Tuner<'a> {
    /// Encodes the templates and the target's variants. The text encoders and the VAE run without gradients.
    ///
    /// # Errors
    /// When the settings do not fit the base set, or the base set does not fit the model.
    pub fn new(backbone: &'a Backbone, base: &BaseSet, options: TuneOptions) -> Result<Self> {
        base.facts.check_model(&backbone.facts, "the base set")?;
        let n = base.num_base_images();
        if options.target >= n {
            return Err(usage(format!(
                "target {}: expected 0 to {}",
                options.target,
                n - 1
            )));
        }
        if !(1..n).contains(&options.num_auxiliary) {
            return Err(usage(format!(
                "num_auxiliary {}: expected 1 to {}, for {n} base images",
                options.num_auxiliary,
                n - 1
            )));
        }
        let (width, height) = (base.facts.width, base.facts.height);
        let templates = options
            .kind
            .prompts(&base.facts.base_words)
            .iter()
            .map(|prompt| {
                let words = &base.facts.base_words;
                BaseWordPrompt::with_words(backbone, prompt, words, [height, width])
            })
            .collect::<Result<Vec<_>>>()?;
        let c_b = templates[0].base_embedding();
        if templates
            .iter()
            .any(|t| t.tokens_of_words() != templates[0].tokens_of_words())
        {
            bail!("a base word has different numbers of tokens in different templates");
        }

        let device = backbone.device();
        let h = base.encoder_features.to_device(device);
        let latents = base.latents.to_device(device);
        let target = latents.narrow(0, options.target as i64, 1);
        let target_variants = variants(backbone, &target, options.crop)?;

        let (_, c, height, width) = h.size4()?;
        let config = ProjectorConfig {
            feature_shape: [c, height, width],
            num_tokens: c_b.size()[0],
            token_width: c_b.size()[1],
            head: options.head,
        };
        let weights = row_weights(options.num_auxiliary, options.loss_weights);
        let row_weights =
            Tensor::from_slice(&weights).to_device(device) * loss_scale(backbone.kind());
        let projector = Projector::new(config, options.course.seed, device);
        let mut tuner = Tuner {
            progress: TuneProgress::new(options.course, projector.parameters()),
            backbone,
            options,
            h,
            latents,
            target_variants,
            templates,
            row_weights,
            projector,
        };
        tuner.begin();
        Ok(tuner)
    }

    /// The current φ, to be read or replaced.
    pub fn projector_mut(&mut self) -> &mut Projector {
        &mut self.projector
    }

    /// Draws a batch: one variant of the target, K auxiliary samples, one template, and for every row its own t
    /// and ε. The last row's latent is drawn from the target and the auxiliary samples.
    fn draw(&self, seed: i64) -> TuningRows {
        let _drawing = seeded(seed);
        let cpu = (Kind::Int64, tch::Device::Cpu);
        let below = |n: usize| Tensor::randint(n as i64, [1], cpu).int64_value(&[0]);
        let k = self.options.num_auxiliary;
        let template = below(self.templates.len()) as usize;
        let variant = below(self.target_variants.size()[0] as usize);
        let target = self.options.target as i64;
        let others: Vec<i64> = (0..self.latents.size()[0])
            .filter(|&i| i != target)
            .collect();
        let order = Tensor::randperm(others.len() as i64, cpu);
        let auxiliary: Vec<i64> = (0..k as i64)
            .map(|i| others[order.int64_value(&[i]) as usize])
            .collect();
        let average_row = match below(k + 1) {
            0 => target,
            i => auxiliary[i as usize - 1],
        };
        let rows = Tensor::from_slice(&[&auxiliary[..], &[average_row]].concat());
        let rows = sent(&rows, self.backbone.device());
        let z_0 = Tensor::cat(
            &[
                self.target_variants.narrow(0, variant, 1),
                self.latents.index_select(0, &rows),
            ],
            0,
        );
        TuningRows {
            template,
            auxiliary,
            rows: DiffusionRows::draw(self.backbone, z_0),
        }
    }

    /// The semantic offsets of a batch's rows, `[K + 2, W, D]`: that of the target, those of the auxiliary
    /// samples, and the mean of the auxiliary offsets.
    fn embed(&self, batch: &TuningRows) -> Tensor {
        let c_b = self.templates[batch.template].base_embedding();
        let c_delta = self.projector.forward(&self.h, &c_b); // [N, W, D]
        let places = [&[self.options.target as i64], &batch.auxiliary[..]].concat();
        let places = sent(&Tensor::from_slice(&places), c_delta.device());
        let own = c_delta.index_select(0, &places); // [1 + K, W, D]
        let auxiliary = own.narrow(0, 1, batch.auxiliary.len() as i64);
        let average = auxiliary.mean_dim([0i64].as_slice(), true, Kind::Float);
        Tensor::cat(&[own, average], 0)
    }

    /// `‖ε - ε_θ(z_t, t, c')‖²` of some rows of a batch with these offsets.
    fn errors(&self, batch: &TuningRows, c_delta: &Tensor, first: i64, count: i64) -> Tensor {
        let template = &self.templates[batch.template];
        let c_prime = template.shifted(&c_delta.narrow(0, first, count));
        let conditioning = template
            .conditioning
            .repeat(count)
            .with_prompt_embeds(c_prime);
        let rows = batch.rows.narrow(first, count);
        rows.errors(self.backbone, &conditioning)
    }

    /// Takes one optimiser step on this batch. Returns the error of every row before the step, `[K + 2]`.
    ///
    /// # Errors
    /// When an error is not finite.
    pub fn learn(&mut self, batch: &TuningRows) -> Result<Tensor> {
        let errors = self.differentiate(batch);
        self.progress
            .descend(self.projector.parameters(), 1.0, &errors)
    }

    /// Forward and backward pass. Afterwards the projector's parameters have the gradient of Eq. (14). Returns
    /// the error of every row, `[K + 2]` on the device.
    ///
    /// The U-Net is frozen, but gradients pass through it. Its graph ends at the offsets, so the rows can pass
    /// in parts and the projector is differentiated once.
    pub fn differentiate(&self, batch: &TuningRows) -> Tensor {
        let c_delta = self.embed(batch);
        let leaf = c_delta.detach().set_requires_grad(true);
        let mut errors = Vec::new();
        for (first, count) in self.micro_batches() {
            let part = self.errors(batch, &leaf, first, count);
            (&part * self.row_weights.narrow(0, first, count))
                .sum(Kind::Float)
                .backward();
            errors.push(part.detach());
        }
        let grad = leaf.grad() / loss_scale(self.backbone.kind());
        (c_delta * grad).sum(Kind::Float).backward();
        Tensor::cat(&errors, 0)
    }

    /// Splits the K + 2 rows of a batch into parts that fit in memory: first row and number of rows.
    fn micro_batches(&self) -> impl Iterator<Item = (i64, i64)> {
        let rows = self.options.num_auxiliary as i64 + 2;
        parts(rows, self.options.course.micro_batch)
    }

    /// The actor with the projector that is best by the criterion.
    ///
    /// # Errors
    /// Never fails, as long as the best parameters are those of this projector.
    pub fn actor(&self, origin: &Origin) -> Result<Actor> {
        let projector = Projector::from_parameters(
            self.projector.config.clone(),
            self.progress.best(),
            self.backbone.device(),
        )?;
        Ok(Actor {
            facts: origin.facts.clone(),
            tokens_of_words: self.templates[0].tokens_of_words(),
            kind: self.options.kind,
            target: self.options.target,
            target_image: origin.target_image.clone(),
            base_crc32: origin.base_crc32.clone(),
            projector,
            encoder_features: self.h.shallow_clone(),
        })
    }

    /// The losses by their names in tune.jsonl.
    fn losses(&self, errors: &Tensor) -> Losses {
        let value = |loss: Tensor| loss.double_value(&[]);
        Losses {
            loss: value(total_loss(errors, self.options.loss_weights)),
            parts: vec![
                ("loss_target", value(target_loss(errors))),
                ("loss_auxiliary", value(auxiliary_loss(errors))),
                ("loss_average", value(average_loss(errors))),
            ],
        }
    }
}

impl Learner for Tuner<'_> {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.projector.parameters()
    }

    fn progress(&self) -> &TuneProgress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut TuneProgress {
        &mut self.progress
    }

    fn learn_from(&mut self, seed: i64) -> Result<Losses> {
        let errors = self.learn(&self.draw(seed))?;
        Ok(self.losses(&errors))
    }

    fn loss_on(&self, seed: i64) -> Tensor {
        let batch = self.draw(seed);
        let c_delta = self.embed(&batch);
        let part = |(first, count)| self.errors(&batch, &c_delta, first, count);
        let parts: Vec<Tensor> = self.micro_batches().map(part).collect();
        total_loss(&Tensor::cat(&parts, 0), self.options.loss_weights)
    }

    fn file(&self, origin: &Origin) -> Result<Vec<u8>> {
        self.actor(origin)?.to_bytes()
    }
}
