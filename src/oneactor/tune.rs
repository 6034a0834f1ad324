//! Tuning, Algorithm 1 (Sec. 3.2): draw a batch, embed, noise, predict, three losses, step.
//!
//! Everything random in step k follows from the seed and k alone, so that a tuning that was
//! interrupted goes on as if it had not been.

mod checkpoint;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::actor::Actor;
use super::adamw::AdamW;
use super::base_set::BaseSet;
use super::base_word::BaseWordPrompt;
use super::convergence::{Convergence, VALIDATE_EVERY};
use super::crop::{CropBox, enlarged, with_proportions};
use super::loss::{
    LossWeights, auxiliary_loss, average_loss, row_errors, row_weights, target_loss, total_loss,
};
use super::projector::{Head, Projector, ProjectorConfig};
use super::templates;
use crate::error::usage;
use crate::sdxl::Backbone;

/// Batches of the convergence criterion.
const VALIDATION_BATCHES: i64 = 6;
/// Seeds of the criterion lie apart from those of the steps.
const VALIDATION_SEED: i64 = 0x5EED_0000_0000;
/// What the loss is multiplied by before it is differentiated, and its gradient divided by in f32. A
/// gradient in fp16 loses its smallest values unless the loss is scaled up; on a network of SDXL's
/// shape 2¹² leaves 0.6 % of error in the gradient of the text embedding against 7 % without.
pub fn loss_scale(kind: Kind) -> f64 {
    match kind {
        Kind::Half => 4096.0,
        _ => 1.0,
    }
}

/// What to tune, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneOptions {
    /// The target among the base images.
    pub target: usize,
    /// A part of the target that is learnt enlarged too.
    pub crop: Option<CropBox>,
    /// What the subject is; decides the templates.
    pub kind: templates::Kind,
    /// The projector's last layer.
    pub head: Head,
    /// Steps at most.
    pub max_steps: usize,
    /// K, auxiliary samples in a batch.
    pub num_auxiliary: usize,
    /// λ1 and λ2.
    pub loss_weights: LossWeights,
    /// AdamW's learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Seed of everything random.
    pub seed: i64,
    /// Rows that go through the U-Net together; fewer need less memory and give the same step.
    pub micro_batch: usize,
}

/// One step as `tune.jsonl` records it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: usize,
    /// L, Eq. (14).
    pub loss: f64,
    /// L_tar, Eq. (10).
    pub loss_target: f64,
    /// L_aux, Eq. (11).
    pub loss_auxiliary: f64,
    /// L_aver, Eq. (13).
    pub loss_average: f64,
    /// L on the fixed pairs, at the steps where it is looked at.
    pub validation: Option<f64>,
}

/// One batch of K + 2 rows: the target, K auxiliary samples, the average.
pub struct Batch {
    /// Which of the templates.
    pub template: usize,
    /// The K auxiliary samples, as places among the base images.
    pub auxiliary: Vec<i64>,
    /// Latents of the rows `[K + 2, C, H, W]`.
    pub z_0: Tensor,
    /// Noise of the rows.
    pub eps: Tensor,
    /// Timesteps of the rows `[K + 2]`.
    pub timesteps: Tensor,
}

/// A tuning under way.
pub struct Tuner<'a> {
    backbone: &'a Backbone,
    options: TuneOptions,
    /// h of all base images.
    h: Tensor,
    /// z_0 of all base images.
    latents: Tensor,
    /// z_0 of the target, of its mirror image and of its crop.
    target_variants: Tensor,
    templates: Vec<BaseWordPrompt>,
    projector: Projector,
    optimizer: AdamW,
    step: usize,
    convergence: Convergence,
    best: BTreeMap<String, Tensor>,
}

impl<'a> Tuner<'a> {
    /// Encodes templates and target variants; the text encoders and the VAE run without gradients.
    ///
    /// # Errors
    /// When the options do not fit the base set, or the base set does not fit the model.
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
        let picture = backbone.decode(&target)?; // [1, 3, H, W]
        let mut target_variants = vec![target, backbone.encode(&picture.flip([-1]))];
        if let Some(part) = options.crop {
            let (_, _, height, width) = picture.size4()?;
            let part = with_proportions(part, width, height);
            target_variants.push(backbone.encode(&enlarged(&picture, part)));
        }
        let target_variants = Tensor::cat(&target_variants, 0);

