//! A checked job of `tune`.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::{ModelJob, check, effect};
use crate::cli::sample::Preset;
use crate::cli::{Crop, Method, Setting, Target, TuneFlags};
use crate::error::usage;
use crate::method::templates::SubjectKind;
use crate::records::{ActorFolder, BaseFolder};

/// A checked job of `tune`. The target and the number of auxiliary samples are checked against the base set
/// when it is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TuneJob {
    /// Folder of the base images.
    pub dir: PathBuf,
    /// Folder of the results: the folder of the base images, except in an ablation.
    #[serde(skip)]
    pub output_dir: PathBuf,
    /// The method that is tuned.
    pub method: Method,
    /// Which base image is the target.
    pub target: Target,
    /// A photo that is the target in place of a base image.
    pub target_image: Option<PathBuf>,
    /// The part of the target that is also learnt enlarged.
    pub crop: Crop,
    /// The kind of the subject.
    pub kind: SubjectKind,
    /// Maximum number of steps.
    pub max_steps: usize,
    /// Auxiliary samples per step, K; `None` means the paper's 3, or all if there are fewer.
    pub num_auxiliary: Option<usize>,
    /// Weight of the auxiliary loss.
    pub lambda_1: f64,
    /// Weight of the average loss.
    pub lambda_2: f64,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// The projector's last layer.
    pub preset: Preset,
    /// Seed of all random draws while tuning.
    pub seed: i64,
    /// Rows that pass through the U-Net together; `None` means all.
    pub micro_batch: Option<usize>,
    /// Whether to tune again if the folder already has an actor.
    #[serde(skip)]
    pub overwrite: bool,
    /// The model that drew the base images.
    #[serde(flatten)]
    pub model: ModelJob,
}

impl TuneJob {
    /// The files that the job writes.
    pub fn results(&self) -> ActorFolder<'_> {
        ActorFolder::new(&self.output_dir, self.method)
    }

    /// The base images that the job reads.
    pub fn base(&self) -> BaseFolder<'_> {
        BaseFolder(&self.dir)
    }

    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// Names the flag, the value found and the valid range.
    pub fn check(flags: &TuneFlags) -> Result<Self> {
        let dir = check::required("DIR", "the folder written by generate-base", &flags.dir)?;
        if let (Some(target), Some(image)) = (flags.target, &flags.target_image) {
            return Err(usage(format!(
                "found --target {target} and --target-image {}, expected only one of them: the target is \
                either a base image or a photo",
                image.display()
            )));
        }
        let kind = flags.kind.unwrap_or(SubjectKind::Character);
        let method = flags.method.unwrap_or_default();
        if method != Method::Oneactor {
            check_baseline(method, flags)?;
        }
        effect::check(flags)?;
        let (max_steps, learning_rate) = defaults(method);
        Ok(Self {
            method,
            output_dir: dir.clone(),
            dir,
            target: target(flags.target.unwrap_or(Target::Auto))?,
            target_image: flags.target_image.clone(),
            crop: crop(flags.crop.unwrap_or(Crop::None), kind)?,
            kind,
            max_steps: check::declared_count(
                TuneFlags::max_steps(),
                Some(flags.max_steps.unwrap_or(max_steps)),
            )?,
            num_auxiliary: check::count_if_given(TuneFlags::num_auxiliary(), flags.num_auxiliary)?,
            lambda_1: weight(
                (TuneFlags::lambda_1(), flags.lambda_1),
                (TuneFlags::without_aux(), flags.without_aux),
            )?,
            lambda_2: weight(
                (TuneFlags::lambda_2(), flags.lambda_2),
                (TuneFlags::without_aver(), flags.without_aver),
            )?,
            learning_rate: check::declared_number(
                TuneFlags::learning_rate(),
                Some(flags.learning_rate.unwrap_or(learning_rate)),
            )?,
            weight_decay: check::declared_number(TuneFlags::weight_decay(), flags.weight_decay)?,
            preset: flags.preset.unwrap_or_default(),
            seed: check::seed(flags.seed.unwrap_or(0), 1)?,
            micro_batch: micro_batch(flags)?,
            overwrite: flags.overwrite.unwrap_or(false),
            model: ModelJob::check(&flags.model)?,
        })
    }
}

