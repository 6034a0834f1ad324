//! The command line: flags, their help texts and their short forms.
//!
//! The doc comment on a field is its help text. The fields are also the keys of a batch file, so each flag
//! struct can be read from JSON. Only the types of the values are checked here; their ranges are checked by
//! [`crate::config`]. Every flag can also be set by an environment variable, `ONEACTOR_` and the flag's name in
//! capitals, see [`command`].

use std::any::TypeId;
use std::path::PathBuf;

use crate::schedulers::names;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) mod ablate;
pub(crate) mod axes;
pub(crate) mod controlnet;
pub(crate) mod crop;
pub(crate) mod drawing;
pub(crate) mod evaluate;
pub(crate) mod fetch;
pub(crate) mod gallery;
pub(crate) mod generate_base;
pub(crate) mod help_files;
pub mod image_prompt;
pub(crate) mod merge;
pub(crate) mod method;
pub(crate) mod model;
pub mod sample;
pub(crate) mod schema;
pub mod setting;
pub(crate) mod story;
pub(crate) mod sweep;
pub(crate) mod target;
pub(crate) mod tune;
pub(crate) mod variables;

pub use ablate::AblateFlags;
use axes::one_or_many;
pub use axes::{AxisFlags, AxisLists};
pub use controlnet::ControlFlags;
pub use crop::Crop;
pub use drawing::DrawingFlags;
pub use evaluate::{EvaluateFlags, EvaluateLine, TableFormat};
pub use fetch::FetchFlags;
pub use gallery::GalleryFlags;
pub use generate_base::GenerateBaseFlags;
pub use help_files::{CompletionsFlags, InspectFlags, ManFlags, SchemaFlags};
pub use merge::MergeFlags;
pub use method::Method;
pub use model::{AttentionKernel, ModelFlags};
pub use sample::SampleFlags;
pub use setting::{Declared, Setting};
pub use story::StoryFlags;
pub use sweep::SweepFlags;
pub use target::Target;
pub use tune::TuneFlags;
pub use variables::{command, exclusive, typed};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "oneactor", version, about, long_about = LONG_ABOUT, after_help = after_help())]
#[command(max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const LONG_ABOUT: &str = "\
Draws the same subject again and again with SDXL, SD 1.5 or SD 2.1: the method of the paper OneActor \
(NeurIPS 2024).

  1. oneactor generate-base -p 'a hobbit wearing robes' --subject hobbit -o runs/hobbit
  2. look at runs/hobbit/grid.png and pick a picture, say 4
  3. oneactor tune runs/hobbit --target 4
  4. oneactor sample runs/hobbit -p 'a hobbit at the beach' -o runs/hobbit/beach

Add --model toy to try it on a CPU, with the small model inside this program.";

/// The end of `oneactor --help`: samplers, exit codes, output and environment.
fn after_help() -> String {
    format!(
        "Samplers (--scheduler) and their names in other programs:\n{}\n{AFTER_HELP}",
        names::table()
    )
}

const AFTER_HELP: &str = "\
Exit codes:
    0  done
    1  failed while running
    2  wrong flags or input
    3  a model or a download failed
    4  the device failed, or its memory ran out
    5  some jobs or images of a batch failed
    6  a quality gate failed
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)

The paths of written files are printed on stdout, one per line; evaluate prints its table there. Messages go to stderr.

