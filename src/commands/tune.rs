//! `tune`: an actor from base images, or what a baseline learns from them.

mod choice;
mod crop;
mod layout;
mod method;
mod outlook;
mod photo;
mod pictures;
mod resume;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::generate_base;
use crate::backbone::Backbone;
use crate::cli::{CommandLine, Crop, Method, TuneFlags};
use crate::config::batch::Settings;
use crate::config::{TuneJob, plan};
use crate::error::usage;
use crate::io::atomic::{remove_leftovers, write_bytes_atomically};
use crate::io::checksum::crc32_of;
use crate::io::text;
use crate::io::writable::create_folder;
use crate::method::base_set::{BaseFacts, BaseSet};
use crate::method::origin::{BASE_CRC32, Origin};
use crate::records::BaseFolder;
use crate::records::differences::differences;
use crate::run::claims::apart;
use crate::run::drawing_settings::lora_settings;
use crate::run::jobs::work_off;
use crate::run::located::LocatedModel;
use crate::run::prepared::Loads;
use crate::run::prepared::Prepared;
use crate::run::session::Session;
pub(super) use choice::{base_image, describe_auto};
use choice::{describe_target, num_auxiliary, target};
use crop::Resolved;
use layout::TuneFiles;
pub(super) use outlook::{learnt, rows_before};
use photo::TargetPhoto;
use pictures::warn_of_replaced;
use resume::{is_resumed, remove_checkpoint, resume};
use steps::{can_continue, learn, summary};

/// Does the jobs of `tune`.
///
/// # Errors
/// See `work_off`.
pub fn run(line: &CommandLine<TuneFlags>) -> Result<()> {
    let session = Session::start("tune", &line.run)?;
    let jobs = plan(
        &line.flags,
        line.run.config.as_deref(),
        "tune",
        TuneJob::check,
    )?;
    let own = session.own(apart(jobs), &line.run);
    work_off(&session, own, prepare, execute)
}

/// A job with its base set and its model.
pub(super) struct Tuning {
    job: TuneJob,
    base: BaseSet,
    /// The target where it is none of the base images.
    photo: Option<TargetPhoto>,
    target: usize,
    /// K; 0 for a baseline, which has none.
    num_auxiliary: usize,
    model: Rc<LocatedModel>,
    /// What the result follows from.
    settings: Settings,
    /// Whether the result is there already.
    pub(super) is_finished: bool,
}

impl Tuning {
    /// The model that is tuned with.
    pub(super) fn model(&self) -> &Rc<LocatedModel> {
        &self.model
    }

    /// Where its results go.
    pub(super) fn folder(&self) -> &Path {
        &self.job.output_dir
    }

    /// The same as it is now, unless it is to be done whatever is there: another job of the run may have done it.
    ///
    /// # Errors
    /// As [`prepare`].
    pub(super) fn looked_up_again(self, session: &Session) -> Result<Self> {
        if self.job.overwrite || self.is_finished {
            Ok(self)
        } else {
            prepare(session, self.job)
        }
    }
}

/// The files that tuning writes.
pub(super) fn files(job: &TuneJob) -> Vec<PathBuf> {
    let layout = TuneFiles::of(job);
    vec![layout.log(), layout.result(), layout.config()]
}

impl Prepared for Tuning {
    fn files(&self) -> Vec<PathBuf> {
        if self.is_finished {
            Vec::new()
        } else {
            files(&self.job)
        }
    }

    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn check_networks(&self) -> Result<()> {
        self.model.check_networks(std::iter::empty())
    }

    fn foresee(&self, session: &Session) -> Result<()> {
        self.outlook()?
            .tell(session, &self.files(), &self.job.output_dir)
    }

    fn loads(&self) -> Loads {
        let base = BaseFolder(&self.job.dir).set();
        let photo = self.job.target_image.iter().cloned();
        Loads {
            shared: vec![self.model.key()],
            reads: photo.chain([base]).collect(),
        }
    }
}

