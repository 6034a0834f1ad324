//! Measures the columns of a job: each network is loaded, sees all pictures, and is released.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::Device;

use super::Evaluation;
use crate::measures::column::{Column, ColumnValues};
use crate::measures::encoder::{ClipEncoder, LpipsEncoder, VitEncoder};
use crate::measures::foreground::ForegroundFinder;
use crate::measures::quantity::Quantity;
use crate::measures::{Comparison, Network, Observer, directions, distances};
use crate::models::vision::vit::VitKind;
use crate::progress::PICTURES;
use crate::run::session::Session;

/// All columns of a job, in their order.
///
/// # Errors
/// When a network or picture cannot be read, a value is not finite, or a signal asks the program to stop.
pub(super) fn measure(session: &Session, evaluation: &Evaluation) -> Result<Vec<Column>> {
    let columns = evaluation.job.columns();
    let comparison = Comparison {
        pictures: &evaluation.pictures,
        target: evaluation.target.as_ref(),
        observer: session,
    };
    let mut found: BTreeMap<String, ColumnValues> = BTreeMap::new();
    for (network, files) in &evaluation.models {
        session.reporter.note(&format!("loading {}", files.name()));
        let of_it = columns.iter().copied();
        let wanted: Vec<Quantity> = of_it.filter(|c| c.measure.network() == *network).collect();
        let device = evaluation.device;
        let by_vit = |kind| {
            let vit = VitEncoder::load(files, kind, device)?;
            directions::measure(&comparison, (&vit, None), &wanted)
        };
        let values = match network {
            Network::Clip => {
                let clip = ClipEncoder::load(files, device)?;
                directions::measure(&comparison, (&clip, Some(&clip)), &wanted)?
            }
            Network::Dino => by_vit(VitKind::Vit)?,
            Network::Dinov2 => by_vit(VitKind::Dinov2)?,
            Network::Dreamsim => by_vit(VitKind::Dreamsim)?,
            Network::Lpips => {
                let lpips = LpipsEncoder::load(files, device)?;
                let size = evaluation.lpips_size.as_ref();
                let size = size.expect("found where lpips is measured");
                distances::measure(&comparison, &lpips, size, &wanted)?
            }
        };
        session.tell_notes(files);
        found.extend(wanted.iter().map(|wanted| wanted.name()).zip(values));
    }
    let column = |wanted: Quantity| {
        let name = wanted.name();
        let values = found.remove(&name).expect("every measure has its network");
        Column::new(name, values)
    };
    Ok(columns.into_iter().map(column).collect())
}

/// Refuses networks that cannot be loaded, without reading their values.
///
/// # Errors
/// When a file is missing or damaged.
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

impl Observer for Session {
    fn begin(&self, pictures: usize) {
        self.reporter.start("measuring", pictures, PICTURES);
    }

    fn advance(&self) {
        self.reporter.advance("");
    }

    fn finish(&self) {
        self.reporter.finish();
    }

    fn check(&self) -> Result<()> {
        self.signals.check()
    }

    fn warn(&self, warning: &str) {
        self.reporter.warn(warning);
    }
}
