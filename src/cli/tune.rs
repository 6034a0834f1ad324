//! Flags of `tune`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use super::sample::Preset;
use super::setting::Acts::WithoutBaseline;
use super::setting::{any, number, settings, switch, whole, words};
use super::{Crop, Method, ModelFlags, Target};
use crate::method::templates::SubjectKind;

settings! {
    /// Flags of `tune`, and its batch keys.
    pub struct TuneFlags {
        /// Folder written by generate-base
        #[arg(value_name = "DIR")]
        pub dir: Option<PathBuf> = any()
            .takes("folder")
            .by_default("needed")
            .says("folder written by `generate-base`; `tune` adds `actor.safetensors`, `tune.jsonl` and \
                `tune.json`, or for a baseline `METHOD.safetensors`, `METHOD.jsonl` and `METHOD.json`"),

        /// The method to tune: the paper's, or a baseline for comparison that is reimplemented from its own
        /// paper: textual-inversion or dreambooth-lora [default: oneactor]
        #[arg(long, value_name = "METHOD", value_enum)]
        pub method: Option<Method> = words("oneactor")
            .takes("`oneactor`, `textual-inversion`, `dreambooth-lora`")
            .says("the paper's method, or a baseline for comparison, see below"),

        /// Base image to make the actor from: its number on grid.png, or auto for the most typical image
        /// [default: auto]
        #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
        pub target: Option<Target> = any().instead_of("target_image")
            .takes("number from 0, or `\"auto\"`")
            .by_default("`\"auto\"`")
            .says("number on `grid.png`; `auto` chooses the most typical image by its encoder features"),

        /// Your own photo (PNG or JPEG) to make the actor from; all base images are then auxiliary samples
        #[arg(long, value_name = "FILE")]
        pub target_image: Option<PathBuf> = any()
            .takes("PNG or JPEG")
            .by_default("none")
            .says("your own photo in place of `target`: all N base images are then auxiliary, and the photo is \
                image N. The photo is rotated by its EXIF orientation, composited on white where it is \
                transparent, cropped in the middle to the base images' proportions, resized with a Lanczos \
                filter (enlarged at most four times), encoded by the VAE, noised to the last step of the base \
                images and passed once through the U-Net's encoder to get h (as in Eq. 7). At most 512 MiB as \
                pixels. `tune.json` and the actor record its name and CRC-32"),

        /// Part of the target that is also learnt enlarged: face or subject, found by the model's own attention
        /// to that word without a trained detector (if no plausible face is found, the subject);
        /// left,top,width,height in pixels of the base image; or none [default: none]
        #[arg(
            long,
            value_name = "face|subject|none|X,Y,W,H",
            allow_hyphen_values = true
        )]
        pub crop: Option<Crop> = words("none").acts(WithoutBaseline)
            .takes("`\"face\"`, `\"subject\"`, `\"left,top,width,height\"` or `\"none\"`")
            .by_default("`\"none\"`")
            .says("a part of the target that is also learnt enlarged, as the paper does with the face (Sec. \
                3.2): extended to the picture's proportions, enlarged to the full size by bicubic \
                interpolation, encoded once, and chosen as often as the plain and the flipped target. A box is \
                in pixels of the base images (for a photo, after it is resized to them) and at least a quarter \
                of the picture wide or high. How `face` and `subject` are found is explained below"),

        /// Kind of subject; decides the sentences of the tuning prompts [default: character]
        #[arg(long, value_name = "KIND", value_enum)]
        pub kind: Option<SubjectKind> = words("character")
            .says("the kind of subject decides the sentences of Algorithm 1, `prompts/templates`"),

        /// Maximum number of steps; tuning stops earlier when the loss on a fixed set of noise has converged
        /// [default: 1000; textual-inversion 5000]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub max_steps: Option<i64> = whole(1, 1_000_000, None)
            .by_default("1000; `textual-inversion` 5000")
            .says("tuning stops earlier when the loss on a fixed set of noise no longer improves. If it stops \
                at `max_steps`, it keeps `tune.checkpoint.safetensors` (four times the size of the learnt \
                weights) and `tune.checkpoint.json`, so that the same job with a larger `max_steps` continues \
                from there. Both files may be deleted"),

        /// Number of auxiliary samples per step, K [default: 3 (paper, Sec. 4), or all if there are fewer]
        #[arg(long, value_name = "K", allow_negative_numbers = true)]
        pub num_auxiliary: Option<i64> = whole(1, 999, None).acts(WithoutBaseline)
            .takes("1 to N - 1; with `target_image` 1 to N")
            .by_default("3, or all if there are fewer")
            .says("auxiliary samples per step, K (Sec. 4)"),

        /// Weight of the auxiliary loss (Eq. 14) [default: 0.5 (paper, Sec. 4)]
        #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
        pub lambda_1: Option<f64> = number(0.0, 1000.0, Some(0.5)).acts(WithoutBaseline).instead_of("without_aux")
            .says("Eq. 14 (Sec. 4): weight of the auxiliary loss"),

        /// Weight of the average loss (Eq. 14) [default: 0.2 (paper, Sec. 4)]
        #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
        pub lambda_2: Option<f64> = number(0.0, 1000.0, Some(0.2)).acts(WithoutBaseline).instead_of("without_aver")
            .says("Eq. 14 (Sec. 4): weight of the average loss"),

        /// Leave out the auxiliary loss, the same as --lambda-1 0; together with --without-aver this is the
        /// ablation of Fig. 11 [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub without_aux: Option<bool> = switch().acts(WithoutBaseline)
            .says("leave out L_aux or L_aver (Fig. 11), the same as `lambda_1` 0 or `lambda_2` 0, with which \
                they are refused. L_aux may be left out alone"),

        /// Leave out the average loss, the same as --lambda-2 0 (Fig. 11) [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub without_aver: Option<bool> = switch().acts(WithoutBaseline)
            .says("leave out L_aux or L_aver (Fig. 11), the same as `lambda_1` 0 or `lambda_2` 0, with which \
                they are refused. L_aux may be left out alone"),

        /// Step size of AdamW [default: 1e-4 (paper, Sec. 4; for dreambooth-lora the usual value for diffusers'
        /// script); textual-inversion 5e-3]
        #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
        pub learning_rate: Option<f64> = number(1e-9, 1.0, None)
            .takes("1e-9 to 1")
            .by_default("1e-4; `textual-inversion` 5e-3")
            .says("learning rate of AdamW (Sec. 4); for the baselines see below"),

        /// Weight decay of AdamW [default: 0.01 (PyTorch's own)]
        #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
        pub weight_decay: Option<f64> = number(0.0, 1.0, Some(0.01))
            .says("PyTorch's default for AdamW"),

        /// Last layer of the projector: paper (AdaIN with the base word's embedding), or release (LayerNorm
        /// without the embedding, as in the authors' code) [default: paper]
        #[arg(long, value_name = "PRESET", value_enum)]
        pub preset: Option<Preset> = words("paper").acts(WithoutBaseline)
            .says("last layer of the projector: AdaIN with the base word's embedding (Fig. 2c), or LayerNorm \
                without the embedding"),

        /// Seed of the initial values and of all random draws while tuning; only its lowest 32 bits are used
        /// [default: 0]
        #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
        pub seed: Option<i64> = any()
            .takes("0 or more")
            .by_default("0")
            .says("seed of the initial values and of all random draws; only its lowest 32 bits are used"),

        /// Rows of a step that pass through the U-Net together; fewer rows need less memory and give the same
        /// step [default: all: K + 2; textual-inversion 4, dreambooth-lora 2]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub micro_batch: Option<i64> = whole(1, 1024, None).instead_of("batch_size")
            .takes("rows, 1 to 1024")
            .by_default("all: K + 2; `textual-inversion` 4, `dreambooth-lora` 2")
            .says("rows of a step that pass through the U-Net together; fewer rows need less memory and give \
                the same step. `batch_size` is another name for it; only one of the two may be given"),

        /// Another name for --micro-batch
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub batch_size: Option<i64> = whole(1, 1024, None)
            .takes("rows, 1 to 1024")
            .says("another name for `micro_batch`"),

        /// Tune again if the folder already has an actor [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub overwrite: Option<bool> = switch()
            .says("tune again if the folder already has an actor"),

        /// The model that drew the base images.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}
