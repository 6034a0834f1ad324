//! Flags of `tune`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::sample::Preset;
use super::{Crop, Method, ModelFlags, Target};

/// What the subject is, which decides the sentences it is tuned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person, an animal, a creature.
    Character,
    /// A thing.
    Object,
    /// A way of drawing.
    Style,
}

/// Flags of `tune`, and its batch keys.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct TuneFlags {
    /// Folder that generate-base has written
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// What is tuned: the paper's method, or a baseline to compare it with, reimplemented from its paper:
    /// textual-inversion or dreambooth-lora [default: oneactor]
    #[arg(long, value_name = "METHOD", value_enum)]
    pub method: Option<Method>,

    /// Base image to make the actor from: its number on grid.png, or auto for the most typical one
    /// [default: auto]
    #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
    pub target: Option<Target>,

    /// A photo of one's own (PNG or JPEG) to make the actor from; all base images are auxiliary
    /// samples then
    #[arg(long, value_name = "FILE")]
    pub target_image: Option<PathBuf>,

    /// Part of the target that is learnt enlarged too: face or subject, found by the model's own
    /// attention to that word (no trained detector; the subject where there is no plausible face);
    /// left,top,width,height in pixels of the base image; or none [default: none]
    #[arg(
        long,
        value_name = "face|subject|none|X,Y,W,H",
        allow_hyphen_values = true
    )]
    pub crop: Option<Crop>,

    /// What the subject is; decides the sentences it is tuned in [default: character]
    #[arg(long, value_name = "KIND", value_enum)]
    pub kind: Option<Kind>,

    /// Most steps to take; fewer when the loss on a fixed set of noise has converged
    /// [default: 1000; textual-inversion 5000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_steps: Option<i64>,

    /// Auxiliary samples in a step: K [default: 3 (paper, Sec. 4), or all where there are fewer]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub num_auxiliary: Option<i64>,

    /// Weight of the auxiliary loss (Eq. 14) [default: 0.5 (paper, Sec. 4)]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    pub lambda_1: Option<f64>,

    /// Weight of the average loss (Eq. 14) [default: 0.2 (paper, Sec. 4)]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    pub lambda_2: Option<f64>,

    /// Leave the auxiliary loss out, as lambda_1 0 does; with --without-aver that is the ablation of
    /// Fig. 11 [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub without_aux: Option<bool>,

    /// Leave the average loss out, as lambda_2 0 does (Fig. 11) [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub without_aver: Option<bool>,

    /// Step size of AdamW [default: 1e-4 (paper, Sec. 4; for dreambooth-lora as diffusers' script is commonly run);
    /// textual-inversion 5e-3]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub learning_rate: Option<f64>,

    /// Weight decay of AdamW [default: 0.01 (PyTorch's own)]
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,

    /// The projector's last layer: paper (AdaIN, with the base word's embedding), or release
    /// (LayerNorm without it, as in the authors' code) [default: paper]
    #[arg(long, value_name = "PRESET", value_enum)]
    pub preset: Option<Preset>,

    /// Seed of the first values of what is learnt and of every draw while tuning; its lowest 32 bits count [default: 0]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<i64>,

    /// Rows of a step that go through the U-Net at once: fewer need less memory and give the same step
    /// [default: all: K + 2; textual-inversion 4, dreambooth-lora 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub micro_batch: Option<i64>,

    /// Another name of --micro-batch
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<i64>,

    /// Tune again where an actor is already there [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub overwrite: Option<bool>,

    /// Which model the base images came from.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelFlags,
}
