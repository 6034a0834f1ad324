//! The denoising loop, the only one in the program.

use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;

use super::controlnet::{Control, UnetPass};
use super::guidance::{AttentionGuide, Guidance};
use super::{Backbone, Conditioning, finite};
use crate::models::unet::cross_attention::AttentionProbe;
use crate::models::unet::shared_attention::AttentionSharing;
use crate::models::unet::text_memory::KnownTokens;
use crate::schedulers::{NoiseSchedule, Scheduler};

/// A step that was just taken.
pub struct StepTaken<'a> {
    /// Its number, counted from 1.
    pub step: usize,
    /// The timestep of its last pass.
    timestep: f64,
    /// What the network was shown there `[B, C, H, W]`, …
    z_t: &'a Tensor,
    /// … and what it said, after guidance.
    noise_pred: &'a Tensor,
    asked_for: i64,
}

impl StepTaken<'_> {
    /// The pictures as they would be if the prediction were right: latents without noise `[B, C, H, W]`, without those of
    /// companions.
    pub fn z_0(&self, schedule: &NoiseSchedule) -> Tensor {
        let z_0 = schedule.z_0(self.z_t, self.noise_pred, self.timestep);
        z_0.narrow(0, 0, self.asked_for)
    }
}

/// What a run of the loop leaves.
pub struct Denoised {
    /// Final latents `[B, C, H, W]` f32, not divided by the VAE's scaling factor.
    pub latents: Tensor,
    /// Eq. (7): the encoder's output for the conditional row at the last step `[B, C', h, w]` f32.
    pub encoder_features: Tensor,
}

/// Draws B pictures that share prompt and guidance from their initial latents `[B, C, H, W]`, kept to
/// the pictures of `control` where there is one, beside the guidance's companions. `progress` is called
/// after each step; an error from it ends the loop.
///
/// # Errors
/// When `progress` says so, or weights or latents hold a value that is not finite.
pub fn denoise(
    backbone: &Backbone,
    scheduler: &mut dyn Scheduler,
    initial_latents: &Tensor,
    guidance: &dyn Guidance,
    control: Option<&Control>,
    progress: &mut dyn FnMut(&StepTaken) -> Result<()>,
) -> Result<Denoised> {
    let _frozen = tch::no_grad_guard();
    let asked_for = initial_latents.size()[0];
    let initial_latents = match guidance.companions() {
        None => initial_latents.shallow_clone(),
        Some(companions) => Tensor::cat(&[initial_latents, &companions.latents], 0),
    };
    let (b, _, height, width) = initial_latents.size4()?;
    let mut latents = &initial_latents * scheduler.init_noise_sigma();
    let mut encoder_features = Tensor::new();
    let passes = scheduler.timesteps().len();
    let mut rows_of_steps = Rows::new(guidance, asked_for);
    let feature_reuse = guidance.feature_reuse();
    assert!(
        control.is_none() || (feature_reuse == 1 && guidance.companions().is_none()),
        "a ControlNet needs whole passes, and pictures of its own"
    );
    if let Some(guide) = guidance.attention() {
        guide.begin(&initial_latents, scheduler.step_of(passes - 1));
    }
    let mut deep = Tensor::new();
    // One upload for all steps: a GPU finishes what it was given before it takes one.
    let timesteps = scheduler.timesteps().iter().map(|&t| t as f32);
    let timesteps = Tensor::from_slice(&timesteps.collect::<Vec<_>>()).to_device(backbone.device());
    for i in 0..passes {
        let step = scheduler.step_of(i);
        let is_last = i + 1 == passes;
        let timestep = timesteps.narrow(0, i as i64, 1);
        let z_t = scheduler.scale_model_input(&latents, i); // [B, C, H, W]
        if let (0, Some(guide)) = (i, guidance.attention()) {
            look(backbone, &z_t, &timestep, guide);
        }

        let conditioning = rows_of_steps.at(step); // [R B, ..]
        let row = guidance.conditional_row(step) as i64;
        let rows = conditioning.prompt_embeds.size()[0] / b;
        let model_input = z_t.repeat([rows, 1, 1, 1]); // [R B, C, H, W]
        let timesteps = timestep.expand([rows * b], false);
        if let Some(guide) = guidance.attention() {
            let pass = (&model_input, &timesteps);
            let looked_at = match guidance.companions() {
                None => (row * b, b),
                Some(_) => (row * b + asked_for, b - asked_for),
            };
            prepare(backbone, guide, step, pass, conditioning, looked_at);
        }

        let has_features = deep.defined() && deep.size()[0] == rows * b;
        let predictions = if !i.is_multiple_of(feature_reuse) && has_features && !is_last {
            backbone.unet_shallow(&model_input, &timesteps, conditioning, &deep)
        } else {
            let mut encoded = backbone.unet_encode(&model_input, &timesteps, conditioning);
            if is_last {
                let h = encoded.h.narrow(0, row * b, asked_for);
                encoder_features = h.to_kind(tch::Kind::Float);
            }
            if let Some(control) = control.filter(|control| control.is_active(i + 1, passes)) {
                let pass = UnetPass {
                    model_input: &model_input,
                    timesteps: &timesteps,
                    conditioning,
                    first_conditional_row: row * b,
                };
                control.steer(backbone, &mut encoded, &pass);
            }
            let keep = (feature_reuse > 1).then_some(&mut deep);
            backbone.unet_decode_keeping(encoded, conditioning, keep)
        };
        if let Some(guide) = guidance.attention() {
            show(guide, step, conditioning, [height, width]);
        }
        let noise_pred = guidance.combine(step, &predictions.chunk(rows, 0)); // [B, C, H, W]

        latents = scheduler.step(&noise_pred, i, &latents);
        if is_last || scheduler.step_of(i + 1) > step {
            progress(&StepTaken {
                step,
                timestep: scheduler.timesteps()[i],
                z_t: &z_t,
                noise_pred: &noise_pred,
                asked_for,
            })?;
        }
    }
    backbone.weights_are_finite()?;
    finite(
        &latents,
        "the latents after the last step",
        "try --dtype fp32 or bf16",
    )?;
    Ok(Denoised {
        latents: latents.narrow(0, 0, asked_for),
        encoder_features,
    })
}

