//! Finds an IP-Adapter and its image encoder: in a repository with the layout of h94/IP-Adapter, in
//! a copy of one, in a file, or in the binary.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::blob::Blob;
use super::model_files::{ModelFiles, TOY};
use crate::error::{self, usage};

/// The repository of the paper's authors.
pub const REPOSITORY: &str = "h94/IP-Adapter";

/// The files in a repository for one kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpAdapterLayout {
    adapter: &'static str,
    encoder: &'static str,
    /// Width of the text tokens beside which the adapter's tokens are read.
    text_width: i64,
}

/// SDXL, with the encoder OpenCLIP ViT-bigG.
pub const SDXL: IpAdapterLayout = IpAdapterLayout {
    adapter: "sdxl_models/ip-adapter_sdxl.safetensors",
    encoder: "sdxl_models/image_encoder",
    text_width: 2048,
};

/// SD 1.5, with the encoder OpenCLIP ViT-H.
pub const STABLE_DIFFUSION: IpAdapterLayout = IpAdapterLayout {
    adapter: "models/ip-adapter_sd15.safetensors",
    encoder: "models/image_encoder",
    text_width: 768,
};

/// The toy's adapter; the toy's CLIP is the encoder.
const OF_THE_TOY: IpAdapterLayout = IpAdapterLayout {
    adapter: "ip_adapter/ip-adapter.safetensors",
    encoder: "clip",
    text_width: 64,
};

/// The folder of the encoder in a copy that has one encoder only.
const ENCODER: &str = "image_encoder";

/// The files that contain an image encoder, and its folder among them.
type FoundEncoder = (Rc<ModelFiles>, String);

/// Finds the files that a flag names.
type Find<'a> = &'a dyn Fn(&str) -> Result<ModelFiles>;

/// The adapter's file and the image encoder, found but not read yet.
#[derive(Debug)]
pub struct IpAdapterFiles {
    adapter: Adapter,
    encoder: FoundEncoder,
}

#[derive(Debug)]
enum Adapter {
    File(PathBuf),
    Of(Rc<ModelFiles>, &'static str),
}

/// The default adapter for this model.
pub fn default_adapter(model: &str) -> &'static str {
    match model {
        TOY => TOY,
        _ => REPOSITORY,
    }
}

/// Refuses the authors' adapters for a model whose text has another width, such as SD 2.1, before
/// any file is looked for.
///
/// # Errors
/// When the authors have no adapter for this width.
pub fn check_width(
    adapter: Option<&str>,
    model: &str,
    layout: IpAdapterLayout,
    width: i64,
) -> Result<()> {
    let name = adapter.unwrap_or(default_adapter(model));
    if name != REPOSITORY || width == layout.text_width {
        return Ok(());
    }
    Err(error::model(format!(
        "{REPOSITORY} has adapters for texts that are 768 or 2048 wide (SD 1.5, SDXL), and the text of {model} \
         is {width} wide: name an adapter that was made for it"
    )))
}

impl IpAdapterFiles {
    /// Finds the files that the flags `--ip-adapter` and `--image-encoder` name. The default is the
    /// toy's own for the toy, otherwise the authors'. An encoder is looked for beside the adapter
    /// first.
    ///
    /// # Errors
    /// When there is no file or repository of that name.
    pub fn locate(
        adapter: Option<&str>,
        encoder: Option<&str>,
        (model, layout): (&str, IpAdapterLayout),
        find: Find,
    ) -> Result<Self> {
        let name = adapter.unwrap_or(default_adapter(model));
        let (adapter, beside) = find_adapter(name, layout, find).context("the IP-Adapter")?;
        let encoder = match (encoder, beside) {
            (Some(TOY), _) => (Rc::new(find(TOY)?), OF_THE_TOY.encoder.to_owned()),
            (Some(name), _) => {
                let files = find(name).context("the image encoder")?;
                (Rc::new(files), String::new())
            }
            (None, Some(beside)) => beside,
            (None, None) if model == TOY => (Rc::new(find(TOY)?), OF_THE_TOY.encoder.to_owned()),
            (None, None) => {
                let files = find(REPOSITORY).context("the image encoder")?;
                (Rc::new(files), layout.encoder.to_owned())
            }
        };
        Ok(IpAdapterFiles { adapter, encoder })
    }

