//! The rows of a run's passes. All rows of an image have the same latents and timestep, so two things are
//! computed only once: each layer's keys and values of a token, and, for rows that differ only in their text,
//! everything before the first layer that reads the text.

use std::rc::Rc;

use tch::Tensor;

use super::Conditioning;
use super::guidance::Guidance;
use super::unet_pass::UnetPass;
use crate::models::unet::cross_attention::Text;
use crate::models::unet::shared_rows::SharedRows;
use crate::models::unet::text_memory::{KnownTokens, TextMemory};

/// Every row of a conditioning for every image, all images of a row together.
pub struct StepRows {
    conditioning: Conditioning,
    memory: TextMemory,
    /// `None` if no two rows of an image differ only in their text, and if there are companions.
    shared: Option<SharedRows>,
}

impl StepRows {
    /// Rows for `n` images. Layers reuse the keys and values of `tokens` that they have already computed.
    pub fn new(rows: &Conditioning, n: i64, tokens: &Rc<KnownTokens>) -> Self {
        StepRows {
            conditioning: rows.repeat(n),
            memory: tokens.memory_of(&rows.prompt_embeds, n),
            shared: SharedRows::new(&rows.first_rows_alike(), n, rows.prompt_embeds.device()),
        }
    }

    /// Rows for `n` images, followed in each row by `m` companions that have their own conditions.
    fn beside(
        rows: &Conditioning,
        n: i64,
        (companions, m): (&Conditioning, i64),
        tokens: &Rc<KnownTokens>,
    ) -> Self {
        let conditioning = rows.beside(n, companions, m);
        StepRows {
            memory: tokens.memory_of(&conditioning.prompt_embeds, 1),
            conditioning,
            shared: None,
        }
    }

    /// A pass of these rows: `model_input [R n, C, H, W]` at `timesteps [R n]`.
    pub fn pass<'a>(&'a self, model_input: &'a Tensor, timesteps: &'a Tensor) -> UnetPass<'a> {
        let plain = UnetPass::new(model_input, timesteps, &self.conditioning);
        UnetPass {
            text: Text {
                memory: Some(&self.memory),
                shared_rows: self.shared.as_ref(),
                ..plain.text
            },
            ..plain
        }
    }
}

/// The rows of each step of a run.
pub(super) struct RunRows<'a> {
    guidance: &'a dyn Guidance,
    /// Number of images, without the guidance's companions.
    images: i64,
    tokens: Rc<KnownTokens>,
    /// The rows of the previous step, and the conditioning from which they were made.
    last: Option<(&'a Conditioning, StepRows)>,
}

impl<'a> RunRows<'a> {
    /// Rows for this many images and the guidance's companions.
    pub(super) fn new(guidance: &'a dyn Guidance, images: i64) -> Self {
        RunRows {
            guidance,
            images,
            tokens: Rc::default(),
            last: None,
        }
    }

    /// The rows of a step. The rows of the previous step are reused if the guidance has the same conditioning.
    pub(super) fn at(&mut self, step: usize) -> &StepRows {
        let rows = self.guidance.conditioning(step);
        let last = self.last.take().filter(|(of, _)| std::ptr::eq(*of, rows));
        let last = last.unwrap_or_else(|| (rows, self.of(rows)));
        &self.last.insert(last).1
    }

    fn of(&self, rows: &Conditioning) -> StepRows {
        match self.guidance.companions() {
            None => StepRows::new(rows, self.images, &self.tokens),
            Some(companions) => {
                let others = (&companions.conditioning, companions.latents.size()[0]);
                StepRows::beside(rows, self.images, others, &self.tokens)
            }
        }
    }
}
