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

settings! {
    /// Flags of `sample`, and its batch keys.
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [b] is the placeholder, not a link"
    )]
    pub struct SampleFlags {
        /// Actor: an actor.safetensors, or the folder it lies in; several for several subjects in one
        /// picture, of whom each prompt shows those that it names
        #[arg(value_name = "DIR|actor.safetensors")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub actors: Option<Vec<PathBuf>> = any().recorded(AsFound).other(r#""other""#)
            .takes("folder or file, or a list of them")
            .by_default("needed, but for `no_actor`")
            .says("what `tune` has written; with several, a prompt shows those whose base words it holds"),

        /// What to draw, with the actor's base word or [b] for it (with several actors, the base words
        /// of those that are to be in it); may be given several times
        #[arg(short, long, value_name = "TEXT")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub prompt: Option<Vec<String>> = any().recorded(OfPicture).instead_of("prompts_file")
            .other(r#""a robot""#)
            .takes("text, or a list of texts")
            .by_default("this or `prompts_file` is needed")
            .says("the base word stands in each, or `[b]` for it; of several subjects at least one, and no `[b]`"),

        /// Text file with prompts, one a line, or - for standard input
        #[arg(long, value_name = "FILE|-")]
        pub prompts_file: Option<PathBuf> = any().other(r#""prompts.txt""#)
            .takes("file, or `-`")
            .by_default("none")
            .says("prompts, one a line, UTF-8, at most 1 MiB; come after those of `prompt`"),

        /// Folder for 0000-SEED.png …, grid.png (scenes.png among base images) and manifest.jsonl
        /// [default: the folder samples beside the actor; with several actors it must be named]
        #[arg(short, long, value_name = "OUT")]
        pub output_dir: Option<PathBuf> = any().other(r#""elsewhere""#)
            .takes("folder")
            .by_default("`samples` beside the actor; with several actors needed")
            .says("gets `0000-<seed>.png` …, `grid.png`, `manifest.jsonl`"),

        /// Images of each prompt [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub num_images: Option<i64> = whole(1, 100_000, Some(1)).other("2")
            .says("images of each prompt"),

        /// What [b] stands for: the base word, or the target prompt up to its first comma
        /// [default: word]
        #[arg(long, value_name = "FORM", value_enum)]
        pub subject_as: Option<SubjectAs> = words("word").other(r#""phrase""#)
            .says("what `[b]` stands for: the base word, or the target prompt up to its first comma"),

        /// A picture made by this program, to draw again; other flags change what they name
        #[arg(long, value_name = "IMAGE.png")]
        pub from: Option<PathBuf> = any().other(r#""from.png""#)
            .takes("picture")
            .by_default("none")
            .says("settings of a picture made by this program, below those of job, flags and environment; they are \
                checked as flags are, and give one picture. A picture says how it was drawn, with which model, LoRAs, \
                actors and control images by their names, and a model of the hub that it names is fetched; folders, \
                numbers of pictures, device, `overwrite`, `offline` and the like in it are refused"),

        /// Also write the final latents of each image as 0000-SEED.safetensors [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub save_latents: Option<bool> = switch().other("true")
            .says("`<image>.safetensors` with `latents`"),

        /// Whether each subject's offset acts only where attention finds the subject: auto (as in the paper, with
        /// several actors; subjects tuned together act everywhere), on (those too, and a single one), off
        /// [default: auto]
        #[arg(long, value_name = "WHEN", value_enum)]
        pub subject_masks: Option<SubjectMasks> = words("auto").recorded(UnlessDefault).acts(WithActor).other(r#""on""#)
            .says("whether each subject's offset acts only where attention finds the subject: `auto` with several actors \
                (the paper's independent variant), `on` also for subjects that were tuned together, and for a single one, \
                `off` never"),

        /// With several actors or --subject-masks on: also write where each subject's offset acted in the last
        /// guided step, in white, as 0000-SEED-mask-WORD.png [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub save_masks: Option<bool> = switch().acts(WithActor).of_one_command().other("true")
            .says("with several actors that have a place in the picture (a style has none), or `subject_masks` on: \
                `<image>-mask-<word>.png`, white where the subject's offset acted in the last guided step"),

        /// Draw with the plain model too, into the folder plain, and put both side by side on
        /// comparison.png [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub compare: Option<bool> = switch().instead_of("no_actor").other("true")
            .says("the same pictures by the plain model too, in `plain/`, and both side by side on `comparison.png`"),

        /// The method that keeps the subject the same: the paper's, or a baseline to compare with, which takes the
        /// folder of the base images [default: oneactor]
        #[arg(long, value_name = "METHOD", value_enum)]
        pub method: Option<Method> = words("oneactor").recorded(UnlessDefault).other(r#""consistory""#)
            .says("what keeps the subject the same: the paper's method, or a baseline, which takes one folder as \
                `actors`, is guided plainly (Eq. 3) and refuses the keys of an actor's guidance, `preset`, `no_actor`, \
                `subject_masks` and `save_masks`; see below. `dreambooth-lora` draws with a model of its own, so that `compare` is refused \
                too; pictures keep the prompt as it was written"),

        /// With --method consistory or ip-adapter: the base image whose subject is drawn, by its number on
        /// grid.png, or auto for the most typical one [default: the one that DIR was tuned to, or auto]
        #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
        pub target: Option<Target> = any().acts(WithMethod(&[Method::Consistory, Method::IpAdapter])).recorded(Always)
            .of_one_command().other("2")
            .takes("number from 0, or `\"auto\"`")
            .by_default("the image that the folder was tuned to by `oneactor` (tune.json), else `\"auto\"`")
            .says("only with `method` `consistory` and `ip-adapter`: the base image that is the subject; `auto` as in \
                `tune`; recorded with every picture"),

        /// By how much the actor guides.
        #[command(flatten)]
        #[serde(flatten)]
        pub axes: AxisFlags,

        /// How the actor guides.
        #[command(flatten)]
        #[serde(flatten)]
        pub guidance: GuidanceFlags,

        /// What IP-Adapter looks at.
        #[command(flatten)]
        #[serde(flatten)]
        pub image_prompt: ImagePromptFlags,

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
}

settings! {
    /// How the actor guides (Eqs. 15 to 19).
    #[command(next_help_heading = "Guidance by the actor")]
    pub struct GuidanceFlags {
        /// Defaults to start from: paper, or release (eta_1 7.5, eta_2 0, dpm++2m, as in the authors'
        /// code) [default: paper]
        #[arg(long, value_name = "PRESET", value_enum)]
        pub preset: Option<Preset> = words("paper").acts(WithoutBaseline).other(r#""release""#)
            .says("other defaults: `release` has `eta_1` 7.5, `eta_2` 0 and `scheduler` `dpm++2m`, as the authors' code"),

        /// How much of the average offset is added in the branch of eta_2; the semantic scale here
        /// would treat both offsets alike [default: 1 (Eq. 19 as printed)]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        pub average_scale: Option<f64> =
            number(-10.0, 10.0, Some(GuidanceSettings::PAPER.average_scale)).acts(WithActor).recorded(Always).other("0.4")
            .says("scale of the average offset; Eq. 19 as printed has none"),

        /// The plain model, without the actor: the same prompts and seeds to compare with
        /// [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub no_actor: Option<bool> = switch().acts(WithoutBaseline).recorded(UnlessDefault).replaces_actor()
            .other("true")
            .says("the plain model, for comparison; the keys of the actor's guidance are refused beside it"),

        /// Offsets to use in place of the projector's, for experiments with one actor: target_offset
        /// and average_offset, f32 [W, D] each
        #[arg(long, value_name = "FILE.safetensors")]
        pub offsets: Option<PathBuf> = any().acts(WithActor).recorded(Always).replaces_actor()
            .other(r#""offsets.safetensors""#)
            .takes("safetensors file")
            .by_default("none")
            .says("`target_offset` and `average_offset` `[W, D]` f32 in place of the projector's; with one actor only"),
    }
}

settings! {
    /// Approximations: faster, and other pictures.
    #[command(next_help_heading = "Approximations (faster, and other pictures)")]
    pub struct ShortcutFlags {
        /// Steps that are guided at all, first-last, counted from 1; the others follow the prompt's row
        /// alone, which costs half or a third (arXiv 2404.07724) [default: all]
        #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
        pub guidance_interval: Option<String> = steps().recorded(Always).other(r#""2-3""#)
            .not_with(Method::Consistory, "leaves out rows that are shared")
            .by_default("all steps")
            .says("**an approximation** (arXiv 2404.07724): the other steps follow the prompt's row alone, Eq. 3 with s = \
                1 and Eq. 19 with η1 = 1, η2 = 0; neither with several actors, masks of subjects, a ControlNet nor \
                `method` `consistory`"),

        /// Run the whole U-Net at every N-th step only, and its outermost blocks alone at those between,
        /// which go on from the features of the last whole one (arXiv 2312.00858) [default: 1, all whole]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub feature_reuse: Option<i64> = whole(1, 100, Some(1)).recorded(UnlessDefault).other("2")
            .not_with(Method::Consistory, "leaves out layers that are shared")
            .says("**an approximation** (arXiv 2312.00858): every so many-th pass is whole; those between run the \
                outermost block on either side and take all else from the last whole one. The first pass, the last, and \
                one whose rows differ from those before are whole; neither with several actors, masks of subjects, a \
                ControlNet nor `method` `consistory`"),
    }
}
