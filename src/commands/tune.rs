//! `tune`: tunes an actor on base images, or runs the training of a baseline.

mod choice;
mod crop;
mod dry_run;
mod method;
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
use crate::config::shell::quoted;
use crate::config::{TuneJob, plan};
use crate::error::usage;
use crate::io::atomic::{remove_leftovers, write_bytes_atomically};
use crate::io::checksum::crc32_of;
use crate::io::writable::create_folder;
use crate::method::base_set::{BaseFacts, BaseSet};
use crate::method::origin::{BASE_CRC32, Origin, TARGET_IMAGE_CRC32};
use crate::records::tune_record::{TuneDetails, TuneResult};
use crate::records::{TuneRecord, subject};
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
pub(super) use dry_run::{learnt, rows_before};
use photo::TargetPhoto;
use pictures::warn_of_replaced;
use resume::{remove_checkpoint, resume};
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
    /// The photo of `--target-image`, if the target is no base image.
    photo: Option<TargetPhoto>,
    target: usize,
    /// K, the number of auxiliary images; 0 for a baseline, which has none.
    num_auxiliary: usize,
    model: Rc<LocatedModel>,
    /// The settings that determine the result.
    settings: Settings,
    /// Whether the result is finished.
    pub(super) is_finished: bool,
}

impl Tuning {
    /// The model that computes the losses.
    pub(super) fn model(&self) -> &Rc<LocatedModel> {
        &self.model
    }

    /// The output folder.
    pub(super) fn folder(&self) -> &Path {
        &self.job.output_dir
    }

    /// Prepares an unfinished tuning again, because another job of the run may have finished it. With `--overwrite` the
    /// tuning is returned as it is.
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
    let results = job.results();
    vec![results.log(), results.result(), results.record()]
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
        self.model.check_networks(std::iter::empty())?;
        self.model.check_model(&self.base.facts, "the base set")
    }

    fn dry_run(&self, session: &Session) -> Result<()> {
        self.forecast()?
            .tell(session, &self.files(), &self.job.output_dir)
    }

    fn loads(&self) -> Loads {
        let base = self.job.base().set();
        let photo = self.job.target_image.iter().cloned();
        Loads {
            shared: vec![self.model.key()],
            reads: photo.chain([base]).collect(),
        }
    }
}

/// Checks a job against its base images, their model and its output folder.
///
/// # Errors
/// When there are no base images, or the folder holds an actor with other settings.
pub(super) fn prepare(session: &Session, job: TuneJob) -> Result<Tuning> {
    let base_folder = job.base();
    if !base_folder.has_set() {
        return Err(usage(format!(
            "there is no base set {}: run `oneactor generate-base … -o {}` first",
            base_folder.set().display(),
            quoted(&job.dir.display().to_string())
        )));
    }
    if base_folder.is_unfinished() {
        let dir = job.dir.display();
        return Err(usage(format!(
            "the base images in {dir} are not complete: generate-base is running or was interrupted; run the same \
             `oneactor generate-base … -o {}` again",
            quoted(&dir.to_string())
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
        settings.insert(TARGET_IMAGE_CRC32.to_owned(), json!(photo.facts.crc32));
    }
    let is_finished = !job.overwrite && job.results().is_finished(&settings)?;
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

/// The settings that determine the result of any method. The base set is identified by its CRC-32.
fn settings(
    job: &TuneJob,
    base: &BaseFacts,
    target: usize,
    model: &LocatedModel,
) -> Result<Settings> {
    let tile = model.tiles_of(base.width, base.height);
    let value = json!({
        BASE_CRC32: crc32_of(&job.base().set())?,
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

/// Tunes, starting where an interrupted run has stopped.
///
/// # Errors
/// When a signal asks the program to stop, or a file cannot be written.
pub(super) fn execute(session: &Session, tuning: Tuning) -> Result<()> {
    let job = &tuning.job;
    let results = job.results();
    remove_leftovers(&job.output_dir);
    if job.output_dir == job.dir {
        // The user chooses the target by the numbers on this sheet.
        generate_base::restore_sheet(session, &job.dir, tuning.base.num_base_images())?;
    }
    if tuning.is_finished {
        session
            .reporter
            .note(&format!("{} is there already", results.result().display()));
        return Ok(());
    }
    describe_target(job, &tuning.base, tuning.target, session);
    let started = Instant::now();
    let backbone = session.load(&tuning.model)?;
    create_folder(&job.output_dir)?;
    if job.overwrite && results.record().is_file() {
        remove_checkpoint(results);
    }
    // Without its record, the old result does not count as finished if this run is interrupted.
    let _ = fs::remove_file(results.record());
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
    // The target is encoded, and except with textual inversion the prompts too: from here on only the U-Net runs.
    if job.method != Method::TextualInversion {
        backbone.release_text_encoders();
    }
    backbone.release_vae();
    let untrained = learner.convergence().best;
    resume(session, results, &tuning.settings, learner.as_mut())?;
    learn(session, &tuning, learner.as_mut(), untrained)?;

    let summary = summary(session, &tuning, learner.as_ref());
    let mut facts = tuning.base.facts.clone();
    // The base images may have been drawn with other LoRAs.
    facts.model.loras = backbone.facts.loras.clone();
    let origin = Origin {
        facts,
        target_image: tuning.photo.as_ref().map(|photo| photo.facts.clone()),
        base_crc32: tuning.settings[BASE_CRC32].as_str().map(str::to_owned),
    };
    write_bytes_atomically(&results.result(), &learner.file(&origin)?)?;
    let seconds = started.elapsed().as_secs_f64();
    save_record(session, &tuning, crop, &backbone, summary.clone(), seconds)?;
    if !can_continue(session, learner.as_ref()) {
        remove_checkpoint(results);
    }
    let kind = match job.method {
        Method::Oneactor => "actor",
        method => method.name(),
    };
    session.wrote(&results.log(), "log", Value::Null);
    session.wrote(&results.result(), kind, json!(summary));
    session.wrote(&results.record(), "config", Value::Null);
    Ok(())
}

/// Writes the record of the tuning: the resolved settings, and facts about the run.
fn save_record(
    session: &Session,
    tuning: &Tuning,
    crop: Resolved,
    backbone: &Backbone,
    result: TuneResult,
    seconds: f64,
) -> Result<()> {
    let run = session.run_facts(backbone, seconds);
    let photo = tuning.photo.as_ref();
    let details = TuneDetails {
        target_choice: photo.is_none().then_some(tuning.job.target),
        crop_box: crop.crop_box,
        crop_shows: crop.crop_shows,
        target_image: photo.map(|photo| photo.facts.name.clone()),
        prompt: Some(tuning.base.facts.prompt.clone()),
        subject: subject::to_value(&tuning.base.facts.base_words),
        result,
    };
    let record = TuneRecord::new(tuning.settings.clone(), run, details);
    record.write(&tuning.job.results().record())
}
