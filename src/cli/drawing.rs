//! Flags of drawing, the same in all commands that draw.

use clap::builder::BoolishValueParser;

use super::Method;
use super::setting::Recorded::{Always, AsFound, OfPicture, UnlessDefault};
use super::setting::{any, number, settings, switch, whole};

settings! {
    /// How the frozen model draws a picture: the same flags in all commands that draw. The guidance scale is
    /// declared by each command, because `sweep` takes a list of guidance scales.
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [b] and [word] are no links"
    )]
    #[command(next_help_heading = "Drawing")]
    pub struct DrawingFlags {
        /// What the picture should not show. "" is encoded as an empty text; without the flag SDXL uses zeros,
        /// SD an empty text [default: none]
        #[arg(short, long, value_name = "TEXT")]
        pub negative_prompt: Option<String> = any().recorded(Always).other(r#""snow""#)
            .takes("text")
            .by_default("none")
            .says("none: for SDXL zeros or the empty text, as the checkpoint says (`force_zeros_for_empty_prompt`), for \
                SD the empty text; `\"\"`: the empty text"),

        /// Encode prompts and negative prompts that are longer than the model's limit in chunks (75 tokens each
        /// for SDXL) instead of cutting off their end [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub long_prompts: Option<bool> = switch().recorded(UnlessDefault).other("true")
            .not_with(Method::Consistory, "makes prompts longer than the anchors' prompt, and both go through \
                the network together")
            .says("encode the part of prompt and negative prompt beyond the model's limit in further chunks \
                instead of cutting it off ([how](../prompts/README.md#long-and-weighted-prompts))"),

        /// Read brackets in prompts as weights: (word) has weight 1.1, [word] 1/1.1, (some words:1.3) 1.3; \(
        /// is a plain bracket, and [b] still stands for the base word [default: false, brackets are text]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub prompt_weights: Option<bool> = switch().recorded(UnlessDefault).other("true")
            .says("read brackets in prompt and negative prompt as weights, `(word:1.2)`; other syntax of \
                stable-diffusion-webui (`[a|b]`, `[a:b:0.5]`, `AND`, `BREAK`, `<lora:x:1>`) is refused. With \
                false, all of it is text, as in diffusers"),

        /// Seed of the first image; image i (from 0) has seed + i. Only the lowest 32 bits of a seed are used:
        /// 4294967296 draws the same image as 0 [default: 0]
        #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
        pub seed: Option<i64> = any().recorded(OfPicture).other("7")
            .takes("0 or more")
            .by_default("0")
            .says("seed of the first image; image i has seed + i; only the lowest 32 bits are used, so \
                4294967296 draws the same image as 0"),

        /// Denoising steps [default: 30 (paper, Sec. 4)]
        #[arg(
            long,
            visible_alias = "num-inference-steps",
            value_name = "N",
            allow_negative_numbers = true
        )]
        pub steps: Option<i64> = whole(1, 1000, Some(30)).recorded(Always).other("4")
            .says("Sec. 4; must be fewer than the training steps of the model's schedule, usually 1000"),

        /// How far the guided prediction is rescaled to the standard deviation of the prompt's prediction, from
        /// 0 to 1: corrects pale or overexposed pictures of models with zero terminal SNR (arXiv 2305.08891,
        /// Eq. 16) [default: 0]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        pub guidance_rescale: Option<f64> = number(0.0, 1.0, Some(0.0)).recorded(UnlessDefault).other("0.7")
            .says("arXiv 2305.08891, Eq. 16, as diffusers' `guidance_rescale`; that paper uses 0.7. With an \
                actor, the target's row counts as the prompt's"),

        /// Width in pixels, a multiple of 8 [default: the model's own, 1024 for SDXL, 512 for SD 1.5]
        #[arg(
            short = 'W',
            long,
            value_name = "PIXELS",
            allow_negative_numbers = true
        )]
        pub width: Option<i64> = any().recorded(AsFound).other("128")
            .takes("pixels, multiples of 8")
            .by_default("the model's own")
            .says("1024 for SDXL, 512 for SD 1.5, 768 for SD 2.1"),

        /// Height in pixels, a multiple of 8 [default: the model's own, 1024 for SDXL, 512 for SD 1.5]
        #[arg(
            short = 'H',
            long,
            value_name = "PIXELS",
            allow_negative_numbers = true
        )]
        pub height: Option<i64> = any().recorded(AsFound).other("128")
            .takes("pixels, multiples of 8")
            .by_default("the model's own")
            .says("1024 for SDXL, 512 for SD 1.5, 768 for SD 2.1"),

        /// Sampler: euler, dpm++2m, ddim or pndm, or its name in another program (see `oneactor --help`)
        /// [default: the model's own, euler for SDXL, pndm for SD 1.5]
        #[arg(long, value_name = "NAME")]
        pub scheduler: Option<String> = any().recorded(AsFound).other(r#""ddim""#)
            .takes("`euler`, `dpm++2m`, `ddim`, `pndm`")
            .by_default("the model's own")
            .says("`euler` for SDXL, `pndm` for SD 1.5, `ddim` for SD 2.1; any of them can draw with a model \
                whose file names another sampler, see below. `pndm` needs a schedule with `skip_prk_steps` and \
                runs the network once more than there are steps. The names of diffusers' classes and of \
                stable-diffusion-webui are accepted too"),

        /// Number of images drawn together; more is faster and needs more memory. On a CPU, 8 together are 2.0
        /// times as fast as one by one at 64 pixels and 1.09 times at 128; a GPU gains more [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub batch_size: Option<i64> = whole(1, 1024, Some(1)).other("2")
            .takes("images, 1 to 1024")
            .says("number of images drawn together: more is faster and needs more memory. On a CPU, 8 together \
                are 2.0 times as fast as one by one at 64 pixels and 1.09 times at 128; a GPU gains more"),

        /// Every N steps, write preview.png into the output folder: finished pictures, and those being drawn
        /// with colours estimated from the latents without the VAE, one pixel per latent. The file is deleted
        /// when the run ends [default: no preview]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub preview_every: Option<i64> = whole(1, 1000, None).other("1")
            .takes("steps, 1 to 1000")
            .by_default("no preview")
            .says("every so many steps, `preview.png` in the output folder is rewritten, see below"),

        /// Make results again that already exist [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub overwrite: Option<bool> = switch().other("true")
            .says("make results again that already exist"),
    }
}
