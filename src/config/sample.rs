//! A checked job of `sample`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::redraw::{check_recorded, recorded_for};
use super::shell::quoted;
use super::{ControlJob, DrawingJob, ImagePromptJob, ModelJob, check, effect, layers, prompts};
use crate::backbone::shortcuts::Shortcuts;
use crate::cli::sample::{GuidanceFlags, Preset, ShortcutFlags, SubjectAs, SubjectMasks};
use crate::cli::{AxisFlags, Method, SampleFlags, Target};
use crate::error::usage;
use crate::method::guidance::GuidanceSettings;
use crate::records::{ActorFolder, PictureRecord};
use crate::wording::no_file;

/// A checked job of `sample`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleJob {
    /// The method that keeps the subject the same.
    pub method: Method,
    /// The files of the actors, or the single file of a baseline, see [`ActorFolder::result`]. Empty only if
    /// the plain model draws.
    pub actors: Vec<PathBuf>,
    /// The base image that a baseline uses; `None` means the target recorded in the folder.
    pub target: Option<Target>,
    /// The prompts, in which `[b]` is not yet replaced.
    pub prompts: Vec<String>,
    /// What `[b]` stands for.
    pub subject_as: SubjectAs,
    /// The base words of a picture that is drawn again. Its long prompt was split so that each word stayed in
    /// one chunk.
    pub recorded_subjects: Vec<String>,
    /// The picture that is drawn again, and the version of the program that drew the original.
    pub redrawn: Option<(PathBuf, String)>,
    /// Folder of the results.
    pub output_dir: PathBuf,
    /// The start of the names of the pictures; empty except in a sweep and an ablation.
    #[serde(skip)]
    pub file_prefix: String,
    /// Number of images per prompt.
    pub num_images: usize,
    /// Whether to write final latents.
    pub save_latents: bool,
    /// Whether each subject's offset is confined to its mask.
    pub subject_masks: SubjectMasks,
    /// Whether to write the masks of several subjects.
    pub save_masks: bool,
    /// Whether to draw the same pictures with the plain model too.
    pub compare: bool,
    /// How the actor guides.
    #[serde(flatten)]
    pub guidance: GuidanceJob,
    /// How the images are drawn.
    #[serde(flatten)]
    pub drawing: DrawingJob,
    /// Approximations that save computation.
    #[serde(flatten)]
    pub shortcuts: Shortcuts,
    /// Control images of the drawing.
    pub control: Option<ControlJob>,
    /// The image prompt, if the method is IP-Adapter.
    #[serde(flatten)]
    pub image_prompt: Option<ImagePromptJob>,
    /// Which model draws.
    #[serde(flatten)]
    pub model: ModelJob,
}

/// How the actor guides (Eqs. 15 to 19).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuidanceJob {
    /// Whether the plain model draws; then only `semantic_interpolation` of the fields below has an effect.
    pub no_actor: bool,
    /// The scales, and the steps that are guided.
    #[serde(flatten)]
    pub settings: GuidanceSettings,
    /// Offsets in place of the projector's.
    pub offsets: Option<PathBuf>,
    /// Without an actor: g of Fig. 3; `None` leaves the prompt as it is.
    pub semantic_interpolation: Option<f64>,
}

impl SampleJob {
    /// Checks the flags and fills in the defaults; reads the prompts file and, for `--from`, the
    /// settings of the picture.
    ///
    /// # Errors
    /// Names the flag or file, the value found and the value expected.
    pub fn check(flags: &SampleFlags) -> Result<Self> {
        let Some(picture) = &flags.from else {
            return Self::check_flags(flags);
        };
        let recorded = PictureRecord::read(picture)?;
        let place = || format!("--from {}", picture.display());
        check_recorded(&recorded).with_context(place)?;
        let kept = recorded_for(flags, &recorded);
        let layered = layers::layered(&[&layers::settings(flags)?, &kept]);
        Ok(Self {
            recorded_subjects: recorded.subjects(),
            redrawn: Some((picture.clone(), recorded.version)),
            ..Self::check_flags(&layers::read(layered)?).with_context(place)?
        })
    }

