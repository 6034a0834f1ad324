//! From pictures to columns: every network is loaded, embeds all pictures, and is let go.

use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use tch::Tensor;

use super::super::session::Session;
use super::Evaluation;
use super::pictures::Picture;
use crate::config::evaluate::Wanted;
use crate::error::usage;
use crate::io::photo::{Transparency, read_picture};
use crate::measures::column::{Column, Values};
use crate::measures::encoder::{ClipEncoder, ImageEncoder, VitEncoder};
use crate::measures::region::Region;
use crate::measures::similarity::{clip_score, cosine, unit};
use crate::measures::{Measure, Network};

/// Pictures that go through a network at once.
const AT_ONCE: usize = 8;

/// All columns of a job, in their order.
///
/// # Errors
/// When a network or picture can not be read, an embedding is not finite, or a signal asks to stop.
pub(super) fn measure(session: &Session, evaluation: &Evaluation) -> Result<Vec<Column>> {
    let columns = evaluation.job.columns();
    let mut found: Vec<Option<Column>> = columns.iter().map(|_| None).collect();
    for (network, files) in &evaluation.models {
        session.reporter.note(&format!("loading {}", files.name()));
        let of_it = |wanted: &Wanted| wanted.measure.network() == *network;
        let clip;
        let vit;
        let (encoder, texts): (&dyn ImageEncoder, Option<&ClipEncoder>) = match network {
            Network::Clip => {
                clip = ClipEncoder::load(files, evaluation.device)?;
                (&clip, Some(&clip))
            }
            Network::Dino | Network::Dinov2 => {
                vit = VitEncoder::load(files, evaluation.device)?;
                (&vit, None)
            }
        };
        let regions: Vec<Region> = [Region::Whole, Region::Foreground, Region::Background]
            .into_iter()
            .filter(|region| columns.iter().any(|c| of_it(c) && c.region == *region))
            .collect();
        let embedded = embed(session, evaluation, encoder, &regions)?;
        for (place, wanted) in found.iter_mut().zip(&columns).filter(|(_, c)| of_it(c)) {
            let of_region = regions.iter().position(|region| *region == wanted.region);
            let (pictures, target) = &embedded[of_region.expect("every region is embedded")];
            let values = match (wanted.measure, texts) {
                (Measure::ClipT | Measure::ClipScore, Some(clip)) => against_prompts(
                    session,
                    &evaluation.pictures,
                    clip,
                    pictures,
                    wanted.measure,
                )?,
                _ if wanted.is_pairwise => pairs(&evaluation.pictures, pictures),
                _ => {
                    let target = target
                        .as_ref()
                        .expect("a column against the target has one");
                    against(pictures, |_| target.shallow_clone())
                }
            };
            *place = Some(Column {
                name: wanted.name(),
                values,
            });
        }
    }
    Ok(found
        .into_iter()
        .map(|column| column.expect("every measure has its network"))
        .collect())
}

/// For each region the unit embeddings of all pictures `[N, D]` and of the target `[D]`, where the target has
/// this region.
fn embed(
    session: &Session,
    evaluation: &Evaluation,
    encoder: &dyn ImageEncoder,
    regions: &[Region],
) -> Result<Vec<(Tensor, Option<Tensor>)>> {
    let fill = encoder.processor().mean_colour();
    let pictures = &evaluation.pictures;
    let mut rows: Vec<Vec<Tensor>> = regions.iter().map(|_| Vec::new()).collect();
    session.reporter.start("measuring", pictures.len());
    for chunk in pictures.chunks(AT_ONCE) {
        session.signals.check()?;
        let parts: Vec<Vec<RgbImage>> = chunk
            .iter()
            .map(|picture| {
                let whole = read_measurable(&picture.path)?;
                let mask = picture.mask()?;
                Ok(regions
                    .iter()
                    .map(|region| region.of(&whole, mask.as_ref(), fill))
                    .collect())
            })
            .collect::<Result<_>>()?;
        for (i, rows) in rows.iter_mut().enumerate() {
            let of_region: Vec<RgbImage> = parts.iter().map(|parts| parts[i].clone()).collect();
            rows.push(encoder.image_embeds(&of_region));
        }
        chunk.iter().for_each(|_| session.reporter.advance(""));
    }
    session.reporter.finish();
    let (target, mask) = (&evaluation.target, &evaluation.target_mask);
    regions
        .iter()
        .zip(rows)
        .map(|(region, rows)| {
            let has_part = *region == Region::Whole || mask.is_some();
            let target = target.as_ref().filter(|_| has_part);
            let target = target.map(|whole| -> Result<Tensor> {
                let part = region.of(whole, mask.as_ref(), fill);
                Ok(unit(&encoder.image_embeds(&[part]), "--target")?.get(0))
            });
            Ok((
                unit(&Tensor::cat(&rows, 0), "pictures")?,
                target.transpose()?,
            ))
        })
        .collect()
}