/// Checks a job against its base images, their model and what is there.
///
/// # Errors
/// When there are no base images, or the folder holds an actor of other settings.
pub(super) fn prepare(session: &Session, job: TuneJob) -> Result<Tuning> {
    let layout = TuneFiles::of(&job);
    let base_folder = BaseFolder(&job.dir);
    if !base_folder.has_set() {
        return Err(usage(format!(
            "there is no base set {}: run `oneactor generate-base … -o {}` first",
            base_folder.set().display(),
            job.dir.display()
        )));
    }
    if base_folder.is_unfinished() {
        let dir = job.dir.display();
        return Err(usage(format!(
            "the base images in {dir} are not complete: generate-base is running or was interrupted; run the same \
             `oneactor generate-base … -o {dir}` again"
        )));
    }
    let base = BaseSet::read(&base_folder.set())?;
    warn_of_replaced(session, &job.dir, &base);
    let target = target(&job, &base)?;
    let num_auxiliary = match job.method {
        Method::Oneactor => num_auxiliary(&job, &base)?,
        _ => {
            method::check(&job, &base)?;
            0
        }
    };
    let mut named = job.model.clone();
    named
        .model
        .get_or_insert_with(|| base.facts.model.name.clone());
    let model = session.locate(&named)?;
    let what = format!("the base set {}", base_folder.set().display());
    model.check_loras(&base.facts, &what, &session.reporter);
    model.check_tiles(base.facts.width, base.facts.height, &session.reporter);
    session.tell_of_seed(job.seed);
    let words = &base.facts.base_words;
    for prompt in job.kind.prompts(words) {
        let tokens = model.tokenizers.plain_tokens(&prompt)?;
        for word in words {
            tokens.word_positions(word)?;
        }
    }
    if job.method == Method::DreamboothLora {
        let whose = "the prior of --method dreambooth-lora";
        model.check_base_prompt(&base.facts.prompt, whose, &session.reporter)?;
    }
    let read = |path: &PathBuf| TargetPhoto::read(path, base_folder, &base.facts, &model);
    let photo = job.target_image.as_ref().map(read).transpose()?;
    crop::check(job.crop, &base.facts, &model)?;
    let mut settings = settings(&job, &base.facts, target, &model)?;
    settings.extend(method::settings(&job, num_auxiliary));
    if job.crop != Crop::None {
        settings.insert("crop".to_owned(), json!(job.crop));
    }
    if let Some(photo) = &photo {
        settings.insert("target_image_crc32".to_owned(), json!(photo.facts.crc32));
    }
    let is_finished = !job.overwrite && is_finished(&layout, &settings)?;
    Ok(Tuning {
        job,
        base,
        photo,
        target,
        num_auxiliary,
        model,
        settings,
        is_finished,
    })
}

/// What the result of any method follows from. The base set is known by its CRC-32.
fn settings(
    job: &TuneJob,
    base: &BaseFacts,
    target: usize,
    model: &LocatedModel,
) -> Result<Settings> {
    let tile = model.tiles_of(base.width, base.height);
    let value = json!({
        BASE_CRC32: crc32_of(&BaseFolder(&job.dir).set())?,
        "target": target,
        "kind": job.kind,
        "max_steps": job.max_steps,
        "learning_rate": job.learning_rate,
        "weight_decay": job.weight_decay,
        "seed": job.seed,
        "model": model.files.name(),
        "variant": job.model.variant,
        "revision": model.files.revision(),
        "vae": job.model.vae,
        "lora": lora_settings(model),
        "lora_crc32": model.lora_crc32(),
        "dtype": model.dtype(),
        "tf32": job.model.tf32,
        "vae_tiling": tile.map(|_| true),
        "vae_tile_size": tile,
    });
    let mut settings = value.as_object().cloned().unwrap_or_default();
    settings.retain(|_, value| !value.is_null());
    Ok(settings)
}

/// Whether the folder holds the result that these settings lead to.
///
/// # Errors
/// When it holds one of other settings, or of none that are known.
fn is_finished(layout: &TuneFiles, settings: &Settings) -> Result<bool> {
    if !layout.result().is_file() {
        return Ok(false);
    }
    let Ok(text) = text::read(&layout.config()) else {
        // A tuning that was interrupted has left its log.
        if layout.log().is_file() || layout.checkpoint_config().is_file() {
            return Ok(false);
        }
        return Err(usage(format!(
            "{} is there, and no {} that tells how it was tuned: move it, or replace it with --overwrite",
            layout.result().display(),
            layout.config().display()
        )));
    };
    let there: Value = serde_json::from_str(&text).unwrap_or_default();
    let there = there["parameters"].as_object().cloned().unwrap_or_default();
    let differences = differences(&there, settings);
    if differences.is_empty() {
        return Ok(true);
    }
    // It stopped at fewer steps than are allowed now.
    if is_resumed(layout, settings) {
        return Ok(false);
    }
    Err(usage(format!(
        "{} was tuned with other settings ({}): copy the folder, or tune again with --overwrite",
        layout.result().display(),
        differences.join("; ")
    )))
}

