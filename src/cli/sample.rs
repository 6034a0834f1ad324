//! Flags of `sample`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::image_prompt::ImagePromptFlags;
use super::{ControlFlags, DrawingFlags, Method, ModelFlags, Target, one_or_many};

/// A set of defaults for sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// eta_1 8.5, eta_2 1, the model's own scheduler.
    #[default]
    Paper,
    /// eta_1 7.5, eta_2 0, dpm++2m: as in the code the authors released.
    Release,
}

/// What `[b]` in a prompt stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectAs {
    /// The base word.
    #[default]
    Word,
    /// The target prompt up to its first comma.
    Phrase,
}

/// Whether each subject's offset is confined to its mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectMasks {
    /// Where a prompt names several actors.
    #[default]
    Auto,
    /// Where it names any subject, also those of an actor that was tuned on several together.
    On,
    /// Nowhere.
    Off,
}

/// Flags of `sample`, and its batch keys.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help text: [b] is the placeholder, not a link"
)]
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct SampleFlags {
    /// Actor: an actor.safetensors, or the folder it lies in; several for several subjects in one
    /// picture, of whom each prompt shows those that it names
    #[arg(value_name = "DIR|actor.safetensors")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub actors: Option<Vec<PathBuf>>,

    /// What to draw, with the actor's base word or [b] for it (with several actors, the base words
    /// of those that are to be in it); may be given several times
    #[arg(short, long, value_name = "TEXT")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub prompt: Option<Vec<String>>,

    /// Text file with prompts, one a line, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    pub prompts_file: Option<PathBuf>,

    /// Folder for 0000-SEED.png …, grid.png (scenes.png among base images) and manifest.jsonl
    /// [default: the folder samples beside the actor; with several actors it must be named]
    #[arg(short, long, value_name = "OUT")]
    pub output_dir: Option<PathBuf>,

    /// Images of each prompt [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub num_images: Option<i64>,

    /// What [b] stands for: the base word, or the target prompt up to its first comma
    /// [default: word]
    #[arg(long, value_name = "FORM", value_enum)]
    pub subject_as: Option<SubjectAs>,

    /// A picture made by this program, to draw again; other flags change what they name
    #[arg(long, value_name = "IMAGE.png")]
    pub from: Option<PathBuf>,

    /// Also write the final latents of each image as 0000-SEED.safetensors [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub save_latents: Option<bool>,

    /// Whether each subject's offset acts only where attention finds the subject: auto (as in the paper, with
    /// several actors; subjects tuned together act everywhere), on (those too, and a single one), off
    /// [default: auto]
    #[arg(long, value_name = "WHEN", value_enum)]
    pub subject_masks: Option<SubjectMasks>,

    /// With several actors or --subject-masks on: also write where each subject's offset acted in the last
    /// guided step, in white, as 0000-SEED-mask-WORD.png [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub save_masks: Option<bool>,

    /// Draw with the plain model too, into the folder plain, and put both side by side on
    /// comparison.png [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub compare: Option<bool>,

    /// The method that keeps the subject the same: the paper's, or a baseline to compare with, which takes the
    /// folder of the base images [default: oneactor]
    #[arg(long, value_name = "METHOD", value_enum)]
    pub method: Option<Method>,

    /// With --method consistory or ip-adapter: the base image whose subject is drawn, by its number on
    /// grid.png, or auto for the most typical one [default: the one that DIR was tuned to, or auto]
    #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
    pub target: Option<Target>,

    /// How the actor guides.
    #[command(flatten)]
    #[serde(flatten)]
    pub guidance: GuidanceFlags,

    /// What IP-Adapter looks at.
    #[command(flatten)]
    #[serde(flatten)]
    pub image_prompt: ImagePromptFlags,

    /// Scale of plain classifier-free guidance (Eq. 3) [default: 7.5 (paper, Sec. 4)]
    #[arg(
        long,
        visible_alias = "cfg-scale",
        value_name = "SCALE",
        allow_negative_numbers = true,
        help_heading = "Drawing"
    )]
    pub guidance_scale: Option<f64>,

    /// How the images are drawn.
    #[command(flatten)]
    #[serde(flatten)]
    pub drawing: DrawingFlags,

    /// What the drawing leaves out.
    #[command(flatten)]
    #[serde(flatten)]
    pub shortcuts: ShortcutFlags,

    /// Pictures that the drawing keeps to.
    #[command(flatten)]
    #[serde(flatten)]
    pub control: ControlFlags,

    /// Which model draws.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelFlags,
}

/// How the actor guides (Eqs. 15 to 19).
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Guidance by the actor")]
pub struct GuidanceFlags {
    /// Defaults to start from: paper, or release (eta_1 7.5, eta_2 0, dpm++2m, as in the authors'
    /// code) [default: paper]
    #[arg(long, value_name = "PRESET", value_enum)]
    pub preset: Option<Preset>,

    /// How much of the target's offset is added to the base word: v in Eq. 15
    /// [default: 0.8 (paper, Sec. 4)]
    #[arg(long, value_name = "V", allow_negative_numbers = true)]
    pub semantic_scale: Option<f64>,

    /// Pull towards the target: the first eta in Eq. 19 [default: guidance scale + eta_2, so 8.5
    /// (paper, Sec. 4)]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub eta_1: Option<f64>,

    /// Push away from the average of the auxiliary samples: the second eta in Eq. 19; 0 saves a
    /// third of the time [default: 1 (paper, Sec. 4)]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub eta_2: Option<f64>,

    /// Steps that the actor guides, first-last, counted from 1; the others are guided plainly
    /// [default: 1-20 (paper, Sec. 4), or to the last step where there are fewer]
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    pub guided_steps: Option<String>,

    /// How much of the average offset is added in the branch of eta_2; the semantic scale here
    /// would treat both offsets alike [default: 1 (Eq. 19 as printed)]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub average_scale: Option<f64>,

    /// With --no-actor: how far the prompt's embedding goes from the empty prompt (0) to the prompt
    /// (1) and beyond, c' = c_empty + g (c - c_empty) (Fig. 3) [default: 1]
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    pub semantic_interpolation: Option<f64>,

    /// The plain model, without the actor: the same prompts and seeds to compare with
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub no_actor: Option<bool>,

    /// Offsets to use in place of the projector's, for experiments with one actor: target_offset
    /// and average_offset, f32 [W, D] each
    #[arg(long, value_name = "FILE.safetensors")]
    pub offsets: Option<PathBuf>,
}

/// Approximations: faster, and other pictures.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Approximations (faster, and other pictures)")]
pub struct ShortcutFlags {
    /// Steps that are guided at all, first-last, counted from 1; the others follow the prompt's row
    /// alone, which costs half or a third (arXiv 2404.07724) [default: all]
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    pub guidance_interval: Option<String>,

    /// Run the whole U-Net at every N-th step only, and its outermost blocks alone at those between,
    /// which go on from the features of the last whole one (arXiv 2312.00858) [default: 1, all whole]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub feature_reuse: Option<i64>,
}
