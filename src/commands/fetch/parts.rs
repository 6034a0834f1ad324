//! What the flags of `fetch` name, and which files that comes to.

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

/// What a flag names.
pub(super) enum RepoFlag<'a> {
    Model(&'a str),
    Files(&'a str),
    Vae(&'a str),
    ControlNet(&'a str),
    /// The adapter for these models.
    IpAdapter(&'a str, Vec<Adapted<'a>>),
}

/// A model that draws, and which of the adapters in a repository is for it.
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

/// What the flags name, the adapter for the models that it is for.
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
    /// With `--refresh`: what else is renewed.
    pub(super) renewed: Option<Renewed>,
}

/// Finds out which files a name comes to. Of a repository the small files that tell it are fetched.
pub(super) struct Finder<'a> {
    pub(super) flags: &'a FetchFlags,
    pub(super) quiet: bool,
    /// With `--refresh`: the hub's settings.
    pub(super) renewing: Option<HubSettings>,
}

impl<'a> Finder<'a> {
    /// The models that `--ip-adapter` is for. One that can not be found is left to tell so by itself, if another one
    /// draws.
    ///
    /// # Errors
    /// When the flag was typed and none of the models draws, or one reads texts of a width that the authors have no
    /// adapter for, as `sample` refuses it.
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
                "--ip-adapter {adapter}: found {}, expected a model that draws beside it: name the one that it is for",
                self.flags.models.join(", ")
            ))),
        }
    }

    /// Of a model that draws: which of the adapters in a repository is for it, and how wide the text is that it reads.
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

    /// The files of what a flag names, with the licence's.
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
            // What was asked for is listed alone, so that the shell can hand the path on.
            RepoFlag::Files(name) => return Ok(vec![self.files(name)?]),
            RepoFlag::Vae(name) => {
                let files = self.locate(name, None, None)?;
                vec![RepoPart::new(files, vae_files)?]
            }
            RepoFlag::ControlNet(text) => {
                // The other commands' flag has a scale behind the name.
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
                "--file: found {name}, expected a repository of Hugging Face: of what is on this machine nothing is to \
                 be fetched"
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
                "--revision {revision}: {name} is no model that draws, and no flag takes another revision of it: leave \
                 it out"
            )));
        }
        // As the commands look for them that read it: `--vae` and the encoders of evaluate without a variant.
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

    /// Adapters and image encoders for the kinds of these models, each file once.
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
        // Of what lies here nothing is to be fetched.
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

    /// Adds those files that it does not have yet.
    fn add(&mut self, needed: Vec<NeededFile>) {
        for file in needed {
            if self.needed.iter().all(|known| known.name != file.name) {
                self.needed.push(file);
            }
        }
    }

    /// README and licence are fetched too: whoever has the model has its licence.
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
        // An empty file has no range that could be asked for, and tells nothing.
        needs.found.retain(|file| file.bytes != Some(0));
        self.needed.extend(needs.found);
        Ok(())
    }
}

/// What a repository is.
#[derive(Clone, Copy, PartialEq)]
enum RepoKind {
    Pipeline,
    Vae,
    ControlNet,
    /// One of those that measure or see.
    Encoder,
}

/// Names of the encoders in `config.json`, as `model_type`.
const ENCODERS: [&str; 5] = ["clip", "clip_vision_model", "vit", "dinov2", "sam"];

fn kind_of(files: &ModelFiles) -> Result<RepoKind> {
    if files.optional_text("model_index.json")?.is_some() {
        Pipeline::of(files)?;
        return Ok(RepoKind::Pipeline);
    }
    let name = files.name();
    if files.optional_text("config.json")?.is_none() {
        return Err(model(format!(
            "{name} has neither model_index.json nor config.json: name the files that are wanted of it with --file, \
             or an IP-Adapter with --ip-adapter beside the model that it is for"
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
             ControlNetModel or one of {}: no command reads this network; --file fetches single files",
            ENCODERS.join(", ")
        ))),
    }
}