/// A picture's longer side is at most so many times its shorter one: an encoder's preparation makes the shorter
/// side as long as it reads, whatever memory the longer one then takes, and crops all but the middle.
const MOST_OBLONG: u32 = 32;

/// A picture that an encoder can read.
///
/// # Errors
/// When it is neither PNG nor JPEG, damaged, or far longer than wide.
pub(super) fn read_measurable(path: &Path) -> Result<RgbImage> {
    let picture = read_picture(path, Transparency::Dropped)?.picture;
    let (width, height) = picture.dimensions();
    match width.max(height) > MOST_OBLONG.saturating_mul(width.min(height)) {
        true => Err(usage(format!(
            "{}: found {width} x {height} pixels, expected one side at most {MOST_OBLONG} times the other",
            path.display()
        ))),
        false => Ok(picture),
    }
}

/// Cosines of each picture with what stands against it.
fn against(pictures: &Tensor, other: impl Fn(usize) -> Tensor) -> Values {
    let count = pictures.size()[0] as usize;
    Values::Pictures(
        (0..count)
            .map(|i| cosine(&pictures.get(i as i64), &other(i)))
            .collect(),
    )
}

/// Cosines of each picture with its own prompt, or scores from them.
fn against_prompts(
    session: &Session,
    pictures: &[Picture],
    clip: &ClipEncoder,
    embeds: &Tensor,
    measure: Measure,
) -> Result<Values> {
    let mut known: Vec<(&str, Tensor)> = Vec::new();
    let mut values = Vec::new();
    for (i, picture) in pictures.iter().enumerate() {
        let prompt = picture
            .prompt
            .as_deref()
            .expect("checked when the pictures were listed");
        if !known.iter().any(|(text, _)| *text == prompt) {
            let (embedding, cut_off) = clip.text_embeds(prompt)?;
            if cut_off > 0 {
                session.reporter.warn(&format!(
                    "{}: the last {cut_off} tokens of the prompt \"{prompt}\" lie behind CLIP's limit and are not compared",
                    measure.name()
                ));
            }
            known.push((prompt, unit(&embedding, prompt)?.get(0)));
        }
        let (_, text) = known
            .iter()
            .find(|(text, _)| *text == prompt)
            .expect("just put there");
        let cosine = cosine(&embeds.get(i as i64), text);
        values.push(match measure {
            Measure::ClipScore => clip_score(cosine),
            _ => cosine,
        });
    }
    Ok(Values::Pictures(values))
}

/// Cosines of all pairs of pictures with the same actor.
fn pairs(pictures: &[Picture], embeds: &Tensor) -> Values {
    let cosines = embeds.matmul(&embeds.tr()); // [N, N]
    let mut pairs = Vec::new();
    for i in 0..pictures.len() {
        for j in i + 1..pictures.len() {
            if pictures[i].actor == pictures[j].actor {
                pairs.push((i, j, cosines.double_value(&[i as i64, j as i64])));
            }
        }
    }
    Values::Pairs(pairs)
}