    fn check_flags(flags: &SampleFlags) -> Result<Self> {
        let no_actor = flags.guidance.no_actor.unwrap_or(false);
        let given = flags.actors.as_deref().unwrap_or_default();
        let method = flags.method.unwrap_or_default();
        if method != Method::Oneactor {
            check_baseline(method, given)?;
        }
        if method == Method::DreamboothLora && flags.compare == Some(true) {
            return Err(usage(
                "--compare cannot be used with --method dreambooth-lora, which changes the model: draw the \
                plain pictures in a separate run, with --no-actor and without --method",
            ));
        }
        Self::check_with(flags, || actors(given, method, no_actor))
    }

    /// The same, with actors that may not exist yet.
    pub(super) fn check_with(
        flags: &SampleFlags,
        actors: impl FnOnce() -> Result<Vec<PathBuf>>,
    ) -> Result<Self> {
        effect::check(flags)?;
        let no_actor = flags.guidance.no_actor.unwrap_or(false);
        let compare = flags.compare.unwrap_or(false);
        if compare && no_actor {
            return Err(usage(
                "--compare draws with and without the actor, so it cannot be used with --no-actor: leave out \
                one of them",
            ));
        }
        let actors = actors()?;
        let subject_masks = flags.subject_masks.unwrap_or_default();
        let has_masks = match subject_masks {
            SubjectMasks::Auto => actors.len() > 1 && !no_actor,
            SubjectMasks::On => true,
            SubjectMasks::Off => false,
        };
        let save_masks = flags.save_masks.unwrap_or(false);
        if save_masks && !has_masks {
            return Err(usage(
                "--save-masks: a single actor acts on the whole picture and has no mask. Give more actors, add \
                --subject-masks on, or leave out --save-masks",
            ));
        }
        if flags.guidance.offsets.is_some() && actors.len() > 1 {
            return Err(usage(format!(
                "--offsets replaces the projector of one actor, but there are {} actors: give only one",
                actors.len()
            )));
        }
        let output_dir = output_dir(flags.output_dir.as_deref(), &actors)?;
        check::folder("--output-dir", &output_dir)?;
        let prompts = prompts_of(flags)?;
        let num_images = check::declared_count(SampleFlags::num_images(), flags.num_images)?;
        let images = num_images * prompts.len();
        let preset = flags.guidance.preset.unwrap_or_default();
        let mut drawing = flags.drawing.clone();
        if preset == Preset::Release {
            drawing
                .scheduler
                .get_or_insert_with(|| "dpm++2m".to_owned());
        }
        let drawing = DrawingJob::check(&drawing, flags.axes.guidance_scale, images)?;
        let control = ControlJob::check(&flags.control)?;
        let method = flags.method.unwrap_or_default();
        let shortcuts = shortcuts(&flags.shortcuts, drawing.steps)?;
        if shortcuts != Shortcuts::default() && (has_masks || control.is_some()) {
            let flag = match shortcuts.guidance_interval {
                Some(_) => "--guidance-interval",
                None => "--feature-reuse",
            };
            let whose = match (has_masks, subject_masks) {
                (true, SubjectMasks::On) => "--subject-masks on, because masks",
                (true, _) => "several actors, because their masks",
                (false, _) => "a ControlNet, because its residuals",
            };
            return Err(usage(format!(
                "{flag} cannot be used with {whose} need every row of every pass: leave out {flag}"
            )));
        }
        Ok(Self {
            output_dir,
            file_prefix: String::new(),
            image_prompt: ImagePromptJob::check(&flags.image_prompt, method)?,
            method,
            actors,
            target: flags.target,
            prompts,
            subject_as: flags.subject_as.unwrap_or_default(),
            recorded_subjects: Vec::new(),
            redrawn: None,
            num_images,
            save_latents: flags.save_latents.unwrap_or(false),
            subject_masks,
            save_masks,
            compare,
            guidance: GuidanceJob::check(&flags.axes, &flags.guidance, &drawing)?,
            drawing,
            shortcuts,
            control,
            model: ModelJob::check(&flags.model)?,
        })
    }
}

impl GuidanceJob {
    fn check(axes: &AxisFlags, flags: &GuidanceFlags, drawing: &DrawingJob) -> Result<Self> {
        let offsets = flags.offsets.clone();
        if let Some(path) = offsets.as_deref().filter(|path| !path.is_file()) {
            return Err(usage(format!(
                "--offsets: {}",
                no_file(path, "a safetensors file with offsets")
            )));
        }
        let interpolation =
            |g| check::declared_number(AxisFlags::semantic_interpolation(), Some(g));
        Ok(Self {
            no_actor: flags.no_actor.unwrap_or(false),
            settings: guidance_settings(axes, flags, drawing)?,
            offsets,
            semantic_interpolation: axes.semantic_interpolation.map(interpolation).transpose()?,
        })
    }
}

