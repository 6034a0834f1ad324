//! The repositories that the flags of `fetch` name, and the files of each that the commands need.

use std::rc::Rc;

use anyhow::{Context, Result};

use crate::backbone::Pipeline;
use crate::backbone::controlnet::controlnet_config;
use crate::backbone::files::{network_files, pipeline_files, vae_files};
use crate::baselines::ip_adapter::needed_files;
use crate::cli::FetchFlags;
use crate::config::controlnet::name_and_scale;
use crate::error::{model, usage};
use crate::io::hub::{HubSettings, Renewed};
use crate::io::ip_adapter::{self, IpAdapterFiles, IpAdapterLayout, check_width};
use crate::io::model_files::{ModelFiles, ModelOptions, NeededFile, Needs};
use crate::models::vision::encoder_folder::EncoderFolder;
use crate::run::located::find;

/// A name on the command line, and what kind of thing it names.
pub(super) enum RepoFlag<'a> {
    Model(&'a str),
    Files(&'a str),
    Vae(&'a str),
    ControlNet(&'a str),
    /// An IP-Adapter, with the models that it is for.
    IpAdapter(&'a str, Vec<Adapted<'a>>),
}

/// The name of a model that draws, and where a repository of IP-Adapters has the adapter for it.
pub(super) type Adapted<'a> = (&'a str, IpAdapterLayout);

impl RepoFlag<'_> {
    pub(super) fn title(&self) -> String {
        match self {
            RepoFlag::Model(name) | RepoFlag::Files(name) => (*name).to_owned(),
            RepoFlag::Vae(name) => format!("--vae {name}"),
            RepoFlag::ControlNet(name) => format!("--controlnet {name}"),
            RepoFlag::IpAdapter(name, _) => format!("--ip-adapter {name}"),
        }
    }
}

/// All that the flags name; `adapted` are the models that the IP-Adapter is for.
pub(super) fn wanted<'a>(flags: &'a FetchFlags, adapted: Vec<Adapted<'a>>) -> Vec<RepoFlag<'a>> {
    let names = || flags.models.iter().map(String::as_str);
    if !flags.file.is_empty() {
        return names().map(RepoFlag::Files).collect();
    }
    let mut wanted: Vec<RepoFlag> = names().map(RepoFlag::Model).collect();
    wanted.extend(flags.vae.as_deref().map(RepoFlag::Vae));
    wanted.extend(
        flags
            .controlnet
            .iter()
            .map(|name| RepoFlag::ControlNet(name)),
    );
    if let (Some(adapter), false) = (&flags.ip_adapter, adapted.is_empty()) {
        wanted.push(RepoFlag::IpAdapter(adapter, adapted));
    }
    wanted
}

/// Files of one model or network.
pub(super) struct RepoPart {
    pub(super) files: Rc<ModelFiles>,
    pub(super) needed: Vec<NeededFile>,
    /// With `--refresh`: the branch that is renewed, and the other files of it in the cache.
    pub(super) renewed: Option<Renewed>,
}

/// Finds out which files a name stands for. This downloads the small files of a repository that say so.
pub(super) struct Finder<'a> {
    pub(super) flags: &'a FetchFlags,
    pub(super) quiet: bool,
    /// With `--refresh`: the hub's settings.
    pub(super) renewing: Option<HubSettings>,
}