/// The default maximum of steps and learning rate of each method. Sources: the paper; textual inversion (arXiv
/// 2208.01618, Sec. 4, its base learning rate); DreamBooth (arXiv 2208.12242, Sec. 4) for the steps and
/// diffusers' `train_dreambooth_lora_sdxl.py` for the rate, because LoRA needs a larger learning rate than
/// whole weights.
fn defaults(method: Method) -> (i64, f64) {
    match method {
        Method::TextualInversion => (5000, 5e-3),
        _ => (1000, 1e-4),
    }
}

/// Refuses what a baseline cannot do.
fn check_baseline(method: Method, flags: &TuneFlags) -> Result<()> {
    let name = method.name();
    if !method.is_tuned() {
        return Err(usage(format!(
            "--method {name} needs no tuning: draw with `oneactor sample DIR --method {name}`, where DIR is \
            the folder of the base images"
        )));
    }
    if method == Method::TextualInversion && flags.model.cpu_offload == Some(true) {
        return Err(usage(format!(
            "--cpu-offload cannot be used with --method {name}, because every step needs the text encoders and \
            the U-Net: leave out one of them"
        )));
    }
    Ok(())
}

/// Checks the crop. A box is checked against the size of the base images when the size is known.
fn crop(crop: Crop, kind: SubjectKind) -> Result<Crop> {
    match (crop, kind) {
        (Crop::Face | Crop::Subject, SubjectKind::Style) => Err(usage(format!(
            "--crop {crop} cannot be used with --kind style, because a style fills the whole picture; expected \
            none or a box in pixels, left,top,width,height"
        ))),
        _ => Ok(crop),
    }
}

/// The rows that pass through the U-Net together, from either of the two flags.
fn micro_batch(flags: &TuneFlags) -> Result<Option<usize>> {
    match (flags.micro_batch, flags.batch_size) {
        (Some(rows), Some(others)) => Err(usage(format!(
            "found --micro-batch {rows} and --batch-size {others}, expected only one of them: in tune they are \
            two names of one setting"
        ))),
        (rows @ Some(_), None) => check::count_if_given(TuneFlags::micro_batch(), rows),
        (None, rows) => check::count_if_given(TuneFlags::batch_size(), rows),
    }
}

/// The weight of a loss, from the flag of the weight or from the flag that leaves out the loss.
fn weight(
    (weight, value): (Setting, Option<f64>),
    (without, is_out): (Setting, Option<bool>),
) -> Result<f64> {
    let (flag, without) = (weight.flag(), without.flag());
    match (value, is_out) {
        (Some(value), Some(true)) => Err(usage(format!(
            "found {flag} {value} and {without}, expected only one of them: {without} is the same as {flag} 0"
        ))),
        (_, Some(true)) => Ok(0.0),
        _ => check::declared_number(weight, value),
    }
}

