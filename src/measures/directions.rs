//! Measures that compare the directions of embeddings: all except LPIPS.

use std::collections::BTreeMap;

use anyhow::Result;
use image::RgbImage;
use tch::Tensor;

use super::column::ColumnValues;
use super::encoder::{ClipEncoder, ImageEncoder};
use super::picture::{Picture, of_one_actor, regions};
use super::quantity::Quantity;
use super::region::Region;
use super::similarity::{cosine, of_cosine, unit};
use super::{Comparison, Measure};
use crate::wording::counted;

/// Number of pictures that an encoder processes together.
const AT_ONCE: usize = 8;

/// The values of some quantities of one encoder. `clip` is the same encoder if it also embeds texts.
///
/// # Errors
/// When a picture cannot be read, an embedding is not finite, or the observer stops the work.
pub fn measure(
    comparison: &Comparison,
    (encoder, clip): (&dyn ImageEncoder, Option<&ClipEncoder>),
    wanted: &[Quantity],
) -> Result<Vec<ColumnValues>> {
    let regions = regions(wanted);
    let embedded = embed(comparison, encoder, &regions)?;
    let pictures = comparison.pictures;
    let values = wanted.iter().map(|wanted| {
        let of_region = regions.iter().position(|region| *region == wanted.region);
        let embedded = &embedded[of_region.expect("every region is embedded")];
        match clip {
            Some(clip) if wanted.measure.is_of_text() => {
                against_prompts(comparison, clip, embedded, wanted.measure)
            }
            _ if wanted.is_pairwise => Ok(pairs(pictures, embedded, wanted.measure)),
            _ => Ok(against_target(pictures, embedded, wanted.measure)),
        }
    });
    values.collect()
}

/// Unit embeddings `[D]` of one region of the pictures and of the target, for those that have the region.
struct Embedded {
    pictures: Vec<Option<Tensor>>,
    target: Option<Tensor>,
}

/// The embeddings for each region.
fn embed(
    comparison: &Comparison,
    encoder: &dyn ImageEncoder,
    regions: &[Region],
) -> Result<Vec<Embedded>> {
    let fill = encoder.processor().mean_colour();
    let Comparison {
        pictures,
        target,
        observer,
    } = *comparison;
    let mut embedded: Vec<Embedded> = Vec::new();
    for &region in regions {
        let part = target.and_then(|target| target.part(region, fill));
        let target = part.map(|part| -> Result<Tensor> {
            Ok(unit(&encoder.image_embeds(&[part]), "the target")?.get(0))
        });
        embedded.push(Embedded {
            pictures: Vec::new(),
            target: target.transpose()?,
        });
    }
    observer.begin(pictures.len());
    for chunk in pictures.chunks(AT_ONCE) {
        observer.check()?;
        let parts: Vec<Vec<Option<RgbImage>>> = chunk
            .iter()
            .map(|picture| picture.parts(regions, fill))
            .collect::<Result<_>>()?;
        for (i, embedded) in embedded.iter_mut().enumerate() {
            let of_region: Vec<RgbImage> =
                parts.iter().filter_map(|parts| parts[i].clone()).collect();
            let mut rows = if of_region.is_empty() {
                Vec::new()
            } else {
                unit(&encoder.image_embeds(&of_region), "pictures")?.unbind(0)
            }
            .into_iter();
            let row = |parts: &Vec<Option<RgbImage>>| parts[i].as_ref().and_then(|_| rows.next());
            embedded.pictures.extend(parts.iter().map(row));
        }
        chunk.iter().for_each(|_| observer.advance());
    }
    observer.finish();
    Ok(embedded)
}

/// Compares each picture, except the target itself, with the target.
fn against_target(pictures: &[Picture], embedded: &Embedded, measure: Measure) -> ColumnValues {
    let target = embedded.target.as_ref();
    let target = target.expect("a column against the target has one");
    let value = |(picture, row): (&Picture, &Option<Tensor>)| {
        let row = row.as_ref().filter(|_| !picture.row.is_target)?;
        Some(of_cosine(measure, cosine(row, target)))
    };
    let both = pictures.iter().zip(&embedded.pictures);
    ColumnValues::Pictures(both.map(value).collect())
}

/// Compares each picture with its own prompt.
fn against_prompts(
    comparison: &Comparison,
    clip: &ClipEncoder,
    embedded: &Embedded,
    measure: Measure,
) -> Result<ColumnValues> {
    let mut known: BTreeMap<&str, Tensor> = BTreeMap::new();
    let mut values = Vec::new();
    for (picture, row) in comparison.pictures.iter().zip(&embedded.pictures) {
        let prompt = picture
            .row
            .prompt
            .as_deref()
            .expect("checked when the pictures were listed");
        if !known.contains_key(prompt) {
            let (embedding, cut_off) = clip.text_embeds(prompt)?;
            if cut_off > 0 {
                comparison.observer.warn(&format!(
                    "{}: the prompt \"{prompt}\" is longer than CLIP's limit, so that CLIP does not read {} at its end",
                    measure.name(),
                    counted(cut_off, "token", "tokens")
                ));
            }
            known.insert(prompt, unit(&embedding, prompt)?.get(0));
        }
        let value = |row| of_cosine(measure, cosine(row, &known[prompt]));
        values.push(row.as_ref().map(value));
    }
    Ok(ColumnValues::Pictures(values))
}

/// Compares all pairs of pictures with the same actor, without the target.
fn pairs(pictures: &[Picture], embedded: &Embedded, measure: Measure) -> ColumnValues {
    let mut pairs = Vec::new();
    for group in of_one_actor(pictures) {
        for (place, &i) in group.iter().enumerate() {
            for &j in &group[place + 1..] {
                if let (Some(a), Some(b)) = (&embedded.pictures[i], &embedded.pictures[j]) {
                    pairs.push((i, j, of_cosine(measure, cosine(a, b))));
                }
            }
        }
    }
    ColumnValues::Pairs(pairs)
}
