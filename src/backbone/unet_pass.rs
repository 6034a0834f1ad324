//! One pass through the U-Net: its inputs, its two halves, and the whole pass.

use tch::{Kind, Tensor};

use super::{Backbone, Conditioning};
use crate::models::unet::cross_attention::{AttentionOutput, AttentionRequest, Text};
use crate::models::unet::unet_2d_condition::{AddedConditions, Encoded};

/// The inputs of one pass over R rows.
#[derive(Clone, Copy)]
pub struct UnetPass<'a> {
    /// Scaled latents `[R, C, H, W]`.
    pub model_input: &'a Tensor,
    /// Timesteps `[R]`.
    pub timesteps: &'a Tensor,
    /// The text of R rows, and how attention reads it.
    pub text: Text<'a>,
    /// Pooled prompts and sizes, for a model that uses them.
    pub added: Option<&'a AddedConditions>,
}

impl<'a> UnetPass<'a> {
    /// A pass that neither changes nor records attention.
    pub fn new(
        model_input: &'a Tensor,
        timesteps: &'a Tensor,
        conditioning: &'a Conditioning,
    ) -> Self {
        UnetPass {
            model_input,
            timesteps,
            text: Text {
                image: conditioning.image.as_ref(),
                ..Text::from(&conditioning.prompt_embeds)
            },
            added: conditioning.added.as_ref(),
        }
    }

    /// The same pass with the mask, probe and sharing of a request.
    pub fn attending(self, request: &'a AttentionRequest) -> Self {
        UnetPass {
            text: self.text.attending(request),
            ..self
        }
    }

    /// The number of rows R.
    pub fn rows(&self) -> i64 {
        self.model_input.size()[0]
    }
}

impl Backbone {
    /// The U-Net's first half, Eq. (7).
    pub fn unet_encode(&self, pass: &UnetPass) -> Encoded {
        let model_input = pass.model_input.to_kind(self.kind);
        self.unet()
            .encode(&model_input, pass.timesteps, pass.text, pass.added)
    }

    /// The U-Net's second half: the prediction `[R, C, H, W]` f32. With `keep` also the features from which
    /// [`unet_shallow`](Self::unet_shallow) continues.
    pub fn unet_decode(
        &self,
        encoded: Encoded,
        pass: &UnetPass,
        keep: bool,
    ) -> (Tensor, Option<Tensor>) {
        let (noise_pred, deep) = self.unet().decode_keeping(encoded, pass.text, keep);
        (noise_pred.to_kind(Kind::Float), deep)
    }

    /// A pass through only the U-Net's outermost blocks: the prediction `[R, C, H, W]` f32. See
    /// [`UNet2DConditionModel::shallow`].
    ///
    /// [`UNet2DConditionModel::shallow`]: crate::models::unet::unet_2d_condition::UNet2DConditionModel::shallow
    pub fn unet_shallow(&self, pass: &UnetPass, deep: &Tensor) -> Tensor {
        let model_input = pass.model_input.to_kind(self.kind);
        self.unet()
            .shallow(&model_input, pass.timesteps, pass.text, pass.added, deep)
            .to_kind(Kind::Float)
    }

    /// The prediction `[R, C, H, W]` f32 of a whole pass: `model_input [R, C, H, W]` at `timesteps [R]` with R
    /// rows of conditions.
    pub fn predict(
        &self,
        model_input: &Tensor,
        timesteps: &Tensor,
        conditioning: &Conditioning,
    ) -> Tensor {
        self.whole(&UnetPass::new(model_input, timesteps, conditioning))
    }

    /// A whole pass with a request: the prediction `[R, C, H, W]` f32, and the recorded attention.
    pub fn predict_attending(
        &self,
        pass: UnetPass,
        request: AttentionRequest,
    ) -> (Tensor, AttentionOutput) {
        let noise_pred = self.whole(&pass.attending(&request));
        (noise_pred, request.into_output())
    }

    fn whole(&self, pass: &UnetPass) -> Tensor {
        self.unet_decode(self.unet_encode(pass), pass, false).0
    }
}
