//! Segment Anything (arXiv 2304.02643): `SamModel` of transformers. A picture is encoded once;
//! points and boxes then ask for masks.
//!
//! Letters in addition to those of [`crate::models`]: N prompts, P points of a prompt, T tokens of
//! a prompt, M masks of a prompt.

mod mask_decoder;
mod mask_decoder_config;
pub mod processor;
mod prompt_encoder;
mod two_way_transformer;
mod vision_attention;
mod vision_encoder;

use anyhow::Result;
use serde::Deserialize;
use tch::Tensor;

use super::clip_vision_model::check_sizes;
use crate::error::model;
use crate::io::config_file::Field::Harmless;
use crate::io::config_file::{Class, ConfigFile};
use crate::io::weights::WeightPath;
use crate::models::config::{PRETRAINED, PRETRAINED_BEFORE_5, WIDTHS, expect_sizes};
use mask_decoder::SamMaskDecoder;
use mask_decoder_config::SamMaskDecoderConfig;
use prompt_encoder::{SamPromptEncoder, SamPromptEncoderConfig};
use vision_encoder::{SamVisionConfig, SamVisionEncoder};

pub use mask_decoder_config::CLASS as MASK_DECODER;
pub use prompt_encoder::CLASS as PROMPT_ENCODER;
pub use vision_encoder::CLASS as VISION;

/// `config.json`, with the defaults of transformers' `SamConfig` and its parts.
#[derive(Clone, Debug)]
pub struct SamConfig {
    vision_config: SamVisionConfig,
    prompt_encoder_config: SamPromptEncoderConfig,
    mask_decoder_config: SamMaskDecoderConfig,
}

/// The file has no fields of its own; its parts are read separately.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SamFields {}

/// How each parameter of the class is treated.
pub const CLASS: Class = Class {
    name: "SamConfig",
    fields: &[
        PRETRAINED,
        &[
            ("vision_config", Harmless("read separately")),
            ("prompt_encoder_config", Harmless("read separately")),
            ("mask_decoder_config", Harmless("read separately")),
            ("initializer_range", Harmless("only before training")),
            (
                "tie_word_embeddings",
                Harmless("for networks that write text"),
            ),
        ],
    ],
    besides: &[PRETRAINED_BEFORE_5],
};

/// Prompts in pixels of the prepared picture: N prompts with P points each.
pub struct SamPrompts {
    /// x and y of the points, `[N, P, 2]`.
    pub points: Tensor,
    /// 1 for a point on the object, 0 for a point beside it, `[N, P]`, i64.
    pub labels: Tensor,
    /// Left, top, right and bottom of a box around the object, `[N, 4]`.
    pub boxes: Option<Tensor>,
}

/// M masks for each prompt, from a part of the object to the whole.
pub struct SamMasks {
    /// Above 0 inside the mask, `[N, M, S / 4, S / 4]` for patches of 16 pixels and a picture of
    /// side S.
    pub low_res_masks: Tensor,
    /// The predicted quality of each mask as intersection over union, `[N, M]`.
    pub iou_predictions: Tensor,
}

/// A Segment Anything Model.
pub struct SamModel {
    vision_encoder: SamVisionEncoder,
    prompt_encoder: SamPromptEncoder,
    mask_decoder: SamMaskDecoder,
    image_size: i64,
}

impl SamModel {
    /// Reads the network. Tensors that are only needed for masks as prompts are not read, see
    /// [`SamModel::UNUSED`].
    ///
    /// # Errors
    /// When the config has a field that changes the architecture, or sizes that do not fit
    /// together.
    pub fn new(path: &WeightPath, config: &SamConfig) -> Result<Self> {
        config.check()?;
        let vision = &config.vision_config;
        Ok(SamModel {
            vision_encoder: SamVisionEncoder::new(&(path / "vision_encoder"), vision),
            prompt_encoder: SamPromptEncoder::new(path, vision.num_pos_feats, vision.grid()),
            mask_decoder: SamMaskDecoder::new(
                &(path / "mask_decoder"),
                &config.mask_decoder_config,
            ),
            image_size: vision.image_size,
        })
    }

    /// Tensors of checkpoints that are not needed for points and boxes.
    pub const UNUSED: [&str; 10] = [
        "mask_embed.conv1.weight",
        "mask_embed.conv1.bias",
        "mask_embed.conv2.weight",
        "mask_embed.conv2.bias",
        "mask_embed.conv3.weight",
        "mask_embed.conv3.bias",
        "mask_embed.layer_norm1.weight",
        "mask_embed.layer_norm1.bias",
        "mask_embed.layer_norm2.weight",
        "mask_embed.layer_norm2.bias",
    ];

    /// The side in pixels of the pictures that the network reads.
    pub fn image_size(&self) -> i64 {
        self.image_size
    }

    /// `[B, 3, image_size, image_size]` to `[B, D, H, W]`, one position for each patch.
    pub fn image_embeddings(&self, pixel_values: &Tensor) -> Tensor {
        self.vision_encoder.forward(pixel_values)
    }

