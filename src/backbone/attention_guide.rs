//! Attention guides, which mask cross-attention or share self-attention between images, depending on the
//! attention maps of earlier passes.

use tch::Tensor;

use super::unet_pass::UnetPass;
use super::{Backbone, Conditioning};
use crate::models::unet::attention_probe::{AttentionMaps, AttentionProbe, WatchedWords};
use crate::models::unet::cross_attention::{AttentionOutput, AttentionRequest};

/// Changes and records attention in one run of the denoising loop.
pub trait AttentionGuide {
    /// The request for the next pass: how attention is changed and recorded. Called right before the pass. The
    /// guide may first make additional passes only for their attention.
    fn request(&mut self, pass: &StepPass) -> AttentionRequest;

    /// Takes the maps of the request's probe after a pass of `step`, for latents of this height and width.
    fn observe(&mut self, step: usize, maps: &[AttentionMaps], latent_size: [i64; 2]);
}

/// The next pass of the denoising loop.
pub struct StepPass<'a> {
    /// The step of the pass, counted from 1.
    pub step: usize,
    /// The number of steps of the run.
    pub steps: usize,
    /// Whether this is the first pass of the run.
    pub is_first: bool,
    /// The initial latents of all images `[B, C, H, W]`, companions last, before the sampler scales them.
    pub initial_latents: &'a Tensor,
    pub(super) backbone: &'a Backbone,
    /// R B rows, all images of a row together.
    pub(super) unet: UnetPass<'a>,
    /// First row and number of rows whose maps are recorded.
    pub(super) probed: (i64, i64),
}

impl StepPass<'_> {
    /// Records the attention to these words in the conditional row: of the companions, if there are any, and
    /// otherwise of all images.
    pub fn probe(&self, words: &WatchedWords) -> AttentionProbe {
        let (first, count) = self.probed;
        AttentionProbe::new(first, count, words)
    }

    /// Makes the same pass only for its attention.
    pub fn attend(&self, request: AttentionRequest) -> AttentionOutput {
        self.backbone.predict_attending(self.unet, request).1
    }

    /// Makes a pass of one row `[1, S, D]` for each of the B images, at the same latents and timestep, and
    /// returns its maps of these words.
    pub fn maps_of_row(&self, row: &Conditioning, words: &WatchedWords) -> Vec<AttentionMaps> {
        let images = self.initial_latents.size()[0];
        let conditioning = row.repeat(images);
        let one_row = |t: &Tensor| t.narrow(0, 0, images);
        let (model_input, timesteps) =
            (one_row(self.unet.model_input), one_row(self.unet.timesteps));
        let pass = UnetPass::new(&model_input, &timesteps, &conditioning);
        let request = AttentionRequest {
            probe: Some(AttentionProbe::new(0, images, words)),
            ..AttentionRequest::default()
        };
        let (_, attention) = self.backbone.predict_attending(pass, request);
        attention.maps.expect("the request has a probe")
    }

    /// Height and width of the latents.
    pub fn latent_size(&self) -> [i64; 2] {
        let (_, _, height, width) = self
            .initial_latents
            .size4()
            .expect("latents have four axes");
        [height, width]
    }
}
