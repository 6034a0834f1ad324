//! Flags of `fetch`.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::SingleRunFlags;

/// Flags of `fetch`.
#[derive(Clone, Debug, Default, Args)]
pub struct FetchFlags {
    /// Hugging Face repositories: models that draw, or repositories for the flags of other commands, such as
    /// ControlNets, VAEs and the encoders of evaluate
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,

    /// Fetch only this file of a single MODEL, for instance a LoRA; may be given several times
    #[arg(long, value_name = "NAME",
          conflicts_with_all = ["variant", "vae", "controlnet", "ip_adapter", "image_encoder"])]
    pub file: Vec<String>,

    /// Weight files to prefer, for instance fp16 for name.fp16.safetensors; give the same value here and to the
    /// commands that draw [default: the plain files]
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,

    /// Branch, tag or commit of a single MODEL [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,

    /// VAE that you will use with --vae in other commands; the models' own VAEs are then not fetched
    #[arg(long, value_name = "ID")]
    pub vae: Option<String>,

    /// ControlNet that you will use with --controlnet and these models, in their variant; may be given several times
    #[arg(long, value_name = "ID")]
    pub controlnet: Vec<String>,

    /// IP-Adapter that you will use with sample --method ip-adapter and these models, for instance
    /// h94/IP-Adapter; its image encoder is fetched too
    #[arg(long, value_name = "ID")]
    pub ip_adapter: Option<String>,

    /// Image encoder to fetch in place of the one of --ip-adapter
    #[arg(long, value_name = "ID")]
    pub image_encoder: Option<String>,

    /// Ask the hub for the current commit of each MODEL's branch or tag, fetch the changed files among those in
    /// the cache, and use that commit from then on. Without this flag, a branch that is in the cache is never
    /// looked up again [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub refresh: Option<bool>,

    /// Fetch nothing, and fail if a file is not on this machine [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub offline: Option<bool>,

    /// Flags of the run.
    #[command(flatten)]
    pub run: SingleRunFlags,

    /// Names of the flags that were typed. A variable that is set for other commands may have no effect here,
    /// but a typed flag must have one.
    #[arg(skip)]
    pub typed: Vec<String>,
}

impl FetchFlags {
    /// Whether the flag was typed, and is not from the environment.
    pub fn is_typed(&self, name: &str) -> bool {
        self.typed.iter().any(|typed| typed == name)
    }
}