Every flag can also be set by an environment variable, for instance ONEACTOR_STEPS=20. For --target and --save-masks \
the variable also names the command: ONEACTOR_SAMPLE_TARGET, ONEACTOR_EVALUATE_SAVE_MASKS. Flags that are not marked \
\"of the run\" can also be set in a batch file (--config). A flag overrides the environment, and the environment \
overrides a batch file.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Draw base images of a subject with the plain model
    ///
    /// Saves the seed, the final latents and the encoder features of each image. Pick one image on the contact
    /// sheet grid.png; `tune` learns it as the target.
    GenerateBase(CommandLine<GenerateBaseFlags>),
    /// Learn the look of one base image
    ///
    /// Trains the small projector of the paper (Algorithm 1) on the base images alone and writes
    /// actor.safetensors into their folder. An interrupted run continues where it stopped. With --method, a
    /// baseline learns from the same images for comparison.
    Tune(CommandLine<TuneFlags>),
    /// Draw the subject in new scenes
    ///
    /// Cluster-guided sampling with a tuned actor (Eq. 19 of the paper), or a baseline (--method).
    Sample(CommandLine<SampleFlags>),
    /// Draw a whole story: its characters, its scenes and a page that shows them
    ///
    /// Makes the characters of a story file (as `generate-base` and `tune` do), draws its scenes (as `sample`
    /// does) and writes the pictures with their captions to index.html, a page that needs no other file. An
    /// interrupted run continues where it stopped.
    Story(CommandLine<StoryFlags>),
    /// Draw one prompt with many values on a labelled grid
    ///
    /// One or two lists of semantic scales, etas, guided steps, guidance scales or semantic interpolations make
    /// the columns and rows (Figs. 3, 12 and 13 of the paper). The file name of every picture contains its
    /// values.
    Sweep(CommandLine<SweepFlags>),
    /// Show what each loss of the method contributes, in a row of pictures
    ///
    /// Tunes two more actors with the same settings: one without the average loss, one without the average and
    /// the auxiliary loss. Then draws the same prompts and seeds with the plain model and with all three actors
    /// (Fig. 11 of the paper).
    Ablate(CommandLine<AblateFlags>),
    /// Measure how similar pictures are to the target, to each other and to their prompts
    ///
    /// CLIP-I, CLIP-T, CLIP-score, DINO, DINOv2, LPIPS and DreamSim (Sec. 4.3 and App. A.5 of the paper) for
    /// each picture, prompt and actor and overall, with standard deviations. The table goes to stdout. Files
    /// are written only with `--save-masks` (masks) and `--report` (a page).
    Evaluate(EvaluateLine),
    /// Join the results of several processes that drew with --shard
    ///
    /// Joins their picture lists to manifest.jsonl and draws grid.png (scenes.png in a folder of base images).
    /// The result is the same as that of a single process.
    Merge(MergeFlags),
    /// Download models, so that this machine can draw without a network
    ///
    /// Downloads all files that the other commands read into the cache. An interrupted download continues where
    /// it stopped, and every file is compared with the hub's SHA-256. Lists the files and the licence of each
    /// model. A dry run downloads only the small files that name the others.
    Fetch(FetchFlags),
    /// Make a page of the pictures in folders, with prompts, seeds and settings
    ///
    /// Writes one HTML file that needs no other file and no network. It shows all pictures that this program
    /// drew in the given folders and the folders below them, reduced in size, each with the command that draws
    /// it again, and the images that the actors were made from.
    Gallery(GalleryFlags),
    /// Show versions, devices, the model cache and whether a token is set
    Doctor(DoctorFlags),
    /// Show the settings and contents recorded in pictures, actors, base sets and other safetensors files
    Inspect(InspectFlags),
    /// Print the JSON Schema of a command's batch files
    Schema(SchemaFlags),
    /// Print completions for a shell
    Completions(CompletionsFlags),
    /// Write man pages
    Man(ManFlags),
}

/// The flags of a command, and the flags of the run that every command has.
#[derive(Clone, Debug, Args)]
pub struct CommandLine<F: Args> {
    /// The flags of the command; each is also a batch key.
    #[command(flatten)]
    pub flags: F,
    /// Flags of the whole run, which are not batch keys.
    #[command(flatten)]
    pub run: RunFlags,
}

/// Flags of a run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Run")]
pub struct RunFlags {
    /// Batch file with many jobs: {"defaults": {…}, "jobs": [{…}, …]}; the keys are the flags in snake_case (of
    /// the run)
    #[arg(long, value_name = "FILE.json")]
    pub config: Option<PathBuf>,

    /// How results are listed on stdout: paths, or one JSON object per line (of the run)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Do only part I of N, counted from 1: every N-th picture of sample, or every N-th job of generate-base
    /// and tune; `merge` joins the parts (of the run) [default: from Slurm's environment variables, or else
    /// everything]
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,

    /// No progress, only warnings and errors (of the run)
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also show resolved settings and each part of the model that is loaded (of the run)
    #[arg(short, long)]
    pub verbose: bool,

    /// Check everything, then stop: list the files that would be written, show how each prompt is split into
    /// tokens, and estimate the downloads, the computation and the memory. Fails if a prompt is too long or a
    /// disk is too small (of the run)
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of a run that reads no batch file and cannot be split into parts.
#[derive(Clone, Debug, Default, Args)]
pub struct SingleRunFlags {
    /// How files are listed on stdout: paths, or one JSON object per line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// No progress, only warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Also show which files are read
    #[arg(short, long)]
    pub verbose: bool,

