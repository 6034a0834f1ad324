//! Flags of `evaluate`.

use std::path::PathBuf;

use super::setting::{any, settings, switch, words};
use super::{Format, RunFlags, one_or_many};
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

settings! {
    /// Flags of `evaluate`, and its batch keys.
    pub struct EvaluateFlags {
        /// Folder that `sample` wrote (with manifest.jsonl), or pictures, PNG or JPEG; several make one
        /// table
        #[arg(value_name = "OUT|PICTURE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub pictures: Option<Vec<PathBuf>> = any()
            .takes("paths")
            .by_default("needed")
            .says("folders that `sample` wrote, or pictures, PNG or JPEG; all of them make one table. Jobs may name the \
                same ones"),

        /// Picture of the subject to compare with; without it pictures are compared with each other only
        /// [default: none]
        #[arg(long, value_name = "IMAGE")]
        pub target: Option<PathBuf> = any().of_one_command()
            .takes("path")
            .by_default("none")
            .says("the picture to compare with; without it pictures are compared with each other only"),

        /// What to measure: clip_i, clip_t, clip_score, dino, dinov2, lpips, dreamsim; the last two are
        /// distances, 0 for equal pictures [default: clip_i,clip_t]
        #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
        #[serde(default, deserialize_with = "one_or_many")]
        pub metrics: Option<Vec<String>> = any()
            .takes("some of `clip_i`, `clip_t`, `clip_score`, `dino`, `dinov2`, `lpips`, `dreamsim`")
            .by_default("`clip_i`, `clip_t`")
            .says("the two axes of the paper's Fig. 8"),

        /// Also measure foreground and background: a folder with a mask NAME.png for each picture NAME,
        /// white where the subject is, "attention" for the masks that `sample --save-masks` wrote, of those
        /// pictures that have some, or "sam" to find the subject in the middle by Segment Anything
        /// [default: none]
        #[arg(long, value_name = "FOLDER|attention|sam")]
        pub masks: Option<PathBuf> = any()
            .takes("folder, `attention` or `sam`")
            .by_default("none")
            .says("adds foreground and background; see below"),

        /// Mask of the target, white where the subject is [default: with `--masks sam` it is found, else
        /// none, so that the target's foreground and background are not compared]
        #[arg(long, value_name = "IMAGE")]
        pub target_mask: Option<PathBuf> = any()
            .takes("path")
            .by_default("none")
            .says("the target's mask; without it foregrounds and backgrounds are compared with each other only, unless \
                `masks` is `sam`"),

        /// With `--masks sam`, new folder for the masks that it finds: NAME.png for each picture NAME, to
        /// look at and for `--masks FOLDER`, and target.png [default: none]
        #[arg(long, value_name = "FOLDER")]
        pub save_masks: Option<PathBuf> = any().of_one_command()
            .takes("folder")
            .by_default("none")
            .says("with `masks` `sam`: writes the masks that it finds, see below"),

        /// Prompt of pictures that do not tell theirs; those of this program do [default: none]
        #[arg(short, long, value_name = "TEXT")]
        pub prompt: Option<String> = any()
            .takes("text")
            .by_default("none")
            .says("for pictures that do not tell theirs; those of this program do"),

        /// End with exit code 6 when the overall mean of a column is below this; may be given several
        /// times [default: none]
        #[arg(long, value_name = "COLUMN=VALUE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub fail_below: Option<Vec<String>> = any()
            .takes("`COLUMN=VALUE`, or a list of such")
            .by_default("none")
            .says("exit code 6 when the overall mean of the column is lower; refused for distances"),

        /// End with exit code 6 when the overall mean of a column is above this, as for the distances lpips
        /// and dreamsim; may be given several times [default: none]
        #[arg(long, value_name = "COLUMN=VALUE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub fail_above: Option<Vec<String>> = any()
            .takes("`COLUMN=VALUE`, or a list of such")
            .by_default("none")
            .says("exit code 6 when the overall mean of the column is higher"),

        /// Also write a page with target, pictures, scores, plot, settings and the command to repeat it:
        /// one file, which needs no other [default: none]
        #[arg(long, value_name = "FILE.html")]
        pub report: Option<PathBuf> = any()
            .takes("`FILE.html`")
            .by_default("none")
            .says("also writes a page, see below; jobs of one file need a page each"),

        /// CLIP for clip_i, clip_t and clip_score; "toy" is a small one for pictures of the toy, built in
        /// [default: openai/clip-vit-large-patch14]
        #[arg(
            short = 'm',
            long,
            visible_alias = "model",
            value_name = "ID|FOLDER|toy",
            help_heading = "Models and device"
        )]
        pub clip_model: Option<String> = any()
            .takes("repository, folder or `toy`")
            .by_default("`openai/clip-vit-large-patch14`")
            .says("as a flag also `--model`; for laion's bigG `laion/CLIP-ViT-bigG-14-laion2B-39B-b160k`"),

        /// DINO for dino [default: facebook/dino-vitb16]
        #[arg(long, value_name = "ID|FOLDER", help_heading = "Models and device")]
        pub dino_model: Option<String> = any()
            .takes("repository or folder")
            .by_default("`facebook/dino-vitb16`")
            .says("if the repository has pickled weights only, see below"),

        /// DINOv2 for dinov2 [default: facebook/dinov2-base]
        #[arg(long, value_name = "ID|FOLDER", help_heading = "Models and device")]
        pub dinov2_model: Option<String> = any()
            .takes("repository or folder")
            .by_default("`facebook/dinov2-base`"),

        /// LPIPS for lpips, a folder that `scripts/convert_encoder.py` made [default: none, lpips needs it]
        #[arg(long, value_name = "FOLDER", help_heading = "Models and device")]
        pub lpips_model: Option<String> = any()
            .takes("folder")
            .by_default("none")
            .says("needed for `lpips`, see below"),

        /// DreamSim for dreamsim, a folder that `scripts/convert_encoder.py` made [default: none, dreamsim
        /// needs it]
        #[arg(long, value_name = "FOLDER", help_heading = "Models and device")]
        pub dreamsim_model: Option<String> = any()
            .takes("folder")
            .by_default("none")
            .says("needed for `dreamsim`, see below"),

        /// Segment Anything for `--masks sam` [default: facebook/sam-vit-base]
        #[arg(long, value_name = "ID|FOLDER", help_heading = "Models and device")]
        pub sam_model: Option<String> = any()
            .takes("repository or folder")
            .by_default("`facebook/sam-vit-base`")
            .says("Segment Anything for `masks` `sam`"),

        /// auto, cpu, cuda or cuda:N; the networks run in fp32 on each [default: auto, the first GPU or
        /// else the CPU]
        #[arg(long, value_name = "DEVICE", help_heading = "Models and device")]
        pub device: Option<String> = words("auto")
            .takes("`auto`, `cpu`, `cuda`, `cuda:N`")
            .says("the networks run in fp32 on each"),

        /// Use no network: only models that are on this machine [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true, help_heading = "Models and device")]
        pub offline: Option<bool> = switch()
            .says("use only what is on this machine"),
    }
}

