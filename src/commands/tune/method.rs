//! The methods that can be tuned: the settings that each records, and the learner that takes its steps.

use anyhow::Result;
use serde_json::json;

use super::Tuning;
use super::crop::Resolved;
use crate::backbone::Backbone;
use crate::baselines::Lesson;
use crate::baselines::dreambooth_lora::{self, DreamBooth};
use crate::baselines::textual_inversion::{self, Inversion};
use crate::cli::Method;
use crate::cli::sample::Preset;
use crate::config::TuneJob;
use crate::config::batch::Settings;
use crate::error::usage;
use crate::method::base_set::BaseSet;
use crate::method::learner::{Course, Learner};
use crate::method::loss::LossWeights;
use crate::method::projector::Head;
use crate::method::tune::{TuneOptions, Tuner};
use crate::wording::counted;

/// Refuses base images on which a baseline cannot be tuned.
///
/// # Errors
/// When the base images show several subjects, or are too few.
pub(super) fn check(job: &TuneJob, base: &BaseSet) -> Result<()> {
    let (name, dir) = (job.method.name(), job.dir.display());
    let words = &base.facts.base_words;
    if words.len() > 1 {
        return Err(usage(format!(
            "--method {name}: {dir} shows {} subjects ({}), expected one base word: draw base images of one subject",
            words.len(),
            words.join(", ")
        )));
    }
    let images = base.num_base_images();
    if job.method == Method::DreamboothLora && job.target_image.is_none() && images < 2 {
        return Err(usage(format!(
            "--method {name}: {dir} holds {}, expected at least 2, because all but the target are the prior",
            counted(images, "base image", "base images")
        )));
    }
    Ok(())
}

/// The settings that only this method has.
pub(super) fn settings(job: &TuneJob, num_auxiliary: usize) -> Settings {
    let value = match job.method {
        Method::Oneactor => json!({
            "num_auxiliary": num_auxiliary,
            "lambda_1": job.lambda_1,
            "lambda_2": job.lambda_2,
            "preset": job.preset,
        }),
        Method::DreamboothLora => json!({
            "method": job.method,
            "rank": dreambooth_lora::RANK,
            "identifier": dreambooth_lora::IDENTIFIER,
        }),
        _ => json!({"method": job.method}),
    };
    value.as_object().cloned().unwrap_or_default()
}

/// Rows of a step, and how many of them pass the U-Net at once.
pub(super) fn rows(job: &TuneJob, num_auxiliary: usize) -> (usize, usize) {
    let rows = match job.method {
        Method::TextualInversion => textual_inversion::ROWS as usize,
        Method::DreamboothLora => DREAMBOOTH_ROWS,
        _ => num_auxiliary + 2,
    };
    (rows, job.micro_batch.unwrap_or(rows))
}

/// Rows of a DreamBooth step: an image of the subject and an image of the prior.
const DREAMBOOTH_ROWS: usize = 2;

/// The projector's last layer.
pub(super) fn head(preset: Preset) -> Head {
    match preset {
        Preset::Paper => Head::AdaIn,
        Preset::Release => Head::LayerNorm,
    }
}

/// The learner of the job's method before its first step.
///
/// # Errors
/// When the base images do not fit the model.
pub(super) fn learner<'a>(
    tuning: &Tuning,
    crop: &Resolved,
    backbone: &'a Backbone,
    base: &BaseSet,
) -> Result<Box<dyn Learner + 'a>> {
    let Tuning {
        job, num_auxiliary, ..
    } = tuning;
    let course = |rows: usize| Course {
        max_steps: job.max_steps,
        learning_rate: job.learning_rate,
        weight_decay: job.weight_decay,
        seed: job.seed,
        micro_batch: job.micro_batch.unwrap_or(rows),
    };
    let lesson = |rows: usize| Lesson {
        target: tuning.target,
        kind: job.kind,
        course: course(rows),
    };
    Ok(match job.method {
        Method::TextualInversion => {
            let lesson = lesson(textual_inversion::ROWS as usize);
            Box::new(Inversion::new(backbone, base, &lesson)?)
        }
        Method::DreamboothLora => {
            Box::new(DreamBooth::new(backbone, base, &lesson(DREAMBOOTH_ROWS))?)
        }
        _ => {
            let options = TuneOptions {
                target: tuning.target,
                crop: crop.part,
                kind: job.kind,
                head: head(job.preset),
                num_auxiliary: *num_auxiliary,
                loss_weights: LossWeights {
                    lambda_1: job.lambda_1,
                    lambda_2: job.lambda_2,
                },
                course: course(num_auxiliary + 2),
            };
            Box::new(Tuner::new(backbone, base, options)?)
        }
    })
}
