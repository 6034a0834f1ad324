//! Flags of `sample`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use super::image_prompt::ImagePromptFlags;
use super::setting::Acts::{WithActor, WithMethod, WithoutBaseline};
use super::setting::Recorded::{Always, AsFound, OfPicture, UnlessDefault};
use super::setting::{any, number, settings, steps, switch, whole, words};
use super::{AxisFlags, ControlFlags, DrawingFlags, Method, ModelFlags, Target, one_or_many};
use crate::method::guidance::GuidanceSettings;

/// A set of defaults for sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// eta_1 8.5, eta_2 1, the model's own scheduler.
    #[default]
    Paper,
    /// eta_1 7.5, eta_2 0, dpm++2m, as in the authors' released code.
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
    /// If a prompt names several actors.
    #[default]
    Auto,
    /// Always: also for a single subject, and for subjects that were tuned together.
    On,
    /// Never.
    Off,
}

settings! {
    /// Flags of `sample`, and its batch keys.
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [b] is the placeholder, not a link"
    )]
    pub struct SampleFlags {
        /// Actor: an actor.safetensors file or its folder. Give several actors to draw several subjects; each
        /// prompt uses the actors it names
        #[arg(value_name = "DIR|actor.safetensors")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub actors: Option<Vec<PathBuf>> = any().recorded(AsFound).other(r#""other""#)
            .takes("folder or file, or a list of them")
            .by_default("needed, except with `no_actor`")
            .says("actors written by `tune`; each prompt uses the actors whose base words it contains"),

        /// What to draw; contains the actor's base word, or [b] in its place (with several actors, the base
        /// words of those to draw). May be given several times
        #[arg(short, long, value_name = "TEXT")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub prompt: Option<Vec<String>> = any().recorded(OfPicture).instead_of("prompts_file")
            .other(r#""a robot""#)
            .takes("text, or a list of texts")
            .by_default("needed, unless `prompts_file` is given")
            .says("each contains the base word, or `[b]` in its place; with several subjects, at least one of \
                their base words and no `[b]`"),

        /// Text file with one prompt per line, or - for standard input
        #[arg(long, value_name = "FILE|-")]
        pub prompts_file: Option<PathBuf> = any().other(r#""prompts.txt""#)
            .takes("file, or `-`")
            .by_default("none")
            .says("one prompt per line, UTF-8, at most 1 MiB; they follow those of `prompt`"),

        /// Folder for 0000-SEED.png …, grid.png (scenes.png among base images) and manifest.jsonl [default: the
        /// folder samples beside the actor; must be given with several actors]
        #[arg(short, long, value_name = "OUT")]
        pub output_dir: Option<PathBuf> = any().other(r#""elsewhere""#)
            .takes("folder")
            .by_default("`samples` beside the actor; needed with several actors")
            .says("folder for `0000-<seed>.png` …, `grid.png`, `manifest.jsonl`"),

        /// Number of images per prompt [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub num_images: Option<i64> = whole(1, 100_000, Some(1)).other("2")
            .says("number of images per prompt"),

        /// What [b] stands for: the base word, or the target prompt up to its first comma
        /// [default: word]
        #[arg(long, value_name = "FORM", value_enum)]
        pub subject_as: Option<SubjectAs> = words("word").other(r#""phrase""#)
            .says("what `[b]` stands for: the base word, or the target prompt up to its first comma"),

        /// Draw a picture of this program again, with its recorded settings; other flags replace settings of
        /// that picture
        #[arg(long, value_name = "IMAGE.png")]
        pub from: Option<PathBuf> = any().other(r#""from.png""#)
            .takes("picture")
            .by_default("none")
            .says("draws one picture with the settings recorded in a picture of this program; settings of the \
                job, flags and the environment override them. The recorded settings are checked as flags are. \
                They name the model, the LoRAs, the actors and the control images; a model of the hub is \
                fetched. Recorded folders, numbers of pictures, `device`, `overwrite`, `offline` and similar \
                keys are refused"),

        /// Also write the final latents of each image as 0000-SEED.safetensors [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub save_latents: Option<bool> = switch().other("true")
            .says("`<image>.safetensors` with `latents`"),

        /// Whether each subject's offset acts only where attention finds the subject: auto (with several
        /// actors, as in the paper; subjects that were tuned together act everywhere), on (always), off (never)
        /// [default: auto]
        #[arg(long, value_name = "WHEN", value_enum)]
        pub subject_masks: Option<SubjectMasks> = words("auto").recorded(UnlessDefault).acts(WithActor).other(r#""on""#)
            .says("whether each subject's offset acts only where attention finds the subject: `auto` with \
                several actors (the paper's independent variant), `on` also for subjects that were tuned \
                together and for a single subject, `off` never"),

        /// With several actors or --subject-masks on: also write a mask for each subject,
        /// 0000-SEED-mask-WORD.png, white where the subject's offset acted in the last guided step [default:
        /// false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub save_masks: Option<bool> = switch().acts(WithActor).of_one_command().other("true")
            .says("with several actors (not counting a style, which acts everywhere) or `subject_masks` on: \
                `<image>-mask-<word>.png`, white where the subject's offset acted in the last guided step"),

        /// Also draw the same pictures with the plain model, into the folder plain, and put both side by side
        /// on comparison.png [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub compare: Option<bool> = switch().instead_of("no_actor").other("true")
            .says("also draws the same pictures with the plain model, in `plain/`, and puts both side by side \
                on `comparison.png`"),

        /// The method that keeps the subject the same: the paper's, or a baseline for comparison. A baseline
        /// takes the folder of the base images as DIR [default: oneactor]
        #[arg(long, value_name = "METHOD", value_enum)]
        pub method: Option<Method> = words("oneactor").recorded(UnlessDefault).other(r#""consistory""#)
            .says("the method that keeps the subject the same: the paper's, or a baseline, see below. A \
                baseline takes one folder as `actors` and uses plain guidance (Eq. 3). It refuses the keys of \
                an actor's guidance, `preset`, `no_actor`, `subject_masks` and `save_masks`. `dreambooth-lora` \
                changes the model, so it refuses `compare` too. Pictures record the prompt as it was written"),

        /// With --method consistory or ip-adapter: the base image whose subject is drawn. Its number on
        /// grid.png, or auto for the most typical image [default: the target that tune used in DIR, or else
        /// auto]
        #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
        pub target: Option<Target> = any().acts(WithMethod(&[Method::Consistory, Method::IpAdapter])).recorded(Always)
            .of_one_command().other("2")
            .takes("number from 0, or `\"auto\"`")
            .by_default("the target that `tune` used in the folder (tune.json), or else `\"auto\"`")
            .says("only with `method` `consistory` and `ip-adapter`: the base image whose subject is drawn; \
                `auto` as in `tune`; recorded with every picture"),

        /// How strongly the actor guides.
        #[command(flatten)]
        #[serde(flatten)]
        pub axes: AxisFlags,

        /// How the actor guides.
        #[command(flatten)]
        #[serde(flatten)]
        pub guidance: GuidanceFlags,

        /// The image prompt of IP-Adapter.
        #[command(flatten)]
        #[serde(flatten)]
        pub image_prompt: ImagePromptFlags,

        /// How the images are drawn.
        #[command(flatten)]
        #[serde(flatten)]
        pub drawing: DrawingFlags,

        /// Approximations that save computation.
        #[command(flatten)]
        #[serde(flatten)]
        pub shortcuts: ShortcutFlags,

        /// Control images of the drawing.
        #[command(flatten)]
        #[serde(flatten)]
        pub control: ControlFlags,

        /// Which model draws.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}

settings! {
    /// How the actor guides (Eqs. 15 to 19).
    #[command(next_help_heading = "Guidance by the actor")]
    pub struct GuidanceFlags {
        /// Set of default values: paper, or release (eta_1 7.5, eta_2 0, dpm++2m, as in the authors' code)
        /// [default: paper]
        #[arg(long, value_name = "PRESET", value_enum)]
        pub preset: Option<Preset> = words("paper").acts(WithoutBaseline).other(r#""release""#)
            .says("set of default values: `release` has `eta_1` 7.5, `eta_2` 0 and `scheduler` `dpm++2m`, as \
                in the authors' code"),

        /// Scale of the average offset, which is added in the branch of eta_2. With the value of
        /// --semantic-scale both offsets have the same scale [default: 1 (Eq. 19 as printed)]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        pub average_scale: Option<f64> =
            number(-10.0, 10.0, Some(GuidanceSettings::PAPER.average_scale)).acts(WithActor).recorded(Always).other("0.4")
            .says("scale of the average offset; Eq. 19 as printed has no such scale, as with 1"),

        /// Draw the same prompts and seeds with the plain model, without the actor, for comparison [default:
        /// false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub no_actor: Option<bool> = switch().acts(WithoutBaseline).recorded(UnlessDefault).replaces_actor()
            .other("true")
            .says("draws with the plain model, for comparison; the keys of the actor's guidance are then refused"),

        /// Offsets to use in place of the projector's, for experiments with one actor: target_offset and
        /// average_offset, each f32 [W, D]
        #[arg(long, value_name = "FILE.safetensors")]
        pub offsets: Option<PathBuf> = any().acts(WithActor).recorded(Always).replaces_actor()
            .other(r#""offsets.safetensors""#)
            .takes("safetensors file")
            .by_default("none")
            .says("`target_offset` and `average_offset` (f32 `[W, D]`) in place of the projector's; only with \
                one actor"),
    }
}

settings! {
    /// Approximations: faster, and the pictures change.
    #[command(next_help_heading = "Approximations (faster, and the pictures change)")]
    pub struct ShortcutFlags {
        /// Steps that use guidance, first-last, counted from 1; the other steps compute only the prompt's row,
        /// which takes half or a third of the time (arXiv 2404.07724) [default: all]
        #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
        pub guidance_interval: Option<String> = steps().recorded(Always).other(r#""2-3""#)
            .not_with(Method::Consistory, "leaves out rows whose attention is shared")
            .by_default("all steps")
            .says("**an approximation** (arXiv 2404.07724): the other steps compute only the prompt's row: Eq. \
                3 with s = 1, Eq. 19 with η1 = 1 and η2 = 0. Refused with several actors, masks of subjects, a \
                ControlNet and `method` `consistory`"),

        /// Run the whole U-Net only at every N-th step. The steps between run its outermost blocks and reuse
        /// the inner features of the last whole step (arXiv 2312.00858) [default: 1, all steps whole]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub feature_reuse: Option<i64> = whole(1, 100, Some(1)).recorded(UnlessDefault).other("2")
            .not_with(Method::Consistory, "leaves out layers whose attention is shared")
            .says("**an approximation** (arXiv 2312.00858): only every N-th pass is whole; the passes between \
                run the outermost block on either side and reuse the inner features of the last whole pass. \
                The first pass, the last pass and any pass with other rows than the one before are whole. \
                Refused with several actors, masks of subjects, a ControlNet and `method` `consistory`"),
    }
}
