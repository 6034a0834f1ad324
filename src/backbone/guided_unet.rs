//! The U-Net for the denoising loop: predicts all rows of a guidance at one step, with the guidance's
//! companions and attention guide, with ControlNets and with feature reuse.

use tch::{Kind, Tensor};

use super::Backbone;
use super::attention_guide::{AttentionGuide, StepPass};
use super::controlnet::Control;
use super::guidance::Guidance;
use super::step_rows::RunRows;
use super::unet_pass::UnetPass;
use crate::models::unet::cross_attention::AttentionRequest;
use crate::schedulers::Scheduler;

/// The U-Net with a guidance, for one run.
pub(super) struct GuidedUnet<'a> {
    guidance: &'a dyn Guidance,
    guide: Option<Box<dyn AttentionGuide + 'a>>,
    rows: RunRows<'a>,
    unet: ReusingUnet<'a>,
    /// The initial latents of all images `[B, C, H, W]`, companions last.
    initial_latents: Tensor,
    /// Number of images, without companions.
    asked_for: i64,
    /// The timestep of every pass `[P]`, on the device. They are uploaded together, because each upload waits
    /// until the GPU has finished its earlier work.
    timesteps: Tensor,
    steps: usize,
}

/// The predictions of the rows of one pass.
pub(super) struct RowPredictions {
    /// The prediction of each row `[B, C, H, W]` f32.
    pub rows: Vec<Tensor>,
    /// After the last pass: Eq. (7), the encoder's output for the conditional row of the images without
    /// companions, `[B, C', h, w]` f32.
    pub encoder_features: Option<Tensor>,
}

impl<'a> GuidedUnet<'a> {
    /// Prepares the passes of a sampler for images with these initial latents `[B, C, H, W]`.
    ///
    /// # Panics
    /// When there are ControlNets and the guidance has companions or reuses features.
    pub(super) fn new(
        backbone: &'a Backbone,
        guidance: &'a dyn Guidance,
        control: Option<&'a Control>,
        scheduler: &dyn Scheduler,
        initial_latents: &Tensor,
    ) -> Self {
        let companions = guidance.companions();
        let feature_reuse = guidance.feature_reuse();
        assert!(
            control.is_none() || (feature_reuse == 1 && companions.is_none()),
            "a ControlNet needs whole passes and a guidance without companions"
        );
        let asked_for = initial_latents.size()[0];
        let passes = scheduler.timesteps().len();
        let timesteps: Vec<f32> = scheduler.timesteps().iter().map(|&t| t as f32).collect();
        GuidedUnet {
            guidance,
            guide: guidance.attention(),
            rows: RunRows::new(guidance, asked_for),
            unet: ReusingUnet {
                backbone,
                control,
                feature_reuse,
                passes,
                deep: None,
            },
            initial_latents: match companions {
                None => initial_latents.shallow_clone(),
                Some(others) => Tensor::cat(&[initial_latents, &others.latents], 0),
            },
            asked_for,
            timesteps: Tensor::from_slice(&timesteps).to_device(backbone.device()),
            steps: scheduler.step_of(passes - 1),
        }
    }

    /// The initial latents of all images `[B, C, H, W]`, companions last.
    pub(super) fn initial_latents(&self) -> &Tensor {
        &self.initial_latents
    }

    /// The predictions of pass `i`, counted from 0, of a step, counted from 1, for the latents
    /// `z_t [B, C, H, W]` as the sampler scales them. Passes must come in order.
    pub(super) fn predict(&mut self, z_t: &Tensor, i: usize, step: usize) -> RowPredictions {
        let images = z_t.size()[0];
        let rows = self.guidance.conditioning(step).rows();
        let conditional = self.guidance.conditional_row(step) as i64 * images;
        let model_input = z_t.repeat([rows, 1, 1, 1]); // [R B, C, H, W]
        let timesteps = self.timesteps.narrow(0, i as i64, 1);
        let timesteps = timesteps.expand([rows * images], false);
        let step_pass = StepPass {
            step,
            steps: self.steps,
            is_first: i == 0,
            initial_latents: &self.initial_latents,
            backbone: self.unet.backbone,
            unet: self.rows.at(step).pass(&model_input, &timesteps),
            probed: match images - self.asked_for {
                0 => (conditional, images),
                companions => (conditional + self.asked_for, companions),
            },
        };
        let request = match &mut self.guide {
            Some(guide) => guide.request(&step_pass),
            None => AttentionRequest::default(),
        };
        let pass = step_pass.unet.attending(&request);
        let (noise_pred, h) = self.unet.predict(&pass, i, conditional);
        let maps = request.into_output().maps;
        if let (Some(guide), Some(maps)) = (&mut self.guide, maps) {
            guide.observe(step, &maps, step_pass.latent_size());
        }
        RowPredictions {
            rows: noise_pred.chunk(rows, 0),
            encoder_features: h.map(|h| {
                h.narrow(0, conditional, self.asked_for)
                    .to_kind(Kind::Float)
            }),
        }
    }
}

/// The U-Net and its ControlNets. Only every `feature_reuse`-th pass is whole; the others reuse the features of
/// the last whole pass (arXiv 2312.00858).
struct ReusingUnet<'a> {
    backbone: &'a Backbone,
    control: Option<&'a Control>,
    feature_reuse: usize,
    /// Number of passes in the run.
    passes: usize,
    /// Features of the last whole pass, see [`Backbone::unet_decode`]; `None` without feature reuse.
    deep: Option<Tensor>,
}

impl ReusingUnet<'_> {
    /// The prediction of pass `i` `[R B, C, H, W]` f32, and after the last pass, which is always whole, h
    /// `[R B, C', h, w]`. Rows before `conditional` are without the prompt.
    fn predict(&mut self, pass: &UnetPass, i: usize, conditional: i64) -> (Tensor, Option<Tensor>) {
        let is_last = i + 1 == self.passes;
        let is_whole = is_last || i.is_multiple_of(self.feature_reuse);
        let deep = self
            .deep
            .as_ref()
            .filter(|deep| deep.size()[0] == pass.rows());
        if let (false, Some(deep)) = (is_whole, deep) {
            return (self.backbone.unet_shallow(pass, deep), None);
        }
        let mut encoded = self.backbone.unet_encode(pass);
        let h = is_last.then(|| encoded.h.shallow_clone());
        if let Some(control) = self.control.filter(|c| c.is_active(i + 1, self.passes)) {
            control.steer(self.backbone, &mut encoded, pass, conditional);
        }
        let (noise_pred, deep) = self
            .backbone
            .unet_decode(encoded, pass, self.feature_reuse > 1);
        self.deep = deep;
        (noise_pred, h)
    }
}
