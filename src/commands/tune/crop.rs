//! The target's crop: a box that the job names, or a box that is found once the model is loaded.

use anyhow::{Context, Result};

use super::LocatedModel;
use crate::backbone::Backbone;
use crate::cli::Crop;
use crate::error::usage;
use crate::method::attention_box::{BoxTarget, FoundBox, MOST_ENLARGED, find_box, looks};
use crate::method::base_set::{BaseFacts, BaseSet};
use crate::method::crop::CropBox;
use crate::run::session::Session;

/// Checks a job's crop against the base images, as far as this is possible without loading the model.
///
/// # Errors
/// When a box does not fit the pictures, a face is to be found among several subjects, or a prompt
/// with the base words is too long.
pub(super) fn check(crop: Crop, base: &BaseFacts, model: &LocatedModel) -> Result<()> {
    let wanted = match crop {
        Crop::None => return Ok(()),
        Crop::Box(part) => return check_box(part, base),
        Crop::Subject => BoxTarget::Subject,
        Crop::Face if base.base_words.len() > 1 => {
            return Err(usage(format!(
                "--crop face: the base images show {} subjects ({}), expected one: use --crop \
                 subject, or name a box, left,top,width,height",
                base.base_words.len(),
                base.base_words.join(", ")
            )));
        }
        Crop::Face => BoxTarget::Face,
    };
    for look in looks(&base.base_words, wanted) {
        let tokens = model.tokenizers.plain_tokens(&look.prompt)?;
        for word in &look.words {
            tokens
                .word_positions(word)
                .with_context(|| format!("--crop {crop}"))?;
        }
    }
    Ok(())
}

/// Checks that the box lies within the base images and need not be enlarged more than `MOST_ENLARGED` times.
fn check_box(part: CropBox, base: &BaseFacts) -> Result<()> {
    let [x, y, w, h] = part;
    let (width, height) = (base.width, base.height);
    let is_inside = |start: i64, length: i64, side: i64| {
        (0..side).contains(&start) && (1..=side - start).contains(&length)
    };
    // The box is checked to be inside the picture first, so that the products below cannot overflow.
    if is_inside(x, w, width)
        && is_inside(y, h, height)
        && (w * MOST_ENLARGED >= width || h * MOST_ENLARGED >= height)
    {
        return Ok(());
    }
    Err(usage(format!(
        "--crop: found {x},{y},{w},{h}, expected left,top,width,height of a box within the base \
         images of {width} x {height} pixels, at least {} wide or {} high",
        (width + MOST_ENLARGED - 1) / MOST_ENLARGED,
        (height + MOST_ENLARGED - 1) / MOST_ENLARGED
    )))
}

/// The box that is enlarged, and what the record says about it.
pub(super) struct Resolved {
    pub part: Option<CropBox>,
    /// The box that was found, or the text `none`; `None` if the job names the box itself or asks for no crop.
    pub crop_box: Option<String>,
    /// What the box shows: `face` or `subject`.
    pub crop_shows: Option<String>,
}

/// Finds the box in the base image `target`, and reports what was found.
///
/// # Errors
/// When the network fails.
pub(super) fn resolve(
    session: &Session,
    crop: Crop,
    backbone: &Backbone,
    base: &BaseSet,
    target: usize,
) -> Result<Resolved> {
    let wanted = match crop {
        Crop::Face => BoxTarget::Face,
        Crop::Subject => BoxTarget::Subject,
        Crop::None | Crop::Box(_) => {
            let part = match crop {
                Crop::Box(part) => Some(part),
                _ => None,
            };
            return Ok(Resolved {
                part,
                crop_box: None,
                crop_shows: None,
            });
        }
    };
    let z_0 = base
        .latents
        .narrow(0, target as i64, 1)
        .to_device(backbone.device());
    let found = find_box(backbone, &z_0, &base.facts.base_words, wanted)?;
    let width = base.facts.width;
    let Some(found) = found.filter(|found| !found.is_nearly_everything(width)) else {
        session
            .reporter
            .note(&format!("--crop {crop}: {}", nothing(found, base)));
        return Ok(Resolved {
            part: None,
            crop_box: Some("none".to_owned()),
            crop_shows: None,
        });
    };
    let what = match found.what {
        BoxTarget::Face => "face",
        BoxTarget::Subject => "subject",
    };
    let [x, y, w, h] = found.part;
    let text = format!("{x},{y},{w},{h}");
    let instead = match (wanted, found.what) {
        (BoxTarget::Face, BoxTarget::Subject) => {
            ", because attention shows no plausible face in it"
        }
        _ => "",
    };
    session
        .reporter
        .note(&format!("--crop {crop}: the {what} is at {text}{instead}"));
    Ok(Resolved {
        part: Some(found.part),
        crop_box: Some(text),
        crop_shows: Some(what.to_owned()),
    })
}

/// The message that says why there is no crop.
fn nothing(found: Option<FoundBox>, base: &BaseSet) -> String {
    let subject = base.facts.base_words.join(", ");
    match found {
        Some(FoundBox {
            part: [x, y, w, h], ..
        }) => format!(
            "the box of the {subject}, {x},{y},{w},{h}, is nearly the whole picture of {} x {} \
             pixels: there is nothing to enlarge, and the target is not cropped",
            base.facts.width, base.facts.height
        ),
        None => format!(
            "the model's attention to \"{subject}\" is the same everywhere: the target is not cropped"
        ),
    }
}