/// Asks for what a guide wants of the attention of a step's pass, and makes the pass before it where
/// queries come from one. Maps are those of `count` rows from `first` on.
fn prepare(
    backbone: &Backbone,
    guide: &dyn AttentionGuide,
    step: usize,
    (model_input, timesteps): (&Tensor, &Tensor),
    conditioning: &mut Conditioning,
    (first, count): (i64, i64),
) {
    let probe = || {
        let tokens = guide.watched(step);
        tokens.map(|tokens| AttentionProbe::new(first, count, tokens))
    };
    let mut vanilla = None;
    if let Some(nu) = guide.vanilla_queries(step) {
        let (_, _, height, width) = model_input.size4().expect("latents have four axes");
        conditioning.request.sharing = Some(AttentionSharing::vanilla());
        conditioning.request.probe = probe();
        let _ = backbone.predict(model_input, timesteps, conditioning);
        show(guide, step, conditioning, [height, width]);
        let kept = conditioning.request.sharing.take();
        vanilla = kept.map(|sharing| (sharing, nu));
    }
    let sharing = guide.shared(step).map(AttentionSharing::of);
    conditioning.request.sharing = match (sharing, vanilla) {
        (Some(sharing), Some((vanilla, nu))) => Some(sharing.blended(vanilla, nu)),
        (sharing, _) => sharing,
    };
    conditioning.request.mask = guide.mask(step);
    conditioning.request.probe = probe();
}

/// Gives a guide what the probe of a pass has seen.
fn show(
    guide: &dyn AttentionGuide,
    step: usize,
    conditioning: &mut Conditioning,
    latent_size: [i64; 2],
) {
    if let Some(probe) = conditioning.request.probe.take() {
        guide.observe(step, &probe.into_maps(), latent_size);
    }
}

/// Each step's rows for the images that are asked for and their companions, all images of a row together. With them goes
/// what the layers keep of their text.
struct Rows<'g> {
    guidance: &'g dyn Guidance,
    asked_for: i64,
    tokens: Rc<KnownTokens>,
    /// The last ones, and what of the guidance they were made of.
    made: Option<(&'g Conditioning, Conditioning)>,
}

impl<'g> Rows<'g> {
    fn new(guidance: &'g dyn Guidance, asked_for: i64) -> Self {
        Rows {
            guidance,
            asked_for,
            tokens: Rc::default(),
            made: None,
        }
    }

    /// As they were made for the step before where that had the same.
    fn at(&mut self, step: usize) -> &mut Conditioning {
        let rows = self.guidance.conditioning(step);
        let last = self.made.take();
        let made = last.filter(|(of, _)| std::ptr::eq(*of, rows));
        let made = made.unwrap_or_else(|| (rows, self.of(rows)));
        &mut self.made.insert(made).1
    }

    fn of(&self, rows: &Conditioning) -> Conditioning {
        match self.guidance.companions() {
            None => rows.for_steps(self.asked_for, &self.tokens),
            Some(companions) => {
                let (others, m) = (&companions.conditioning, companions.latents.size()[0]);
                rows.beside(self.asked_for, others, m, &self.tokens)
            }
        }
    }
}

/// Step 0: a pass for its attention alone, if it is asked for.
fn look(backbone: &Backbone, model_input: &Tensor, timestep: &Tensor, guide: &dyn AttentionGuide) {
    let (Some(row), Some(tokens)) = (guide.first_look(), guide.watched(0)) else {
        return;
    };
    let (b, _, height, width) = model_input.size4().expect("latents have four axes");
    let mut conditioning = row.repeat(b);
    conditioning.request.probe = Some(AttentionProbe::new(0, b, tokens));
    let timesteps = timestep.expand([b], false);
    let _ = backbone.predict(model_input, &timesteps, &conditioning);
    if let Some(probe) = conditioning.request.probe {
        guide.observe(0, &probe.into_maps(), [height, width]);
    }
}
