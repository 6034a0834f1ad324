//! Flags of `evaluate`.

use std::path::PathBuf;

use super::setting::{any, settings, switch, words};
use super::{Format, RunFlags, one_or_many};
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

settings! {
    /// Flags of `evaluate`, and its batch keys.
    pub struct EvaluateFlags {
        /// Folders written by `sample` (with manifest.jsonl), or pictures (PNG or JPEG); all of them make one table
        #[arg(value_name = "OUT|PICTURE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub pictures: Option<Vec<PathBuf>> = any()
            .takes("paths")
            .by_default("needed")
            .says("folders written by `sample`, or pictures (PNG or JPEG); all of them make one table. Several \
                jobs may name the same pictures"),

        /// Picture of the subject to compare with; without it the pictures are compared only with each other
        /// [default: none]
        #[arg(long, value_name = "IMAGE")]
        pub target: Option<PathBuf> = any().of_one_command()
            .takes("path")
            .by_default("none")
            .says("picture of the subject to compare with; without it the pictures are compared only with each \
                other"),

        /// Measures to compute: clip_i, clip_t, clip_score, dino, dinov2, lpips, dreamsim; the last two are
        /// distances, 0 for equal pictures [default: clip_i,clip_t]
        #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
        #[serde(default, deserialize_with = "one_or_many")]
        pub metrics: Option<Vec<String>> = any()
            .takes("some of `clip_i`, `clip_t`, `clip_score`, `dino`, `dinov2`, `lpips`, `dreamsim`")
            .by_default("`clip_i`, `clip_t`")
            .says("the two axes of the paper's Fig. 8"),

        /// Also measure foreground and background, with masks that are white where the subject is: a folder
        /// with a mask NAME.png for each picture NAME; "attention" for the masks that `sample --save-masks`
        /// wrote, where a picture has them; or "sam" to let Segment Anything find the subject in the middle
        /// [default: none]
        #[arg(long, value_name = "FOLDER|attention|sam")]
        pub masks: Option<PathBuf> = any()
            .takes("folder, `attention` or `sam`")
            .by_default("none")
            .says("also measures foreground and background, see below"),

        /// Mask of the target, white where the subject is [default: found by Segment Anything with `--masks
        /// sam`; otherwise none, and the target's foreground and background are not compared]
        #[arg(long, value_name = "IMAGE")]
        pub target_mask: Option<PathBuf> = any()
            .takes("path")
            .by_default("none")
            .says("mask of the target; without it, foregrounds and backgrounds are compared only with each \
                other, unless `masks` is `sam`"),

        /// With `--masks sam`: a new folder for the masks that it finds, NAME.png for each picture NAME and
        /// target.png. Look at them, or use the folder as `--masks FOLDER` [default: none]
        #[arg(long, value_name = "FOLDER")]
        pub save_masks: Option<PathBuf> = any().of_one_command()
            .takes("folder")
            .by_default("none")
            .says("with `masks` `sam`: a new folder for the masks that it finds, see below"),

        /// Prompt of pictures that do not record their own; pictures of this program do [default: none]
        #[arg(short, long, value_name = "TEXT")]
        pub prompt: Option<String> = any()
            .takes("text")
            .by_default("none")
            .says("prompt of pictures that do not record their own; pictures of this program do"),

        /// End with exit code 6 if the overall mean of a column is below this value; may be given several times
        /// [default: none]
        #[arg(long, value_name = "COLUMN=VALUE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub fail_below: Option<Vec<String>> = any()
            .takes("`COLUMN=VALUE`, or a list of them")
            .by_default("none")
            .says("exit code 6 if the overall mean of the column is lower; refused for distances"),

        /// End with exit code 6 if the overall mean of a column is above this value, for the distances lpips
        /// and dreamsim for instance; may be given several times [default: none]
        #[arg(long, value_name = "COLUMN=VALUE")]
        #[serde(default, deserialize_with = "one_or_many")]
        pub fail_above: Option<Vec<String>> = any()
            .takes("`COLUMN=VALUE`, or a list of them")
            .by_default("none")
            .says("exit code 6 if the overall mean of the column is higher"),

        /// Also write a page with target, pictures, scores, plot, settings and the command that repeats the
        /// evaluation: one file, which needs no other [default: none]
        #[arg(long, value_name = "FILE.html")]
        pub report: Option<PathBuf> = any()
            .takes("`FILE.html`")
            .by_default("none")
            .says("also writes a page, see below; each job of a batch file needs its own"),

        /// CLIP model for clip_i, clip_t and clip_score; "toy" is the small one inside this program, for
        /// pictures of the toy model [default: openai/clip-vit-large-patch14]
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
            .says("the flag `--model` is another name; for laion's bigG: `laion/CLIP-ViT-bigG-14-laion2B-39B-b160k`"),

        /// DINO model for dino [default: facebook/dino-vitb16]
        #[arg(long, value_name = "ID|FOLDER", help_heading = "Models and device")]
        pub dino_model: Option<String> = any()
            .takes("repository or folder")
            .by_default("`facebook/dino-vitb16`")
            .says("see below if the repository has only pickled weights"),

        /// DINOv2 model for dinov2 [default: facebook/dinov2-base]
        #[arg(long, value_name = "ID|FOLDER", help_heading = "Models and device")]
        pub dinov2_model: Option<String> = any()
            .takes("repository or folder")
            .by_default("`facebook/dinov2-base`"),

        /// LPIPS model, needed for lpips: a folder made by `scripts/convert_encoder.py` [default: none]
        #[arg(long, value_name = "FOLDER", help_heading = "Models and device")]
        pub lpips_model: Option<String> = any()
            .takes("folder")
            .by_default("none")
            .says("needed for `lpips`, see below"),

        /// DreamSim model, needed for dreamsim: a folder made by `scripts/convert_encoder.py` [default: none]
        #[arg(long, value_name = "FOLDER", help_heading = "Models and device")]
        pub dreamsim_model: Option<String> = any()
            .takes("folder")
            .by_default("none")
            .says("needed for `dreamsim`, see below"),

        /// Segment Anything model for `--masks sam` [default: facebook/sam-vit-base]
        #[arg(long, value_name = "ID|FOLDER", help_heading = "Models and device")]
        pub sam_model: Option<String> = any()
            .takes("repository or folder")
            .by_default("`facebook/sam-vit-base`")
            .says("the model of `masks` `sam`"),

        /// auto, cpu, cuda or cuda:N; the networks run in fp32 on all of them [default: auto, the first GPU or
        /// else the CPU]
        #[arg(long, value_name = "DEVICE", help_heading = "Models and device")]
        pub device: Option<String> = words("auto")
            .takes("`auto`, `cpu`, `cuda`, `cuda:N`")
            .says("the networks run in fp32 on all of them"),

        /// Do not use the network, only models on this machine [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", value_parser = BoolishValueParser::new(),
              hide_possible_values = true, help_heading = "Models and device")]
        pub offline: Option<bool> = switch()
            .says("do not use the network, only models on this machine"),
    }
}

