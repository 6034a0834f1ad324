//! How a U-Net or ControlNet is given the timestep and, for SDXL, further conditions:
//! `time_embedding` and `add_embedding` of diffusers (arXiv 2307.01952, Sec. 2.2).

use tch::{Kind, Tensor};

use super::embeddings::{TimestepEmbedding, Timesteps};
use crate::io::weights::WeightPath;
use crate::models::layers::silu;

/// The conditions of SDXL besides the prompt's tokens.
#[derive(Debug)]
pub struct AddedConditions {
    /// The pooled prompt embedding `[B, D]`.
    pub text_embeds: Tensor,
    /// Original height and width, top and left of the crop, and target height and width, in pixels
    /// `[B, 6]`.
    pub time_ids: Tensor,
}

impl AddedConditions {
    /// Applies the same change to both tensors.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> AddedConditions {
        AddedConditions {
            text_embeds: change(&self.text_embeds),
            time_ids: change(&self.time_ids),
        }
    }
}

/// Sizes of the embeddings.
pub(super) struct TimeConfig {
    /// Width of the embedded timestep; the result is four times as wide.
    pub channels: i64,
    /// Whether cosines come first.
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies.
    pub freq_shift: f64,
    /// Width of one embedded size, for a network that takes pooled text and sizes.
    pub addition_time_embed_dim: Option<i64>,
    /// Width of the pooled text and six embedded sizes together.
    pub projection_class_embeddings_input_dim: Option<i64>,
}

/// Turns timestep, pooled text and sizes into one vector.
pub(super) struct TimeConditions {
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    added: Option<AddEmbedding>,
}

struct AddEmbedding {
    add_time_proj: Timesteps,
    add_embedding: TimestepEmbedding,
}

impl TimeConditions {
    /// Reads `time_embedding`, and `add_embedding` where the network has it.
    pub fn new(path: &WeightPath, config: &TimeConfig) -> Self {
        let temb_channels = 4 * config.channels;
        let sinusoids = |dim| Timesteps::new(dim, config.flip_sin_to_cos, config.freq_shift);
        let embedding =
            |name: &str, width| TimestepEmbedding::new(&(path / name), width, temb_channels);
        TimeConditions {
            time_proj: sinusoids(config.channels),
            time_embedding: embedding("time_embedding", config.channels),
            added: config.addition_time_embed_dim.map(|dim| AddEmbedding {
                add_time_proj: sinusoids(dim),
                add_embedding: embedding(
                    "add_embedding",
                    config
                        .projection_class_embeddings_input_dim
                        .unwrap_or(6 * dim),
                ),
            }),
        }
    }

    /// `silu(temb) [B, D_t]` of `timesteps [B]`, in the network's precision `kind`.
    pub fn forward(
        &self,
        timesteps: &Tensor,
        added: Option<&AddedConditions>,
        kind: Kind,
    ) -> Tensor {
        let mut temb = self
            .time_embedding
            .forward(&self.time_proj.forward(timesteps).to_kind(kind)); // [B, D_t]
        if let Some(own) = &self.added {
            let given = added.expect("the caller knows the config and gives text and sizes");
            let b = given.time_ids.size()[0];
            let sizes = own
                .add_time_proj
                .forward(&given.time_ids.flatten(0, -1))
                .view([b, -1]); // [B, 6 D_a]
            let both = Tensor::cat(&[&given.text_embeds, &sizes.to_kind(kind)], -1);
            temb += own.add_embedding.forward(&both);
        }
        silu(temb)
    }
}