/// The method's settings. Values that the flags do not set are those of the paper or of the preset.
fn guidance_settings(
    axes: &AxisFlags,
    flags: &GuidanceFlags,
    drawing: &DrawingJob,
) -> Result<GuidanceSettings> {
    let number = check::declared_number;
    let of_preset = match flags.preset.unwrap_or_default() {
        Preset::Paper => None,
        Preset::Release => Some(0.0),
    };
    let eta_2 = axes.eta_2.or(of_preset);
    let eta_2 = number(AxisFlags::eta_2(), eta_2)?;
    // The paper keeps eta_1 - eta_2 at the scale of plain guidance when eta_2 varies.
    let eta_1 = axes.eta_1.unwrap_or(drawing.guidance_scale + eta_2);
    Ok(GuidanceSettings {
        semantic_scale: number(AxisFlags::semantic_scale(), axes.semantic_scale)?,
        average_scale: number(GuidanceFlags::average_scale(), flags.average_scale)?,
        eta_1: number(AxisFlags::eta_1(), Some(eta_1))?,
        eta_2,
        guided_steps: match &axes.guided_steps {
            Some(text) => steps_within("--guided-steps", text, drawing.steps)?,
            None => {
                let (first, last) = GuidanceSettings::PAPER.guided_steps;
                (first, drawing.steps.min(last))
            }
        },
        guidance_scale: drawing.guidance_scale,
    })
}

/// Refuses several subjects for a baseline.
fn check_baseline(method: Method, given: &[PathBuf]) -> Result<()> {
    if given.len() > 1 {
        return Err(usage(format!(
            "--method {} draws one subject: found {} folders, expected one folder",
            method.name(),
            given.len()
        )));
    }
    Ok(())
}

/// The files of the actors. The plain model needs none.
fn actors(actors: &[PathBuf], method: Method, no_actor: bool) -> Result<Vec<PathBuf>> {
    if actors.is_empty() && !no_actor {
        return Err(usage(
            "an actor is missing: give the folder of an actor or its actor.safetensors, or draw with the plain \
            model (--no-actor)",
        ));
    }
    actors.iter().map(|path| actor(path, method)).collect()
}

/// The file of a method for the subject at `path`, which is the file itself or its folder.
pub(super) fn actor(path: &Path, method: Method) -> Result<PathBuf> {
    let file = if path.is_dir() {
        ActorFolder::new(path, method).result()
    } else {
        path.to_owned()
    };
    if file.is_file() {
        return Ok(file);
    }
    let (shown, folder) = (file.display(), quoted(&path.display().to_string()));
    Err(usage(match (path.is_dir(), method) {
        (false, Method::Oneactor) => format!(
            "there is no folder or file {shown}, expected an actor: give the folder in which tune made one, or its \
             actor.safetensors"
        ),
        (false, _) => format!(
            "there is no folder or file {shown}, expected the folder of a subject: give the folder with its base images"
        ),
        (true, Method::Oneactor) => {
            format!("there is no actor {shown}: run `oneactor tune {folder}` first")
        }
        (true, _) if method.is_tuned() => format!(
            "there is no {shown}: run `oneactor tune {folder} --method {}` first",
            method.name()
        ),
        (true, _) => format!(
            "there is no base set {shown}: run `oneactor generate-base … -o {folder}` first"
        ),
    }))
}

/// The prompts of the flags and of the prompts file.
fn prompts_of(flags: &SampleFlags) -> Result<Vec<String>> {
    let mut found = flags.prompt.clone().unwrap_or_default();
    if let Some(path) = &flags.prompts_file {
        found.extend(prompts::read_prompts(path)?);
    }
    if found.is_empty() {
        return Err(usage(
            "--prompt or --prompts-file is missing: it says what to draw",
        ));
    }
    if let Some(position) = found.iter().position(|prompt| prompt.trim().is_empty()) {
        let number = position + 1;
        return Err(usage(format!(
            "--prompt: prompt {number} is empty, expected a text"
        )));
    }
    Ok(found)
}

