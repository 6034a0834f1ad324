//! Flags of the commands that describe files and the program: `inspect`, `schema`, `completions`, `man`.

use std::path::PathBuf;

use clap::Args;

use super::Format;

/// Flags of `inspect`.
#[derive(Clone, Debug, Default, Args)]
pub struct InspectFlags {
    /// Pictures, actors (or their folders), base sets and other .safetensors files
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// List every tensor with its type and shape
    #[arg(long)]
    pub tensors: bool,

    /// Format of the output: text lines, or one JSON object per file
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Flags of `schema`.
#[derive(Clone, Debug, Default, Args)]
pub struct SchemaFlags {
    /// Command whose batch files the schema describes, for instance sample
    #[arg(value_name = "COMMAND")]
    pub of: String,
}

/// Flags of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsFlags {
    /// Shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// Flags of `man`.
#[derive(Clone, Debug, Default, Args)]
pub struct ManFlags {
    /// Folder for the man pages: oneactor.1 and one page per command
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
