//! Flags of `fetch`.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::SingleRunFlags;

/// Flags of `fetch`.
#[derive(Clone, Debug, Default, Args)]
pub struct FetchFlags {
    /// Repositories of Hugging Face: models that draw, and those that the flags of other commands name, such
    /// as ControlNets, VAEs and the encoders of evaluate
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,

    /// Fetch nothing but this file of the one MODEL, such as a LoRA; may be given several times
    #[arg(long, value_name = "NAME")]
    pub file: Vec<String>,

    /// Weight files to prefer, for instance fp16: name.fp16.safetensors; say it here as in the commands that will
    /// draw [default: the plain files]
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,

    /// Branch, tag or commit of the one MODEL [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,

    /// The VAE that --vae of other commands will name; the models' own are not fetched then
    #[arg(long, value_name = "ID")]
    pub vae: Option<String>,

    /// A ControlNet that --controlnet will name beside these models, in their variant; may be given several times
    #[arg(long, value_name = "ID")]
    pub controlnet: Vec<String>,

    /// The IP-Adapter that sample --method ip-adapter will use with those of these models that draw, such as
    /// h94/IP-Adapter, and its image encoder
    #[arg(long, value_name = "ID")]
    pub ip_adapter: Option<String>,

    /// Another image encoder for --ip-adapter
    #[arg(long, value_name = "ID")]
    pub image_encoder: Option<String>,

    /// Ask the hub where the branch or tag of each MODEL stands now, fetch what has changed of all that the cache has of
    /// it, and use that from then on; a branch in the cache is never asked for again otherwise [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub refresh: Option<bool>,

    /// Fetch nothing; fail unless all is on this machine [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub offline: Option<bool>,

    /// Flags of the run.
    #[command(flatten)]
    pub run: SingleRunFlags,

    /// Names of the flags that were typed: what the environment says for other commands may do nothing here.
    #[arg(skip)]
    pub typed: Vec<String>,
}

impl FetchFlags {
    /// Whether the flag was typed, and is not from the environment.
    pub fn is_typed(&self, name: &str) -> bool {
        self.typed.iter().any(|typed| typed == name)
    }
}
