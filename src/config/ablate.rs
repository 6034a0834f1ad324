//! A checked job of `ablate`: the tunings and pictures of Fig. 11.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::batch::Settings;
use super::shell::quoted;
use super::{SampleJob, TuneJob, check, layers};
use crate::cli::{AblateFlags, Declared, Method, ModelFlags, SampleFlags, Setting};
use crate::error::usage;
use crate::io::text;
use crate::records::{ActorFolder, TuneRecord};

/// The folder of the tunings in the actor's folder; also the default folder of the pictures.
pub const ABLATION: &str = "ablation";

/// The tunings without some losses: name, heading on the grid, and the weights that are set to 0.
const VARIANTS: [(&str, &str, &[&str]); 2] = [
    ("without-aux-aver", "-aux -aver", &["lambda_1", "lambda_2"]),
    ("without-aver", "-aver", &["lambda_2"]),
];

/// A checked job of `ablate`.
#[derive(Clone, Debug, PartialEq)]
pub struct AblateJob {
    /// Folder of the pictures.
    pub output_dir: PathBuf,
    /// The job that tuned the existing actor.
    pub full: TuneJob,
    /// The columns from left to right: the plain model, without two losses, without one loss, the full method.
    pub columns: Vec<Variant>,
}

/// A column of the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The heading above the column.
    pub heading: String,
    /// The job that tunes the column's actor; `None` if the actor exists or the column needs no actor.
    pub tuning: Option<TuneJob>,
    /// The job that draws the column. While the column's actor is not tuned, the job names the folder's own actor.
    pub drawing: SampleJob,
}

impl AblateJob {
    /// Checks the flags and reads the record of the actor's tuning.
    ///
    /// # Errors
    /// Names the flag or file, the value found and the value expected.
    pub fn check(flags: &AblateFlags) -> Result<Self> {
        let dir = check::required("DIR", "the folder of an actor made by tune", &flags.dir)?;
        refuse_other_guidance(flags)?;
        let recorded = recorded_tuning(&dir, flags)?;
        let tune = |without: &[&str], folder: Option<&str>| -> Result<TuneJob> {
            let mut settings = recorded.clone();
            settings.extend(without.iter().map(|key| ((*key).to_owned(), json!(0.0))));
            let mut job = TuneJob::check(&layers::read(settings)?)?;
            if let Some(folder) = folder {
                job.output_dir = dir.join(ABLATION).join(folder);
                job.overwrite = flags.drawing.overwrite.unwrap_or(false);
            }
            Ok(job)
        };
        let full = tune(&[], None)?;
        for (key, value) in [("lambda_1", full.lambda_1), ("lambda_2", full.lambda_2)] {
            if value == 0.0 {
                return Err(usage(format!(
                    "{}: the actor was tuned with {key} 0, expected an actor tuned with all losses, because an \
                    ablation removes them one after the other",
                    full.results().record().display()
                )));
            }
        }
        let draw = |name: &str, is_plain: bool| -> Result<SampleJob> {
            // The plain column ignores the settings of the actor's guidance.
            let top = [("actors", json!([dir])), ("no_actor", json!(is_plain))];
            let top = Settings::from_iter(top.map(|(key, value)| (key.to_owned(), value)));
            let mut settings = layers::layered(&[&top, &drawing_settings(flags, &recorded)?]);
            settings
                .entry("output_dir")
                .or_insert_with(|| json!(dir.join(ABLATION)));
            let mut job = SampleJob::check(&layers::read(settings)?)?;
            job.file_prefix = format!("{name}_");
            Ok(job)
        };
        let column = |name: &str, heading: &str, tuning| -> Result<Variant> {
            Ok(Variant {
                heading: heading.to_owned(),
                drawing: draw(name, name == "plain")?,
                tuning,
            })
        };
        let mut columns = vec![column("plain", "plain", None)?];
        for (name, heading, without) in VARIANTS {
            columns.push(column(name, heading, Some(tune(without, Some(name))?))?);
        }
        columns.push(column("full", "full", None)?);
        Ok(Self {
            output_dir: columns[0].drawing.output_dir.clone(),
            full,
            columns,
        })
    }
}

impl Variant {
    /// The job that draws the column after its actor is tuned.
    pub fn tuned(&self) -> SampleJob {
        let mut job = self.drawing.clone();
        if let Some(tuning) = &self.tuning {
            job.actors = vec![tuning.results().result()];
        }
        job
    }
}

/// Refuses guidance flags of `sample` that replace the actor, because an ablation compares actors.
fn refuse_other_guidance(flags: &AblateFlags) -> Result<()> {
    let given = layers::settings(flags)?;
    let is_given = |setting: &&Setting| given.get(setting.key).is_some_and(|value| *value != false);
    let settings = AblateFlags::settings();
    let mut others = settings.iter().filter(|setting| setting.replaces_actor);
    match others.find(is_given) {
        None => Ok(()),
        Some(setting) => Err(usage(format!(
            "{} cannot be used with ablate, which draws with the plain model and with three actors: leave it out",
            setting.flag()
        ))),
    }
}

/// The settings of `sample` among the flags, and the recorded settings of the model that the actor was tuned
/// with. Settings that only say where the model runs are not taken from the record.
fn drawing_settings(flags: &AblateFlags, recorded: &Settings) -> Result<Settings> {
    let of_sample = SampleFlags::settings();
    let mut settings = layers::settings(flags)?;
    settings.retain(|key, _| of_sample.iter().any(|setting| setting.key == key));
    let mut of_model = ModelFlags::settings();
    of_model.retain(Setting::is_recorded);
    let model = recorded
        .iter()
        .filter(|(key, _)| of_model.iter().any(|setting| setting.key == *key));
    let model: Settings = model
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Ok(layers::layered(&[&settings, &model]))
}

/// The settings of `tune` that the actor in `dir` was tuned with, with the device settings of this run.
fn recorded_tuning(dir: &Path, flags: &AblateFlags) -> Result<Settings> {
    let path = ActorFolder::new(dir, Method::Oneactor).record();
    let shown = path.display();
    if !path.is_file() {
        return Err(usage(format!(
            "{shown} does not exist, expected a tuned actor in the folder: run `oneactor tune {}` first",
            quoted(&dir.display().to_string())
        )));
    }
    let text = text::read(&path).with_context(|| format!("reading {shown}"))?;
    let record = TuneRecord::parse(&text, &shown.to_string())?;
    let is_photo = record.is_of_photo();
    let mut settings = record.parameters;
    // Checksums are facts of the record, not flags of `tune`.
    settings.retain(|key, _| !key.ends_with("_crc32"));
    match (&flags.target_image, is_photo) {
        (Some(image), true) => {
            settings.remove("target");
            settings.insert("target_image".to_owned(), json!(image));
        }
        (None, true) => {
            return Err(usage(format!(
                "{shown}: the actor was made from the photo {}, which the variants need too: give it with \
                --target-image",
                json!(record.details.target_image)
            )));
        }
        (Some(_), false) => {
            return Err(usage(format!(
                "--target-image: the actor was made from a base image ({shown}), expected no photo: leave out \
                --target-image"
            )));
        }
        (None, false) => {}
    }
    settings.insert("dir".to_owned(), json!(dir));
    settings.insert("batch_size".to_owned(), json!(flags.tune_batch_size));
    settings.insert("device".to_owned(), json!(flags.model.device));
    settings.insert("attention".to_owned(), json!(flags.model.attention));
    settings.insert("cpu_offload".to_owned(), json!(flags.model.cpu_offload));
    settings.insert("offline".to_owned(), json!(flags.model.offline));
    Ok(settings)
}
