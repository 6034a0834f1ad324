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
        /// Folder that generate-base has written
        #[arg(value_name = "DIR")]
        pub dir: Option<PathBuf> = any()
            .takes("folder")
            .by_default("needed")
            .says("what `generate-base` has written; gets `actor.safetensors`, `tune.jsonl`, `tune.json`, or of a \
                baseline `METHOD.safetensors`, `METHOD.jsonl`, `METHOD.json`"),

        /// What is tuned: the paper's method, or a baseline to compare it with, reimplemented from its paper:
        /// textual-inversion or dreambooth-lora [default: oneactor]
        #[arg(long, value_name = "METHOD", value_enum)]
        pub method: Option<Method> = words("oneactor")
            .takes("`oneactor`, `textual-inversion`, `dreambooth-lora`")
            .says("the paper's method, or a baseline to compare it with, see below"),

        /// Base image to make the actor from: its number on grid.png, or auto for the most typical one
        /// [default: auto]
        #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
        pub target: Option<Target> = any().instead_of("target_image")
            .takes("number from 0, or `\"auto\"`")
            .by_default("`\"auto\"`")
            .says("number on `grid.png`; `auto` takes the most typical image by its encoder features"),

        /// A photo of one's own (PNG or JPEG) to make the actor from; all base images are auxiliary
        /// samples then
        #[arg(long, value_name = "FILE")]
        pub target_image: Option<PathBuf> = any()
            .takes("PNG or JPEG")
            .by_default("none")
            .says("a photo of one's own in place of `target`: all N base images are auxiliary then, and the photo is \
                image N. It is turned as its EXIF orientation says, laid on white where it is transparent, cut to the \
                middle with the base images' proportions, resized with a Lanczos filter, encoded by the VAE, noised to \
                the last step of the base images and passed once through the U-Net's encoder for h (after Eq. 7). \
                Enlarged at most four times; at most 512 MiB as pixels. `tune.json` and the actor keep its name and CRC-32"),

        /// Part of the target that is learnt enlarged too: face or subject, found by the model's own
        /// attention to that word (no trained detector; the subject where there is no plausible face);
        /// left,top,width,height in pixels of the base image; or none [default: none]
        #[arg(
            long,
            value_name = "face|subject|none|X,Y,W,H",
            allow_hyphen_values = true
        )]
        pub crop: Option<Crop> = words("none").acts(WithoutBaseline)
            .takes("`\"face\"`, `\"subject\"`, `\"left,top,width,height\"` or `\"none\"`")
            .by_default("`\"none\"`")
            .says("a part of the target that is learnt enlarged too, as the paper does with the face (Sec. 3.2): grown to \
                the picture's proportions, redrawn at its full size by bicubic interpolation, encoded once, and drawn as \
                often as the plain and the flipped target. A box is in pixels of the base images (of the photo once it \
                has their size) and at least a quarter of the picture wide or high. How `face` and `subject` are found \
                stands below"),

        /// What the subject is; decides the sentences it is tuned in [default: character]
        #[arg(long, value_name = "KIND", value_enum)]
        pub kind: Option<SubjectKind> = words("character")
            .says("the sentences of Algorithm 1, `prompts/templates`"),

        /// Most steps to take; fewer when the loss on a fixed set of noise has converged
        /// [default: 1000; textual-inversion 5000]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub max_steps: Option<i64> = whole(1, 1_000_000, None)
            .by_default("1000; `textual-inversion` 5000")
            .says("tuning ends earlier when the loss on a fixed set of noise no longer improves. One that stops here \
                keeps `tune.checkpoint.safetensors`, four times the size of what is learnt, and `tune.checkpoint.json`: \
                the same job with a larger `max_steps` continues from it. Both may be deleted"),

        /// Auxiliary samples in a step: K [default: 3 (paper, Sec. 4), or all where there are fewer]
        #[arg(long, value_name = "K", allow_negative_numbers = true)]
        pub num_auxiliary: Option<i64> = whole(1, 999, None).acts(WithoutBaseline)
            .takes("1 to N - 1, to N with `target_image`")
            .by_default("3, or as many as there are")
            .says("K (Sec. 4)"),

        /// Weight of the auxiliary loss (Eq. 14) [default: 0.5 (paper, Sec. 4)]
        #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
        pub lambda_1: Option<f64> = number(0.0, 1000.0, Some(0.5)).acts(WithoutBaseline).instead_of("without_aux")
            .says("Eq. 14 (Sec. 4): weight of the auxiliary loss"),

        /// Weight of the average loss (Eq. 14) [default: 0.2 (paper, Sec. 4)]
        #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
        pub lambda_2: Option<f64> = number(0.0, 1000.0, Some(0.2)).acts(WithoutBaseline).instead_of("without_aver")
            .says("Eq. 14 (Sec. 4): weight of the average loss"),

        /// Leave the auxiliary loss out, as lambda_1 0 does; with --without-aver that is the ablation of
        /// Fig. 11 [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub without_aux: Option<bool> = switch().acts(WithoutBaseline)
            .says("leave L_aux or L_aver out (Fig. 11): the same as `lambda_1` 0 or `lambda_2` 0, and refused beside \
                them; L_aver alone can stay"),

        /// Leave the average loss out, as lambda_2 0 does (Fig. 11) [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub without_aver: Option<bool> = switch().acts(WithoutBaseline)
            .says("leave L_aux or L_aver out (Fig. 11): the same as `lambda_1` 0 or `lambda_2` 0, and refused beside \
                them; L_aver alone can stay"),

        /// Step size of AdamW [default: 1e-4 (paper, Sec. 4; for dreambooth-lora as diffusers' script is commonly run);
        /// textual-inversion 5e-3]
        #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
        pub learning_rate: Option<f64> = number(1e-9, 1.0, None)
            .takes("1e-9 to 1")
            .by_default("1e-4; `textual-inversion` 5e-3")
            .says("Sec. 4: AdamW; of the baselines see below"),

        /// Weight decay of AdamW [default: 0.01 (PyTorch's own)]
        #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
        pub weight_decay: Option<f64> = number(0.0, 1.0, Some(0.01))
            .says("PyTorch's default of AdamW"),

        /// The projector's last layer: paper (AdaIN, with the base word's embedding), or release
        /// (LayerNorm without it, as in the authors' code) [default: paper]
        #[arg(long, value_name = "PRESET", value_enum)]
        pub preset: Option<Preset> = words("paper").acts(WithoutBaseline)
            .says("last layer of the projector: AdaIN with the base word's embedding (Fig. 2c), or LayerNorm without it"),

        /// Seed of the first values of what is learnt and of every draw while tuning; its lowest 32 bits count [default: 0]
        #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
        pub seed: Option<i64> = any()
            .takes("0 or more")
            .by_default("0")
            .says("first values of the projector, and every draw; its lowest 32 bits count"),

        /// Rows of a step that go through the U-Net at once: fewer need less memory and give the same step
        /// [default: all: K + 2; textual-inversion 4, dreambooth-lora 2]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub micro_batch: Option<i64> = whole(1, 1024, None).instead_of("batch_size")
            .takes("rows, 1 to 1024")
            .by_default("all: K + 2; `textual-inversion` 4, `dreambooth-lora` 2")
            .says("rows that go through the U-Net at once: fewer need less memory and give the same step; `batch_size` is \
                another name, and refused beside it"),

        /// Another name of --micro-batch
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub batch_size: Option<i64> = whole(1, 1024, None)
            .takes("rows, 1 to 1024")
            .says("another name of `micro_batch`"),

        /// Tune again where an actor is already there [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub overwrite: Option<bool> = switch()
            .says("tune again where an actor is"),

        /// Which model the base images came from.
        #[command(flatten)]
        #[serde(flatten)]
        pub model: ModelFlags,
    }
}