/// The flags of `evaluate` with those of its run.
#[derive(Clone, Debug, Args)]
pub struct EvaluateLine {
    /// The flags and batch keys.
    #[command(flatten)]
    pub flags: EvaluateFlags,
    /// Flags of the whole run.
    #[command(flatten)]
    pub run: EvaluateRunFlags,
}

/// As [`RunFlags`], but for the format: what `evaluate` lists is a table, not files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Run")]
pub struct EvaluateRunFlags {
    /// Batch file with many jobs: {"defaults": {…}, "jobs": [{…}, …]}, keys as the flags in
    /// snake_case (of the run)
    #[arg(long, value_name = "FILE.json")]
    pub config: Option<PathBuf>,

    /// How the table is written on stdout: text, one JSON object a line, or CSV (of the run)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = TableFormat::Text)]
    pub format: TableFormat,

    /// No progress, only warnings and errors (of the run)
    #[arg(short, long)]
    pub quiet: bool,

    /// Also show resolved settings and each part of the model that is loaded (of the run)
    #[arg(short, long)]
    pub verbose: bool,

    /// Read pictures and masks, look for models' files and list the pictures, with `--save-masks` the
    /// masks that it would write, then stop (of the run)
    #[arg(long)]
    pub dry_run: bool,
}

impl EvaluateRunFlags {
    /// For a session, which lists files only in a dry run: CSV lists them as text does.
    pub fn run(&self) -> RunFlags {
        RunFlags {
            config: self.config.clone(),
            format: match self.format {
                TableFormat::Json => Format::Json,
                TableFormat::Text | TableFormat::Csv => Format::Text,
            },
            // What is measured is all there.
            shard: Some("1/1".to_owned()),
            quiet: self.quiet,
            verbose: self.verbose,
            dry_run: self.dry_run,
        }
    }
}

/// How a table is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a heading.
    Csv,
}
