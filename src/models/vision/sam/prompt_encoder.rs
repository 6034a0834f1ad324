//! SAM's prompts as tokens: positions become random Fourier features (arXiv 2006.10739), and the
//! kind of each point has a learned embedding.

use std::f64::consts::PI;

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::SamPrompts;
use crate::io::config_file::Class;
use crate::io::config_file::Field::{Harmless, Only, Read};
use crate::io::weights::WeightPath;
use crate::models::config::{PRETRAINED, PRETRAINED_BEFORE_5};

/// `prompt_encoder_config` of `config.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamPromptEncoderConfig {
    /// Width of a token.
    pub hidden_size: i64,
    /// Pixels of a picture's side.
    pub image_size: i64,
    /// Pixels of a patch's side.
    pub patch_size: i64,
}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "SamPromptEncoderConfig",
    fields: &[
        PRETRAINED,
        &[
            ("hidden_size", Read),
            ("image_size", Read),
            ("patch_size", Read),
            ("num_point_embeddings", Only(&["4"])),
            ("mask_input_channels", Harmless("only for masks as prompts")),
            ("hidden_act", Harmless("only for masks as prompts")),
            ("layer_norm_eps", Harmless("only for masks as prompts")),
        ],
    ],
    besides: &[PRETRAINED_BEFORE_5],
};

impl Default for SamPromptEncoderConfig {
    fn default() -> Self {
        SamPromptEncoderConfig {
            hidden_size: 256,
            image_size: 1024,
            patch_size: 16,
        }
    }
}

/// Name of the random Fourier features in the file.
const POSITIONS: &str = "positional_embedding";

/// The prompt encoder, for points and boxes.
pub struct SamPromptEncoder {
    positional_embedding: Tensor,
    no_mask_embed: Tensor,
    /// For points beside the object, points on it, and a box's first and second corner.
    point_embed: [Tensor; 4],
    not_a_point_embed: Tensor,
    grid: i64,
}

impl SamPromptEncoder {
    /// Reads `shared_image_embedding` and `prompt_encoder`; `grid` is the picture's side in
    /// patches.
    pub fn new(path: &WeightPath, num_pos_feats: i64, grid: i64) -> Self {
        let dim = 2 * num_pos_feats;
        let prompts = path / "prompt_encoder";
        // One tensor under two names: a file has either or both.
        let places = [
            path / "shared_image_embedding",
            &prompts / "shared_embedding",
        ];
        let read = |place: &WeightPath| place.tensor(POSITIONS, &[2, num_pos_feats]);
        let [image, point] =
            [0, 1].map(|i| places[i].contains(POSITIONS).then(|| read(&places[i])));
        let points = &prompts / "point_embed";
        SamPromptEncoder {
            positional_embedding: image.or(point).unwrap_or_else(|| read(&places[0])),
            no_mask_embed: (&prompts / "no_mask_embed").tensor("weight", &[1, dim]),
            point_embed: [0, 1, 2, 3].map(|i| (&points / i).tensor("weight", &[1, dim])),
            not_a_point_embed: (&prompts / "not_a_point_embed").tensor("weight", &[1, dim]),
            grid,
        }
    }

    /// Tokens `[N, T, D]`: one for each point, then two for the corners of a box, or one that means
    /// no box. `size` is the picture's side in pixels.
    pub fn embed(&self, prompts: &SamPrompts, size: f64) -> Tensor {
        // A pixel's position is its centre.
        let places = |pixels: &Tensor| self.positions(&((pixels + 0.5) / size));
        let n = prompts.points.size()[0];
        let [beside, on, first, second] = &self.point_embed;
        let is_on = prompts.labels.unsqueeze(-1).eq(1); // [N, P, 1]
        let points = places(&prompts.points) + on.where_self(&is_on, beside); // [N, P, D]
        let rest = match &prompts.boxes {
            Some(boxes) => places(&boxes.view([n, 2, 2])) + Tensor::stack(&[first, second], 1),
            None => self.not_a_point_embed.expand([n, 1, -1], false),
        };
        Tensor::cat(&[points, rest], 1)
    }

    /// Added to every position of the picture's embeddings if no mask is given, `[1, D, 1, 1]`.
    pub fn no_mask(&self) -> Tensor {
        self.no_mask_embed.view([1, -1, 1, 1])
    }

    /// Embeddings of the centres of all patches, `[1, H W, D]`, row by row.
    pub fn image_positions(&self) -> Tensor {
        let device = self.positional_embedding.device();
        let middles = (Tensor::arange(self.grid, (Kind::Float, device)) + 0.5) / self.grid;
        let (n, middles) = (self.grid, middles.view([1, -1]));
        let x = middles.expand([n, n], false);
        let places = Tensor::stack(&[&x, &x.tr()], -1); // [H, W, 2]
        self.positions(&places).view([1, n * n, -1])
    }

    /// `[sin 2π(2p - 1)B, cos 2π(2p - 1)B]` of positions p from 0 to 1, `[.., 2]` to `[.., D]`.
    fn positions(&self, places: &Tensor) -> Tensor {
        let angles = (places * 2.0 - 1.0).matmul(&self.positional_embedding) * (2.0 * PI);
        Tensor::cat(&[angles.sin(), angles.cos()], -1)
    }
}
