//! From pictures to columns: every network is loaded, sees all pictures, and is let go.

use std::collections::BTreeMap;

use anyhow::Result;
use image::RgbImage;
use tch::{Device, Tensor};

use super::compared::{of_one_actor, parts, regions, target_part};
use super::pictures::Picture;
use super::{Evaluation, distances};
use crate::config::evaluate::TableColumn;
use crate::measures::column::{Column, ColumnValues};
use crate::measures::encoder::{ClipEncoder, ImageEncoder, LpipsEncoder, VitEncoder};
use crate::measures::foreground::ForegroundFinder;
use crate::measures::region::Region;
use crate::measures::similarity::{cosine, of_cosine, unit};
use crate::measures::{Measure, Network};
use crate::models::vision::vit::VitKind;
use crate::run::session::Session;

/// Pictures that go through a network at once.
const AT_ONCE: usize = 8;

/// All columns of a job, in their order.
///
/// # Errors
/// When a network or picture can not be read, a value is not finite, or a signal asks to stop.
pub(super) fn measure(session: &Session, evaluation: &Evaluation) -> Result<Vec<Column>> {
    let columns = evaluation.job.columns();
    let mut found: BTreeMap<String, ColumnValues> = BTreeMap::new();
    for (network, files) in &evaluation.models {
        session.reporter.note(&format!("loading {}", files.name()));
        let of_it = columns.iter().copied();
        let wanted: Vec<TableColumn> = of_it.filter(|c| c.measure.network() == *network).collect();
        let device = evaluation.device;
        let by_vit = |kind| {
            let vit = VitEncoder::load(files, kind, device)?;
            directions(session, evaluation, (&vit, None), &wanted)
        };
        let values = match network {
            Network::Clip => {
                let clip = ClipEncoder::load(files, device)?;
                directions(session, evaluation, (&clip, Some(&clip)), &wanted)?
            }
            Network::Dino => by_vit(VitKind::Vit)?,
            Network::Dinov2 => by_vit(VitKind::Dinov2)?,
            Network::Dreamsim => by_vit(VitKind::Dreamsim)?,
            Network::Lpips => {
                let lpips = LpipsEncoder::load(files, device)?;
                distances::measure(session, evaluation, &lpips, &wanted)?
            }
        };
        session.tell_notes(files);
        found.extend(wanted.iter().map(|wanted| wanted.name()).zip(values));
    }
    let column = |wanted: TableColumn| {
        let name = wanted.name();
        let values = found.remove(&name).expect("every measure has its network");
        Column::new(name, values)
    };
    Ok(columns.into_iter().map(column).collect())
}

/// Refuses networks that could not be loaded; no values are read.
///
/// # Errors
/// As loading them.
pub(super) fn check_networks(evaluation: &Evaluation) -> Result<()> {
    for (network, files) in &evaluation.models {
        let files = &files.outlined();
        let vit = |kind| VitEncoder::load(files, kind, Device::Cpu).map(drop);
        match network {
            Network::Clip => ClipEncoder::load(files, Device::Cpu).map(drop),
            Network::Dino => vit(VitKind::Vit),
            Network::Dinov2 => vit(VitKind::Dinov2),
            Network::Dreamsim => vit(VitKind::Dreamsim),
            Network::Lpips => LpipsEncoder::load(files, Device::Cpu).map(drop),
        }?;
    }
    match &evaluation.sam {
        Some(files) => ForegroundFinder::load(&files.outlined(), Device::Cpu).map(drop),
        None => Ok(()),
    }
}

/// The values of some columns of one encoder, from unit embeddings.
fn directions(
    session: &Session,
    evaluation: &Evaluation,
    (encoder, clip): (&dyn ImageEncoder, Option<&ClipEncoder>),
    wanted: &[TableColumn],
) -> Result<Vec<ColumnValues>> {
    let regions = regions(wanted);
    let embedded = embed(session, evaluation, encoder, &regions)?;
    let pictures = &evaluation.pictures;
    let values = wanted.iter().map(|wanted| {
        let of_region = regions.iter().position(|region| *region == wanted.region);
        let embedded = &embedded[of_region.expect("every region is embedded")];
        match clip {
            Some(clip) if wanted.measure.is_of_text() => {
                against_prompts(session, pictures, clip, embedded, wanted.measure)
            }
            _ if wanted.is_pairwise => Ok(pairs(pictures, embedded, wanted.measure)),
            _ => Ok(against_target(pictures, embedded, wanted.measure)),
        }
    });
    values.collect()
}

/// Unit embeddings `[D]` of one part of the pictures, and of the target, where they have it.
struct Embedded {
    pictures: Vec<Option<Tensor>>,
    target: Option<Tensor>,
}

/// The embeddings for each region.
fn embed(
    session: &Session,
    evaluation: &Evaluation,
    encoder: &dyn ImageEncoder,
    regions: &[Region],
) -> Result<Vec<Embedded>> {
    let fill = encoder.processor().mean_colour();
    let pictures = &evaluation.pictures;
    let mut embedded: Vec<Embedded> = Vec::new();
    for &region in regions {
        let target = target_part(evaluation, region, fill).map(|part| -> Result<Tensor> {
            Ok(unit(&encoder.image_embeds(&[part]), "--target")?.get(0))
        });
        embedded.push(Embedded {
            pictures: Vec::new(),
            target: target.transpose()?,
        });
    }
    session.reporter.start("measuring", pictures.len());
    for chunk in pictures.chunks(AT_ONCE) {
        session.signals.check()?;
        let parts: Vec<Vec<Option<RgbImage>>> = chunk
            .iter()
            .map(|picture| parts(picture, regions, fill))
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
        chunk.iter().for_each(|_| session.reporter.advance(""));
    }
    session.reporter.finish();
    Ok(embedded)
}

/// Each picture but the target with the target.
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

/// Each picture with its own prompt.
fn against_prompts(
    session: &Session,
    pictures: &[Picture],
    clip: &ClipEncoder,
    embedded: &Embedded,
    measure: Measure,
) -> Result<ColumnValues> {
    let mut known: BTreeMap<&str, Tensor> = BTreeMap::new();
    let mut values = Vec::new();
    for (picture, row) in pictures.iter().zip(&embedded.pictures) {
        let prompt = picture
            .row
            .prompt
            .as_deref()
            .expect("checked when the pictures were listed");
        if !known.contains_key(prompt) {
            let (embedding, cut_off) = clip.text_embeds(prompt)?;
            if cut_off > 0 {
                session.reporter.warn(&format!(
                    "{}: the last {cut_off} tokens of the prompt \"{prompt}\" lie behind CLIP's limit and are not compared",
                    measure.name()
                ));
            }
            known.insert(prompt, unit(&embedding, prompt)?.get(0));
        }
        let value = |row| of_cosine(measure, cosine(row, &known[prompt]));
        values.push(row.as_ref().map(value));
    }
    Ok(ColumnValues::Pictures(values))
}

/// All pairs of pictures with the same actor, without the target.
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