/// The flags of `evaluate` and those of its run.
#[derive(Clone, Debug, Args)]
pub struct EvaluateLine {
    /// The flags of the command; each is also a batch key.
    #[command(flatten)]
    pub flags: EvaluateFlags,
    /// Flags of the whole run.
    #[command(flatten)]
    pub run: EvaluateRunFlags,
}

/// Like [`RunFlags`], except for the format, because `evaluate` prints a table instead of file names.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Run")]
pub struct EvaluateRunFlags {
    /// Batch file with many jobs: {"defaults": {…}, "jobs": [{…}, …]}; the keys are the flags in snake_case (of
    /// the run)
    #[arg(long, value_name = "FILE.json")]
    pub config: Option<PathBuf>,

    /// How the table is written on stdout: text, one JSON object per line, or CSV (of the run)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = TableFormat::Text)]
    pub format: TableFormat,

    /// No progress, only warnings and errors (of the run)
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also show resolved settings and each part of the model that is loaded (of the run)
    #[arg(short, long)]
    pub verbose: bool,

    /// Read pictures and masks, check that the models' files are there, list the pictures and the masks that
    /// `--save-masks` would write, then stop (of the run)
    #[arg(long)]
    pub dry_run: bool,
}

impl EvaluateRunFlags {
    /// These flags as [`RunFlags`], which a session takes. A session lists files only in a dry run, where CSV
    /// lists them as text does.
    pub fn run(&self) -> RunFlags {
        RunFlags {
            config: self.config.clone(),
            format: match self.format {
                TableFormat::Json => Format::Json,
                TableFormat::Text | TableFormat::Csv => Format::Text,
            },
            // An evaluation measures all pictures in one process.
            shard: Some("1/1".to_owned()),
            quiet: self.quiet,
            verbose: self.verbose,
            dry_run: self.dry_run,
        }
    }
}

/// The format of the printed table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Aligned columns, for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// Comma-separated values with a header line.
    Csv,
}