impl<'a> Finder<'a> {
    /// The models that `--ip-adapter` is for. A model that cannot be found is skipped here if another model draws; its
    /// own job reports the error.
    ///
    /// # Errors
    /// When the flag was typed and none of the models draws, or when the authors have no adapter for the text width
    /// of a model; `sample` refuses the same.
    pub(super) fn adapted(&self) -> Result<Vec<Adapted<'a>>> {
        let (Some(adapter), true) = (&self.flags.ip_adapter, self.flags.file.is_empty()) else {
            return Ok(Vec::new());
        };
        let is_typed = self.flags.is_typed("ip_adapter");
        let (mut adapted, mut failed) = (Vec::new(), None);
        for name in &self.flags.models {
            match self.layout_and_width(name) {
                Ok(None) => {}
                Ok(Some((layout, width))) => {
                    match check_width(Some(adapter), name, layout, width) {
                        Ok(()) => adapted.push((name.as_str(), layout)),
                        Err(error) if is_typed => return Err(error),
                        Err(_) => {}
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (adapted.is_empty() && is_typed, failed) {
            (false, _) => Ok(adapted),
            (true, Some(error)) => Err(error),
            (true, None) => Err(usage(format!(
                "--ip-adapter {adapter}: found {}, expected a model that draws: also name the model that the adapter \
                 is for",
                self.flags.models.join(", ")
            ))),
        }
    }

    /// For a model that draws, where a repository of IP-Adapters has the adapter for it, and the width of a text
    /// embedding. `None` for a model that does not draw.
    fn layout_and_width(&self, name: &str) -> Result<Option<(IpAdapterLayout, i64)>> {
        let (variant, revision) = (self.flags.variant.as_ref(), self.flags.revision.as_ref());
        let files = self.locate(name, variant, revision)?;
        if kind_of(&files)? != RepoKind::Pipeline {
            return Ok(None);
        }
        let pipeline = Pipeline::of(&files)?;
        let layout = match pipeline {
            Pipeline::StableDiffusionXl => ip_adapter::SDXL,
            Pipeline::StableDiffusion => ip_adapter::STABLE_DIFFUSION,
        };
        let width = pipeline.unet_config(&files)?.cross_attention_dim;
        Ok(Some((layout, width)))
    }

    /// The files that a name stands for, including README and licence.
    ///
    /// # Errors
    /// When there is no such repository, or a file is missing.
    pub(super) fn find(&self, wanted: &RepoFlag) -> Result<Vec<RepoPart>> {
        let mut parts = self.needed(wanted)?;
        for part in &mut parts {
            part.renewed = part.files.renewed(&part.needed)?;
        }
        Ok(parts)
    }

    fn needed(&self, wanted: &RepoFlag) -> Result<Vec<RepoPart>> {
        let mut parts = match wanted {
            RepoFlag::Model(name) => vec![self.model(name)?],
            // Only the requested files are listed, without README and licence, so that a script can use the paths.
            RepoFlag::Files(name) => return Ok(vec![self.files(name)?]),
            RepoFlag::Vae(name) => {
                let files = self.locate(name, None, None)?;
                vec![RepoPart::new(files, vae_files)?]
            }
            RepoFlag::ControlNet(text) => {
                // `--controlnet` of the other commands may have a scale after the name.
                let (name, _) = name_and_scale(text);
                let files = self.locate(name, self.flags.variant.as_ref(), None)?;
                controlnet_config(&files)?;
                vec![RepoPart::new(files, |files| network_files(files, ""))?]
            }
            RepoFlag::IpAdapter(adapter, models) => self.ip_adapter(adapter, models)?,
        };
        parts.iter_mut().try_for_each(RepoPart::add_licence)?;
        Ok(parts)
    }

    fn locate(
        &self,
        name: &str,
        variant: Option<&String>,
        revision: Option<&String>,
    ) -> Result<ModelFiles> {
        let options = ModelOptions {
            model: name.to_owned(),
            variant: variant.cloned(),
            revision: revision.cloned(),
            offline: self.flags.offline == Some(true),
        };
        match &self.renewing {
            Some(settings) => ModelFiles::locate_with(&options, &|| Ok(settings.clone())),
            None => find(&options, self.quiet),
        }
    }

    fn files(&self, name: &str) -> Result<RepoPart> {
        let files = self.locate(name, None, self.flags.revision.as_ref())?;
        if files.repository().is_none() {
            return Err(usage(format!(
                "--file: found {name}, expected a repository of Hugging Face: files on this machine need not be fetched"
            )));
        }
        RepoPart::new(files, |files| {
            let mut needs = Needs::of(files);
            for file in &self.flags.file {
                needs.require(file).context("--file")?;
            }
            Ok(needs.found)
        })
    }

    fn model(&self, name: &str) -> Result<RepoPart> {
        let (variant, revision) = (self.flags.variant.as_ref(), self.flags.revision.as_ref());
        let files = self.locate(name, variant, revision)?;
        let kind = kind_of(&files)?;
        if let (Some(revision), false) = (revision, kind == RepoKind::Pipeline) {
            return Err(usage(format!(
                "--revision {revision}: {name} is no model that draws, and the other commands always use its default \
                 revision: leave --revision out"
            )));
        }
        // Other commands read `--vae` and the encoders of `evaluate` without a variant, so this does too.
        let files = match kind {
            RepoKind::Vae | RepoKind::Encoder if variant.is_some() => {
                self.locate(name, None, None)?
            }
            _ => files,
        };
        RepoPart::new(files, |files| match kind {
            RepoKind::Pipeline => {
                let parts = pipeline_files(files, self.flags.vae.is_some())?;
                Ok(parts.into_iter().flat_map(|(_, files)| files).collect())
            }
            RepoKind::Vae => vae_files(files),
            RepoKind::ControlNet => network_files(files, ""),
            RepoKind::Encoder => EncoderFolder { files, path: "" }.needed(),
        })
    }

    /// The files of the adapter and image encoder for each of these models; each file is listed once.
    fn ip_adapter(&self, adapter: &str, models: &[Adapted]) -> Result<Vec<RepoPart>> {
        let variant = self.flags.variant.as_ref();
        let encoder = self.flags.image_encoder.as_deref();
        let find = |name: &str| self.locate(name, variant, None);
        let mut parts: Vec<RepoPart> = Vec::new();
        for &model in models {
            let found = IpAdapterFiles::locate(Some(adapter), encoder, model, &find)?;
            for (files, needed) in needed_files(&found)? {
                let is_of_it = |part: &&mut RepoPart| part.files.name() == files.name();
                match parts.iter_mut().find(is_of_it) {
                    None => parts.push(RepoPart {
                        files,
                        needed,
                        renewed: None,
                    }),
                    Some(part) => part.add(needed),
                }
            }
        }
        Ok(parts)
    }
}

impl RepoPart {
    fn new(
        files: ModelFiles,
        needed: impl Fn(&ModelFiles) -> Result<Vec<NeededFile>>,
    ) -> Result<Self> {
        // A folder or file on this machine needs no download.
        let needed = match files.repository() {
            Some(_) => needed(&files)?,
            None => Vec::new(),
        };
        Ok(Self {
            needed,
            renewed: None,
            files: Rc::new(files),
        })
    }

    /// Adds files that are not in the list yet.
    fn add(&mut self, needed: Vec<NeededFile>) {
        for file in needed {
            if self.needed.iter().all(|known| known.name != file.name) {
                self.needed.push(file);
            }
        }
    }

    /// Adds README and licence, so that whoever has the model has its licence.
    fn add_licence(&mut self) -> Result<()> {
        if self.files.repository().is_none() {
            return Ok(());
        }
        let mut needs = Needs::of(&self.files);
        needs.take("README.md")?;
        let (texts, _) = self.files.licence().unwrap_or_default();
        for text in texts {
            needs.take(&text)?;
        }
        // Empty files are left out: they say nothing, and a request for a range of an empty file fails.
        needs.found.retain(|file| file.bytes != Some(0));
        self.needed.extend(needs.found);
        Ok(())
    }
}

/// The kind of network in a repository.
#[derive(Clone, Copy, PartialEq)]
enum RepoKind {
    Pipeline,
    Vae,
    ControlNet,
    /// A network that reads pictures: for measures, masks or image prompts.
    Encoder,
}

/// The values of `model_type` in `config.json` of these networks.
const ENCODERS: [&str; 5] = ["clip", "clip_vision_model", "vit", "dinov2", "sam"];

fn kind_of(files: &ModelFiles) -> Result<RepoKind> {
    if files.optional_text("model_index.json")?.is_some() {
        Pipeline::of(files)?;
        return Ok(RepoKind::Pipeline);
    }
    let name = files.name();
    if files.optional_text("config.json")?.is_none() {
        return Err(model(format!(
            "{name} has neither model_index.json nor config.json: name single files of it with --file, or give an \
             IP-Adapter with --ip-adapter together with its model"
        )));
    }
    let config = files.config("config.json")?;
    let class = config.text("_class_name").unwrap_or_default();
    let kind = config.text("model_type").unwrap_or_default();
    match (class, kind) {
        ("AutoencoderKL", _) => Ok(RepoKind::Vae),
        ("ControlNetModel", _) => controlnet_config(files).map(|_| RepoKind::ControlNet),
        (_, kind) if ENCODERS.contains(&kind) => Ok(RepoKind::Encoder),
        _ => Err(model(format!(
            "{name}: config.json: found _class_name \"{class}\" and model_type \"{kind}\", expected AutoencoderKL, \
             ControlNetModel or one of {}: no command reads this network; fetch single files with --file",
            ENCODERS.join(", ")
        ))),
    }
}