/// Tunes, from where an interrupted run has stopped.
///
/// # Errors
/// When a signal asks to stop, or a file can not be written.
pub(super) fn execute(session: &Session, tuning: Tuning) -> Result<()> {
    let job = &tuning.job;
    let layout = TuneFiles::of(job);
    remove_leftovers(&job.output_dir);
    if job.output_dir == job.dir {
        // The target is chosen by its numbers.
        generate_base::restore_sheet(session, &job.dir, tuning.base.num_base_images())?;
    }
    if tuning.is_finished {
        session
            .reporter
            .note(&format!("{} is there already", layout.result().display()));
        return Ok(());
    }
    describe_target(job, &tuning.base, tuning.target, session);
    let started = Instant::now();
    let backbone = session.load(&tuning.model)?;
    create_folder(&job.output_dir)?;
    if job.overwrite && layout.config().is_file() {
        remove_checkpoint(&layout);
    }
    // Until the new result is there, the old one is none of these settings.
    let _ = fs::remove_file(layout.config());
    session.reporter.note("encoding prompts and target");
    let joined;
    let base = match &tuning.photo {
        None => &tuning.base,
        Some(photo) => {
            photo.describe(session);
            joined = photo.join(&backbone, &tuning.base, job.seed)?;
            &joined
        }
    };
    let crop = crop::resolve(session, job.crop, &backbone, base, tuning.target)?;
    let mut learner = method::learner(&tuning, &crop, &backbone, base)?;
    // Target and, but for textual inversion, prompts are encoded: from here on only the U-Net runs.
    if job.method != Method::TextualInversion {
        backbone.release_text_encoders();
    }
    backbone.release_vae();
    let untrained = learner.convergence().best;
    resume(session, &layout, &tuning.settings, learner.as_mut())?;
    learn(session, &tuning, learner.as_mut(), untrained)?;

    let summary = summary(session, &tuning, learner.as_ref());
    let mut facts = tuning.base.facts.clone();
    // Those of the base images may be others.
    facts.model.loras = backbone.facts.loras.clone();
    let origin = Origin {
        facts,
        target_image: tuning.photo.as_ref().map(|photo| photo.facts.clone()),
        base_crc32: tuning.settings[BASE_CRC32].as_str().map(str::to_owned),
    };
    write_bytes_atomically(&layout.result(), &learner.file(&origin)?)?;
    save_config(
        session,
        &tuning,
        &crop,
        &backbone,
        &summary,
        started.elapsed().as_secs_f64(),
    )?;
    if !can_continue(session, learner.as_ref()) {
        remove_checkpoint(&layout);
    }
    let kind = match job.method {
        Method::Oneactor => "actor",
        method => method.name(),
    };
    session.wrote(&layout.log(), "log", Value::Null);
    session.wrote(&layout.result(), kind, summary);
    session.wrote(&layout.config(), "config", Value::Null);
    Ok(())
}

/// Writes tune.json, or a baseline's own: the resolved settings, and what a reader may want to know.
fn save_config(
    session: &Session,
    tuning: &Tuning,
    crop: &Resolved,
    backbone: &Backbone,
    summary: &Value,
    seconds: f64,
) -> Result<()> {
    let config = json!({
        "schema": "oneactor.tune/v1",
        "version": env!("CARGO_PKG_VERSION"),
        "command": "tune",
        "parameters": tuning.settings,
        "target_choice": tuning.photo.is_none().then_some(tuning.job.target),
        "crop_box": crop.crop_box,
        "crop_shows": crop.crop_shows,
        "target_image": tuning.photo.as_ref().map(|photo| &photo.facts.name),
        "prompt": tuning.base.facts.prompt,
        "subject": match &tuning.base.facts.base_words[..] {
            [word] => json!(word),
            words => json!(words),
        },
        "model_fingerprint": backbone.facts.fingerprint,
        "device": format!("{:?}", backbone.device()),
        "result": summary,
        "seconds": seconds,
        "peak_gpu_memory": session.peak_memory(),
    });
    let text = format!("{config:#}\n");
    let layout = TuneFiles::of(&tuning.job);
    write_bytes_atomically(&layout.config(), text.as_bytes())
}