    /// Check everything and list the files that would be written or fetched, then stop
    #[arg(long)]
    pub dry_run: bool,
}

impl SingleRunFlags {
    /// These flags as [`RunFlags`], which a session takes.
    pub fn run(&self) -> RunFlags {
        RunFlags {
            format: self.format,
            quiet: self.quiet,
            verbose: self.verbose,
            dry_run: self.dry_run,
            shard: Some("1/1".to_owned()),
            ..RunFlags::default()
        }
    }
}

/// Flags of `doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorFlags {
    /// Format of the report: text lines, or one JSON object
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How results are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One path per line.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The declarations of a flag struct.
type Declarations = fn() -> Vec<Setting>;

/// The settings of each subcommand that takes batch files, in the order of its flags.
const SETTINGS: [(&str, Declarations); 7] = [
    ("generate-base", GenerateBaseFlags::settings),
    ("tune", TuneFlags::settings),
    ("sample", SampleFlags::settings),
    ("story", StoryFlags::settings),
    ("sweep", SweepFlags::settings),
    ("ablate", AblateFlags::settings),
    ("evaluate", EvaluateFlags::settings),
];

/// The settings of a subcommand; empty for a subcommand that takes no batch files.
pub fn settings_of(subcommand: &str) -> Vec<Setting> {
    let of_it = SETTINGS.iter().find(|(name, _)| *name == subcommand);
    of_it.map_or_else(Vec::new, |(_, settings)| settings())
}

/// The settings of all subcommands; a setting that several subcommands have is repeated.
pub fn all_settings() -> impl Iterator<Item = Setting> {
    SETTINGS.iter().flat_map(|(_, settings)| settings())
}

/// The batch keys of a subcommand with the aliases of each: all its flags except those of the run.
pub fn batch_keys(subcommand: &str) -> Vec<(String, Vec<String>)> {
    let of_the_run = keys_of::<RunFlags>();
    let command = Cli::command();
    let Some(subcommand) = command.find_subcommand(subcommand) else {
        return Vec::new();
    };
    let mut keys = keys_in(subcommand);
    keys.retain(|key| !of_the_run.contains(key));
    keys
}

/// The keys of a flag struct in a file, with the aliases of each.
pub fn keys_of<F: Args>() -> Vec<(String, Vec<String>)> {
    keys_in(&F::augment_args(clap::Command::new("keys")))
}

/// The keys whose values are or may be paths, in the files of all commands; `actor` is a key of story files.
pub fn path_keys() -> Vec<String> {
    let cli = Cli::command();
    let flags = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    let keys = flags.filter(|flag| is_path(flag));
    let keys = keys.map(|flag| flag.get_id().to_string());
    keys.chain(["actor".to_owned()]).collect()
}

/// Whether a flag takes a path, or a name that may be a path.
fn is_path(flag: &clap::Arg) -> bool {
    let names = flag.get_value_names().unwrap_or_default();
    let may_be = |name: &clap::builder::Str| name.contains("FOLDER") || name.contains("FILE");
    flag.get_value_parser().type_id() == TypeId::of::<PathBuf>() || names.iter().any(may_be)
}

fn keys_in(command: &clap::Command) -> Vec<(String, Vec<String>)> {
    command
        .get_arguments()
        .map(|flag| {
            let aliases = flag.get_visible_aliases().unwrap_or_default();
            let snake = |name: &str| name.replace('-', "_");
            (
                flag.get_id().to_string(),
                aliases.into_iter().map(snake).collect(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declarations_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn batch_keys_are_the_flags_in_snake_case() {
        let keys: Vec<String> = batch_keys("generate-base")
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        for key in [
            "prompt",
            "subject",
            "num_images",
            "guidance_scale",
            "model",
            "overwrite",
        ] {
            assert!(keys.iter().any(|known| known == key), "{key} is missing");
        }
        for key in ["config", "quiet", "dry_run", "format", "help", "version"] {
            assert!(
                !keys.iter().any(|known| known == key),
                "{key} is no batch key"
            );
        }
        for command in schema::commands() {
            let keys = batch_keys(&command).into_iter().map(|(key, _)| key);
            let declared = settings_of(&command).into_iter();
            let declared = declared.map(|setting| setting.key.to_owned());
            assert!(
                keys.eq(declared),
                "{command} has flags without a declaration"
            );
        }
        let tune = batch_keys("tune");
        for key in ["lambda_1", "lambda_2", "dir", "target"] {
            assert!(
                tune.iter().any(|(known, _)| known == key),
                "{key} is missing"
            );
        }
        assert!(!batch_keys("sample").is_empty());
    }
}
