//! Flags of drawing, the same in all commands that draw.

use clap::builder::BoolishValueParser;

use super::Method;
use super::setting::Recorded::{Always, AsFound, OfPicture, UnlessDefault};
use super::setting::{any, number, settings, switch, whole};

settings! {
    /// How a picture is drawn by the frozen model: the same in all commands that draw. The guidance scale
    /// is a flag of each, for `sweep` takes a list of them.
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "help text: [b] and [word] are no links"
    )]
    #[command(next_help_heading = "Drawing")]
    pub struct DrawingFlags {
        /// What the picture must not show; "" is encoded as an empty text, none at all as zeros (SD: as
        /// an empty text) [default: none]
        #[arg(short, long, value_name = "TEXT")]
        pub negative_prompt: Option<String> = any().recorded(Always).other(r#""snow""#)
            .takes("text")
            .by_default("none")
            .says("none: for SDXL zeros or the empty text, as the checkpoint says (`force_zeros_for_empty_prompt`), for \
                SD the empty text; `\"\"`: the empty text"),

        /// Read prompts and negative prompts that are longer than the model's limit in chunks, 75 tokens
        /// each for SDXL, instead of cutting their end off [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub long_prompts: Option<bool> = switch().recorded(UnlessDefault).other("true")
            .not_with(Method::Consistory, "makes prompts longer than the prompt of the anchors, which share the pass")
            .says("read what lies behind the model's limit in further chunks instead of cutting it off, in prompt and \
                negative prompt ([how](../prompts/README.md#long-and-weighted-prompts))"),

        /// Read brackets in prompts as weights: (word) is 1.1, [word] 1/1.1, (some words:1.3) 1.3,
        /// \( a bracket; [b] stays the base word [default: false, brackets are text]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub prompt_weights: Option<bool> = switch().recorded(UnlessDefault).other("true")
            .says("read brackets in prompt and negative prompt as weights, `(word:1.2)`, and refuse what else the web \
                interface reads there (`[a|b]`, `[a:b:0.5]`, `AND`, `BREAK`, `<lora:x:1>`); false: all is text, as in \
                diffusers"),

        /// Seed of the first image; image i (from 0) has seed + i. Only the lowest 32 bits of a seed count:
        /// 4294967296 draws what 0 draws [default: 0]
        #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
        pub seed: Option<i64> = any().recorded(OfPicture).other("7")
            .takes("0 or more")
            .by_default("0")
            .says("seed of the first image; image i has seed + i; only the lowest 32 bits count, so 4294967296 draws what \
                0 draws"),

        /// Denoising steps [default: 30 (paper, Sec. 4)]
        #[arg(
            long,
            visible_alias = "num-inference-steps",
            value_name = "N",
            allow_negative_numbers = true
        )]
        pub steps: Option<i64> = whole(1, 1000, Some(30)).recorded(Always).other("4")
            .says("Sec. 4; fewer than the checkpoint was trained with, 1000 as a rule"),

        /// How much of the guided prediction is scaled back to the deviation of the prompt's prediction, 0 to 1: against
        /// pale or overexposed pictures of models with zero terminal SNR (arXiv 2305.08891, Eq. 16) [default: 0]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        pub guidance_rescale: Option<f64> = number(0.0, 1.0, Some(0.0)).recorded(UnlessDefault).other("0.7")
            .says("arXiv 2305.08891, Eq. 16, as diffusers' `guidance_rescale`; the paper of it uses 0.7; with an actor \
                the target's row is that of the prompt"),

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
            .says("`euler` for SDXL, `pndm` for SD 1.5, `ddim` for SD 2.1; any of them draws with a model whose file \
                names another sampler, see below; `pndm` needs a schedule with `skip_prk_steps` and runs the network once \
                more than there are steps; names of diffusers' classes and of stable-diffusion-webui are understood too"),

        /// Images drawn at once: more is faster and needs more memory. On a CPU 8 at once are 2.0 times as fast as one
        /// by one at 64 pixels and 1.09 times at 128; a GPU gains more [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub batch_size: Option<i64> = whole(1, 1024, Some(1)).other("2")
            .takes("images, 1 to 1024")
            .says("images drawn at once: more is faster on a GPU and needs more memory"),

        /// Show every N steps what is being drawn, and what is finished, on preview.png in the folder of the results: colours
        /// from the latents without the VAE, one pixel each. The file goes when the run ends [default: no preview]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        pub preview_every: Option<i64> = whole(1, 1000, None).other("1")
            .takes("steps, 1 to 1000")
            .by_default("no preview")
            .says("every so many steps `preview.png` in the folder of the results is written anew, see below"),

        /// Redo what is already there [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true)]
        pub overwrite: Option<bool> = switch().other("true")
            .says("redo what is there"),
    }
}