/// The folder of the flags, or `samples` beside the actor.
fn output_dir(given: Option<&Path>, actors: &[PathBuf]) -> Result<PathBuf> {
    match (given, actors) {
        (Some(folder), _) => Ok(folder.to_owned()),
        (None, [actor]) => Ok(actor.with_file_name("samples")),
        (None, [_, _, ..]) => Err(usage(
            "--output-dir is missing: with several actors the folder for the results must be given",
        )),
        (None, []) => Err(usage("--output-dir is missing: the folder for the results")),
    }
}

/// First and last step from `text`, which is `a-b` within 1 to `steps`.
fn steps_within(flag: &str, text: &str, steps: usize) -> Result<(usize, usize)> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)))
        .filter(|(first, last)| (1..=*last).contains(first) && *last <= steps);
    range.ok_or_else(|| {
        usage(format!(
            "{flag}: found \"{text}\", expected the first and the last step, from 1 to {steps}, for instance 1-{}",
            (steps * 2).div_ceil(3)
        ))
    })
}

/// Checks the approximations.
fn shortcuts(flags: &ShortcutFlags, steps: usize) -> Result<Shortcuts> {
    let interval = flags.guidance_interval.as_deref();
    let interval = interval
        .map(|text| steps_within("--guidance-interval", text, steps))
        .transpose()?;
    Ok(Shortcuts {
        // Guidance at all steps is not an approximation.
        guidance_interval: interval.filter(|interval| *interval != (1, steps)),
        feature_reuse: check::declared_count(ShortcutFlags::feature_reuse(), flags.feature_reuse)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::DrawingFlags;

    fn guidance(
        axes: AxisFlags,
        preset: Preset,
        drawing: DrawingFlags,
    ) -> Result<GuidanceSettings> {
        let flags = GuidanceFlags {
            preset: Some(preset),
            ..GuidanceFlags::default()
        };
        guidance_settings(&axes, &flags, &DrawingJob::check(&drawing, None, 1)?)
    }

    #[test]
    fn defaults_are_those_of_the_paper() -> Result<()> {
        let found = guidance(AxisFlags::default(), Preset::Paper, DrawingFlags::default())?;
        assert_eq!(found, GuidanceSettings::PAPER);
        Ok(())
    }

    #[test]
    fn where_only_eta_2_is_set_eta_1_follows_it() -> Result<()> {
        let axes = AxisFlags {
            eta_2: Some(2.5),
            ..AxisFlags::default()
        };
        assert_eq!(
            guidance(axes, Preset::Paper, DrawingFlags::default())?.eta_1,
            10.0
        );
        let job = guidance(
            AxisFlags::default(),
            Preset::Release,
            DrawingFlags::default(),
        )?;
        assert_eq!((job.eta_1, job.eta_2), (7.5, 0.0));
        Ok(())
    }

    #[test]
    fn guided_steps_lie_within_the_steps() {
        let within = |text, steps| steps_within("--guided-steps", text, steps);
        assert_eq!(within("1-20", 30).ok(), Some((1, 20)));
        assert_eq!(within("3 - 3", 4).ok(), Some((3, 3)));
        for wrong in ["0-3", "3-2", "1-31", "1", "-3", "a-b", "1-2-3", ""] {
            let error = within(wrong, 30).expect_err(wrong);
            assert!(
                error
                    .to_string()
                    .contains("from 1 to 30, for instance 1-20"),
                "{error}"
            );
        }
        let few = DrawingFlags {
            steps: Some(4),
            ..DrawingFlags::default()
        };
        let job = guidance(AxisFlags::default(), Preset::Paper, few).expect("few steps");
        assert_eq!(job.guided_steps, (1, 4));
    }

    #[test]
    fn without_an_actor_the_plain_model_needs_a_folder() {
        let flags = SampleFlags {
            prompt: Some(vec!["a cat".into()]),
            ..SampleFlags::default()
        };
        let error = SampleJob::check(&flags).expect_err("no actor");
        assert!(error.to_string().contains("an actor is missing"));
        let flags = SampleFlags {
            guidance: GuidanceFlags {
                no_actor: Some(true),
                ..GuidanceFlags::default()
            },
            ..flags
        };
        let error = SampleJob::check(&flags).expect_err("no folder");
        assert!(error.to_string().contains("--output-dir is missing"));
    }
}