        let (_, c, height, width) = h.size4()?;
        let config = ProjectorConfig {
            feature_shape: [c, height, width],
            num_tokens: c_b.size()[0],
            token_width: c_b.size()[1],
            head: options.head,
        };
        let projector = Projector::new(config, options.seed, device);
        let mut tuner = Tuner {
            optimizer: AdamW::new(options.learning_rate, options.weight_decay),
            best: projector.snapshot(),
            convergence: Convergence::new(f64::INFINITY),
            step: 0,
            backbone,
            options,
            h,
            latents,
            target_variants,
            templates,
            projector,
        };
        tuner.convergence = Convergence::new(tuner.validate());
        Ok(tuner)
    }

    /// Steps taken so far.
    pub fn steps_taken(&self) -> usize {
        self.step
    }

    /// Whether tuning is at its end: converged, or out of steps.
    pub fn is_done(&self) -> bool {
        self.step >= self.options.max_steps || self.convergence.is_reached()
    }

    /// The criterion so far.
    pub fn convergence(&self) -> &Convergence {
        &self.convergence
    }

    /// φ as it is now, to be looked at or replaced.
    pub fn projector_mut(&mut self) -> &mut Projector {
        &mut self.projector
    }

    /// One step of Algorithm 1 on a batch of its own.
    ///
    /// # Errors
    /// When the loss is not finite.
    pub fn step(&mut self) -> Result<StepReport> {
        self.step += 1;
        let batch = self.draw(
            self.options
                .seed
                .wrapping_mul(1_000_003)
                .wrapping_add(self.step as i64),
        );
        let errors = self.learn(&batch)?;
        let look = self.step.is_multiple_of(VALIDATE_EVERY) || self.step == self.options.max_steps;
        let validation = look.then(|| self.validate());
        if let Some(validation) = validation
            && self.convergence.look(self.step, validation)
        {
            self.best = self.projector.snapshot();
        }
        let value = |loss: Tensor| loss.double_value(&[]);
        Ok(StepReport {
            step: self.step,
            loss: value(total_loss(&errors, self.options.loss_weights)),
            loss_target: value(target_loss(&errors)),
            loss_auxiliary: value(auxiliary_loss(&errors)),
            loss_average: value(average_loss(&errors)),
            validation,
        })
    }

    /// Draws a batch: one variant of the target, K auxiliary samples, one template, and for every
    /// row its own t and ε. The last row's latent comes from target and auxiliary alike.
    fn draw(&self, seed: i64) -> Batch {
        tch::manual_seed(seed);
        let device = self.backbone.device();
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
        let rows = Tensor::from_slice(&[&auxiliary[..], &[average_row]].concat()).to_device(device);
        let z_0 = Tensor::cat(
            &[
                self.target_variants.narrow(0, variant, 1),
                self.latents.index_select(0, &rows),
            ],
            0,
        );
        let timesteps = Tensor::randint(
            self.backbone.noise_schedule.num_train_timesteps(),
            [k as i64 + 2],
            cpu,
        );
        let eps = Tensor::randn(z_0.size(), (Kind::Float, tch::Device::Cpu));
        Batch {
            template,
            auxiliary,
            z_0,
            eps: eps.to_device(device),
            timesteps: timesteps.to_device(device),
        }
    }

    /// The semantic offsets of a batch's rows, `[K + 2, W, D]`: the target's, the auxiliary ones',
    /// and their mean.
    fn embed(&self, batch: &Batch) -> Tensor {
        let c_b = self.templates[batch.template].base_embedding();
        let c_delta = self.projector.forward(&self.h, &c_b); // [N, W, D]
        let rows = |places: &[i64]| {
            c_delta.index_select(0, &Tensor::from_slice(places).to_device(c_delta.device()))
        };
        let auxiliary = rows(&batch.auxiliary); // [K, W, D]
        let average = auxiliary.mean_dim([0i64].as_slice(), true, Kind::Float);
        Tensor::cat(
            &[rows(&[self.options.target as i64]), auxiliary, average],
            0,
        )
    }

    /// `‖ε - ε_θ(z_t, t, c')‖²` of some rows of a batch under these offsets.
    fn errors(&self, batch: &Batch, c_delta: &Tensor, first: i64, count: i64) -> Tensor {
        let part = |t: &Tensor| t.narrow(0, first, count);
        let template = &self.templates[batch.template];
        let schedule = &self.backbone.noise_schedule;
        let (z_0, eps, timesteps) = (part(&batch.z_0), part(&batch.eps), part(&batch.timesteps));
        let z_t = schedule.add_noise(&z_0, &eps, &timesteps);
        let c_prime = template.shifted(&part(c_delta));
        let conditioning = template
            .conditioning
            .repeat(count)
            .with_prompt_embeds(c_prime);
        let noise_pred = self.backbone.predict(&z_t, &timesteps, &conditioning);
        row_errors(&noise_pred, &schedule.target(&z_0, &eps, &timesteps))
    }

    /// One optimiser step on this batch; returns every row's error before it, `[K + 2]`.
    ///
    /// # Errors
    /// When an error is not finite.
    pub fn learn(&mut self, batch: &Batch) -> Result<Tensor> {
        let (errors, usable) = self.differentiate(batch)?;
        if usable {
            self.optimizer.step(self.projector.parameters());
        }
        Ok(errors)
    }

    /// Forward and backward: the projector's parameters are left with the gradient of Eq. (14).
    /// Returns every row's error, and whether the gradient is finite; in fp16 a scaled gradient can
    /// overflow, and such a step is left out.
    ///
    /// The U-Net is frozen and still differentiated through. Its graph ends at the offsets, so the
    /// rows may pass in parts and the projector is differentiated once.
    ///
    /// # Errors
    /// When an error is not finite.
    pub fn differentiate(&self, batch: &Batch) -> Result<(Tensor, bool)> {
        let c_delta = self.embed(batch);
        let leaf = c_delta.detach().set_requires_grad(true);
        let scale = loss_scale(self.backbone.kind());
        let weights = row_weights(self.options.num_auxiliary, self.options.loss_weights);
        let weights = Tensor::from_slice(&weights).to_device(self.backbone.device()) * scale;
        let mut errors = Vec::new();
        for (first, count) in self.micro_batches() {
            let part = self.errors(batch, &leaf, first, count);
            (&part * weights.narrow(0, first, count))
                .sum(Kind::Float)
                .backward();
            errors.push(part.detach());
        }
        let errors = Tensor::cat(&errors, 0);
        if errors.isfinite().all().int64_value(&[]) == 0 {
            bail!(
                "step {}: the loss is not finite (NaN or infinite); try --dtype fp32 or a smaller learning rate",
                self.step
            );
        }
        let grad = leaf.grad() / scale;
        let usable = grad.isfinite().all().int64_value(&[]) == 1;
        if usable {
            (c_delta * grad).sum(Kind::Float).backward();
        }
        Ok((errors, usable))
    }

    /// The K + 2 rows of a batch in parts that fit in memory: first row and number of rows.
    fn micro_batches(&self) -> impl Iterator<Item = (i64, i64)> {
        let rows = self.options.num_auxiliary as i64 + 2;
        let most = (self.options.micro_batch as i64).clamp(1, rows);
        (0..rows)
            .step_by(most as usize)
            .map(move |first| (first, most.min(rows - first)))
    }

    /// L on batches that stay the same throughout: fixed rows, templates, t and ε.
    fn validate(&self) -> f64 {
        let _frozen = tch::no_grad_guard();
        let mut sum = 0.0;
        for i in 0..VALIDATION_BATCHES {
            let batch = self.draw(VALIDATION_SEED + i);
            let c_delta = self.embed(&batch);
            let parts: Vec<Tensor> = self
                .micro_batches()
                .map(|(first, count)| self.errors(&batch, &c_delta, first, count))
                .collect();
            sum += total_loss(&Tensor::cat(&parts, 0), self.options.loss_weights).double_value(&[]);
        }
        sum / VALIDATION_BATCHES as f64
    }

    /// The actor with the best projector by the criterion.
    ///
    /// # Errors
    /// Never, as long as the best parameters are this projector's own.
    pub fn into_actor(self, base: &BaseSet) -> Result<Actor> {
        let projector = Projector::from_parameters(
            self.projector.config.clone(),
            &self.best,
            self.backbone.device(),
        )?;
        Ok(Actor::new(
            base,
            self.templates[0].tokens_of_words(),
            self.options.kind,
            self.options.target,
            projector,
        ))
    }
}