    /// The masks for several prompts on one picture with `image_embeddings [1, D, H, W]`.
    pub fn masks(&self, image_embeddings: &Tensor, prompts: &SamPrompts) -> SamMasks {
        let size = self.image_size as f64;
        let sparse = self.prompt_encoder.embed(prompts, size); // [N, T, D]
        let image = image_embeddings + self.prompt_encoder.no_mask();
        let positions = self.prompt_encoder.image_positions(); // [1, H W, D]
        self.mask_decoder.forward(&image, &positions, &sparse)
    }
}

impl SamConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// When the file is of another class, or a field has an unsupported value.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        // Other families of models use other names for their weights.
        if file.text("model_type") != Some("sam") {
            return Err(file.wrong("model_type", "sam"));
        }
        let SamFields {} = file.read(&CLASS)?;
        Ok(SamConfig {
            vision_config: file.part("vision_config")?.read(&VISION)?,
            prompt_encoder_config: file.part("prompt_encoder_config")?.read(&PROMPT_ENCODER)?,
            mask_decoder_config: file.part("mask_decoder_config")?.read(&MASK_DECODER)?,
        })
    }

    /// Refuses sizes on which libtorch would fail.
    fn check(&self) -> Result<()> {
        let (vision, _, _) = self.parts();
        check_sizes(
            vision.hidden_size,
            vision.num_attention_heads,
            vision.image_size,
            vision.patch_size,
        )?;
        self.check_ranges()?;
        self.check_equal()?;
        self.check_divisible()
    }

    fn parts(
        &self,
    ) -> (
        &SamVisionConfig,
        &SamPromptEncoderConfig,
        &SamMaskDecoderConfig,
    ) {
        (
            &self.vision_config,
            &self.prompt_encoder_config,
            &self.mask_decoder_config,
        )
    }

    fn check_ranges(&self) -> Result<()> {
        let (vision, _, decoder) = self.parts();
        let widths = 1..=8192;
        let head = vision.hidden_size / vision.num_attention_heads;
        let (grid, inner) = (vision.grid(), vision.inner());
        expect_sizes(
            "config.json",
            &[
                ("width of a head of the vision encoder", head, 1..=512),
                ("patches along a side", grid, 1..=128),
                ("window_size", vision.window_size, 1..=128),
                ("num_hidden_layers", vision.num_hidden_layers, 1..=64),
                ("mlp_dim", inner, WIDTHS),
                ("num_pos_feats", vision.num_pos_feats, widths.clone()),
                (
                    "hidden_size of the mask decoder",
                    decoder.hidden_size,
                    widths,
                ),
                ("mlp_dim of the mask decoder", decoder.mlp_dim, WIDTHS),
                (
                    "num_hidden_layers of the mask decoder",
                    decoder.num_hidden_layers,
                    1..=64,
                ),
                (
                    "num_multimask_outputs",
                    decoder.num_multimask_outputs,
                    1..=64,
                ),
                (
                    "attention_downsample_rate",
                    decoder.attention_downsample_rate,
                    WIDTHS,
                ),
                ("iou_head_depth", decoder.iou_head_depth, 2..=64),
                ("iou_head_hidden_dim", decoder.iou_head_hidden_dim, WIDTHS),
            ],
        )
    }

    /// Sizes that two of the networks share must be equal in both.
    fn check_equal(&self) -> Result<()> {
        let (vision, prompts, decoder) = self.parts();
        let dim = prompts.hidden_size;
        for (what, found, expected) in [
            (
                "output_channels of the vision encoder",
                vision.output_channels,
                dim,
            ),
            ("hidden_size of the mask decoder", decoder.hidden_size, dim),
            ("twice num_pos_feats", 2 * vision.num_pos_feats, dim),
            (
                "image_size of the prompt encoder",
                prompts.image_size,
                vision.image_size,
            ),
            (
                "patch_size of the prompt encoder",
                prompts.patch_size,
                vision.patch_size,
            ),
        ] {
            if found != expected {
                return Err(model(format!(
                    "config.json: {what}: found {found}, expected {expected} as in the other parts"
                )));
            }
        }
        Ok(())
    }

    /// Checks widths that are divided: among heads, by the last attention, and by 8 in upscaling.
    fn check_divisible(&self) -> Result<()> {
        let (_, prompts, decoder) = self.parts();
        let dim = prompts.hidden_size;
        let (rate, heads) = (
            decoder.attention_downsample_rate,
            decoder.num_attention_heads,
        );
        for (what, width, parts) in [
            ("hidden_size of the mask decoder", dim, 8),
            ("hidden_size of the mask decoder", dim, rate),
            ("half of it, for the heads", dim / 2, heads),
            (
                "its part in the last attention, for the heads",
                dim / rate,
                heads,
            ),
        ] {
            if parts < 1 || width < 1 || width % parts != 0 {
                return Err(model(format!(
                    "config.json: {what}: found {width}, expected a multiple of {parts}"
                )));
            }
        }
        Ok(())
    }
}