    /// The adapter's file, fetched if necessary.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub fn adapter(&self) -> Result<Blob> {
        match &self.adapter {
            Adapter::File(path) => Ok(Blob::File(path.clone())),
            Adapter::Of(files, path) => files.file(path),
        }
    }

    /// The files that contain the adapter, and its path among them; `None` for a separate file.
    pub fn adapter_source(&self) -> Option<(&Rc<ModelFiles>, &'static str)> {
        match &self.adapter {
            Adapter::File(_) => None,
            Adapter::Of(files, path) => Some((files, path)),
        }
    }

    /// The files that contain the image encoder, and its folder among them.
    pub fn encoder(&self) -> (&Rc<ModelFiles>, &str) {
        (&self.encoder.0, &self.encoder.1)
    }

    /// What identifies the files of the adapter and of the encoder: the commit of a repository, or
    /// the CRC-32 of local files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprints(&self) -> Result<[Fingerprint; 2]> {
        let (files, folder) = self.encoder();
        let adapter = match &self.adapter {
            Adapter::Of(files, path) => match files.revision() {
                Some(commit) => Fingerprint::Commit(commit.to_owned()),
                None => Fingerprint::Crc32(Blob::crc32(&[files.file(path)?])?),
            },
            Adapter::File(path) => Fingerprint::Crc32(Blob::crc32(&[Blob::File(path.clone())])?),
        };
        let encoder = match files.revision() {
            Some(commit) => Fingerprint::Commit(commit.to_owned()),
            None => Fingerprint::Crc32(Blob::crc32(&files.weights(folder)?)?),
        };
        Ok([adapter, encoder])
    }
}

/// What identifies files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// The commit of their repository.
    Commit(String),
    /// Eight hexadecimal digits.
    Crc32(String),
}

/// The adapter with this name, and the encoder beside it, if there is one.
fn find_adapter(
    name: &str,
    layout: IpAdapterLayout,
    find: Find,
) -> Result<(Adapter, Option<FoundEncoder>)> {
    let path = Path::new(name);
    let encoder_in = |folders: &[PathBuf]| -> Result<Option<FoundEncoder>> {
        let found = folders
            .iter()
            .find(|folder| folder.join("config.json").is_file());
        found
            .map(|folder| Ok((Rc::new(find(&folder.to_string_lossy())?), String::new())))
            .transpose()
    };
    // `toy` means the toy's own adapter, even beside a folder of that name.
    let is_here = name != TOY;
    if is_here && path.is_file() {
        if !name.ends_with(".safetensors") {
            return Err(usage(format!(
                "{name}: expected a .safetensors file, because other files may be pickled, and reading pickle runs code"
            )));
        }
        let beside = encoder_in(&[path.with_file_name(ENCODER)])?;
        return Ok((Adapter::File(path.to_owned()), beside));
    }
    if is_here && path.is_dir() {
        let in_layout = path.join(layout.adapter);
        let alone = path.join(in_layout.file_name().unwrap_or_default());
        let Some(file) = [&in_layout, &alone].into_iter().find(|file| file.is_file()) else {
            return Err(usage(format!(
                "found neither {} nor {}, expected a copy of {REPOSITORY}, or name the adapter's .safetensors file itself",
                in_layout.display(),
                alone.display()
            )));
        };
        let beside = encoder_in(&[path.join(layout.encoder), path.join(ENCODER)])?;
        return Ok((Adapter::File(file.clone()), beside));
    }
    let files = Rc::new(find(name)?);
    let layout = if name == TOY { OF_THE_TOY } else { layout };
    files.require(layout.adapter)?;
    let encoder = (Rc::clone(&files), layout.encoder.to_owned());
    Ok((Adapter::Of(files, layout.adapter), Some(encoder)))
}