/// Checks the target's number. Whether there is such a base image is checked when the base set is read.
fn target(target: Target) -> Result<Target> {
    if let Target::Index(index) = target {
        check::whole("--target", index, 0..=999)?;
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_paper() -> Result<()> {
        let job = TuneJob::check(&TuneFlags {
            dir: Some("runs/hobbit".into()),
            ..TuneFlags::default()
        })?;
        assert_eq!((job.lambda_1, job.lambda_2), (0.5, 0.2));
        assert_eq!(job.learning_rate, 1e-4);
        assert_eq!(job.target, Target::Auto);
        Ok(())
    }

    #[test]
    fn a_loss_that_is_left_out_has_no_weight_and_takes_none() -> Result<()> {
        let flags = TuneFlags {
            dir: Some("runs/hobbit".into()),
            without_aux: Some(true),
            ..TuneFlags::default()
        };
        let job = TuneJob::check(&flags)?;
        assert_eq!((job.lambda_1, job.lambda_2), (0.0, 0.2));
        let flags = TuneFlags {
            lambda_1: Some(0.3),
            ..flags
        };
        let error = TuneJob::check(&flags).expect_err("both are given");
        assert!(
            error
                .to_string()
                .contains("found --lambda-1 0.3 and --without-aux")
        );
        let flags = TuneFlags {
            without_aux: Some(false),
            without_aver: Some(true),
            ..flags
        };
        let job = TuneJob::check(&flags)?;
        assert_eq!((job.lambda_1, job.lambda_2), (0.3, 0.0));
        Ok(())
    }

    #[test]
    fn rows_at_once_go_by_two_names_of_which_one_is_given() -> Result<()> {
        let flags = |micro_batch, batch_size| TuneFlags {
            dir: Some("runs/hobbit".into()),
            micro_batch,
            batch_size,
            ..TuneFlags::default()
        };
        assert_eq!(TuneJob::check(&flags(Some(2), None))?.micro_batch, Some(2));
        assert_eq!(TuneJob::check(&flags(None, Some(3)))?.micro_batch, Some(3));
        let error = TuneJob::check(&flags(Some(2), Some(3))).expect_err("both are given");
        assert!(
            error
                .to_string()
                .contains("--micro-batch 2 and --batch-size 3")
        );
        let error = TuneJob::check(&flags(Some(0), None)).expect_err("none at once");
        assert!(error.to_string().starts_with("--micro-batch: found 0"));
        Ok(())
    }

    #[test]
    fn a_style_has_no_place_to_be_cropped_to() -> Result<()> {
        let flags = |crop| TuneFlags {
            dir: Some("runs/ink".into()),
            kind: Some(SubjectKind::Style),
            crop: Some(crop),
            ..TuneFlags::default()
        };
        for crop in [Crop::Face, Crop::Subject] {
            let error = TuneJob::check(&flags(crop)).expect_err("there is no such place");
            assert!(
                error
                    .to_string()
                    .contains(&format!("--crop {crop} cannot be used with --kind style"))
            );
        }
        let named = TuneJob::check(&flags(Crop::Box([0, 0, 32, 32])))?;
        assert_eq!(named.crop, Crop::Box([0, 0, 32, 32]));
        Ok(())
    }

    #[test]
    fn a_baseline_has_defaults_of_its_own_and_refuses_what_it_has_not() -> Result<()> {
        let flags = |method| TuneFlags {
            dir: Some("runs/hobbit".into()),
            method: Some(method),
            ..TuneFlags::default()
        };
        let job = TuneJob::check(&flags(Method::TextualInversion))?;
        assert_eq!((job.max_steps, job.learning_rate), (5000, 5e-3));
        let job = TuneJob::check(&flags(Method::DreamboothLora))?;
        assert_eq!((job.max_steps, job.learning_rate), (1000, 1e-4));
        let refused = |flags: &TuneFlags| {
            let error = TuneJob::check(flags).expect_err("it is refused");
            error.to_string()
        };
        for (flag, wrong) in [
            (
                "--lambda-1",
                TuneFlags {
                    lambda_1: Some(0.5),
                    ..flags(Method::DreamboothLora)
                },
            ),
            (
                "--without-aver",
                TuneFlags {
                    without_aver: Some(true),
                    ..flags(Method::TextualInversion)
                },
            ),
            (
                "--num-auxiliary",
                TuneFlags {
                    num_auxiliary: Some(3),
                    ..flags(Method::TextualInversion)
                },
            ),
            (
                "--crop",
                TuneFlags {
                    crop: Some(Crop::Face),
                    ..flags(Method::DreamboothLora)
                },
            ),
            (
                "--preset",
                TuneFlags {
                    preset: Some(Preset::Paper),
                    ..flags(Method::DreamboothLora)
                },
            ),
        ] {
            let message = refused(&wrong);
            assert!(
                message.starts_with(&format!("{flag} is only for --method oneactor")),
                "{message}"
            );
        }
        assert!(refused(&flags(Method::IpAdapter)).contains("needs no tuning"));
        Ok(())
    }

    #[test]
    fn a_folder_is_needed_and_ranges_are_kept() {
        let error = TuneJob::check(&TuneFlags::default()).expect_err("no folder");
        assert!(error.to_string().contains("DIR is missing"));
        let flags = TuneFlags {
            dir: Some("runs/hobbit".into()),
            target: Some(Target::Index(-1)),
            ..TuneFlags::default()
        };
        let error = TuneJob::check(&flags).expect_err("the target is negative");
        assert!(error.to_string().contains("--target: found -1"));
    }
}
