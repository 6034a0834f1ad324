//! `--preview-every`: one sheet with the pictures that are being drawn and those that are finished. The sheet is
//! rewritten every few steps.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use tch::Tensor;

use super::located::ResolvedDrawing;
use super::session::Session;
use crate::backbone::Backbone;
use crate::backbone::denoise::StepTaken;
use crate::backbone::latent_colours::LatentColours;
use crate::config::DrawingJob;
use crate::io::atomic::replace_bytes;
use crate::pictures::contact_sheet::ContactSheet;
use crate::pictures::pixels::to_rgb;
use crate::pictures::png::{quick_png_bytes, read_png_text};
use crate::schedulers::NoiseSchedule;

/// The most pictures on the sheet, unless one batch is larger. A full sheet starts again with the next pictures, so
/// that writing it takes no longer in a run of thousands than in a run of a few.
const MOST: usize = 16;

/// Keyword of a text chunk that marks previews of this program; its text is the version. Without the mark, a preview
/// that a killed run has left could not be told from the user's own file.
const MARK: &str = "oneactor preview";

/// The preview sheet. Its file exists only while pictures are drawn.
pub struct Preview {
    path: PathBuf,
    every: usize,
    schedule: NoiseSchedule,
    /// Width and height of the latents.
    size: (u32, u32),
    cells: usize,
    state: RefCell<State>,
}

struct State {
    colours: LatentColours,
    sheet: Option<ContactSheet>,
    is_written: bool,
    /// The cell of the first picture of the current batch.
    first: usize,
}

impl Preview {
    /// A preview of `count` pictures in the file `path`. `None` if the job asks for no preview, if there is nothing to
    /// draw, or if `path` is a file that this program did not write.
    pub fn begin(
        session: &Session,
        backbone: &Backbone,
        drawing: &DrawingJob,
        resolved: ResolvedDrawing,
        (path, count): (PathBuf, usize),
    ) -> Option<Self> {
        let every = drawing.preview_every?;
        let is_left = is_preview(&path);
        if is_left {
            // A killed run has left this file. If it cannot be removed now, the first write replaces it.
            let _ = fs::remove_file(&path);
        }
        if count == 0 {
            return None;
        }
        if !is_left && path.symlink_metadata().is_ok() {
            session.reporter.warn(&format!(
                "{} is no preview of this program, so --preview-every will not overwrite it and shows nothing: move \
                 that file away",
                path.display()
            ));
            return None;
        }
        let f = backbone.vae_scale_factor();
        Some(Self {
            path,
            every,
            schedule: backbone.noise_schedule.clone(),
            size: ((resolved.width / f) as u32, (resolved.height / f) as u32),
            cells: count.min(MOST.max(drawing.batch_size)),
            state: RefCell::new(State {
                colours: LatentColours::fit(backbone),
                sheet: None,
                is_written: false,
                first: 0,
            }),
        })
    }

    /// Shows unfinished pictures, if a preview is due after this step.
    ///
    /// # Errors
    /// When the sheet cannot be written.
    pub fn show_running(&self, labels: &[String], taken: &StepTaken) -> Result<()> {
        if !taken.step.is_multiple_of(self.every) {
            return Ok(());
        }
        let mut state = self.state.borrow_mut();
        let pictures = state.colours.pictures(&taken.z_0(&self.schedule));
        let labels = labels
            .iter()
            .map(|label| format!("{label} step {}", taken.step));
        self.show(&mut state, labels.collect(), &pictures)
    }

    /// Shows finished pictures `[B, 3, H, W]`. Their latents and colours improve the colours of later previews.
    ///
    /// # Errors
    /// When the sheet cannot be written.
    pub fn show_finished(
        &self,
        labels: &[String],
        latents: &Tensor,
        pictures: &Tensor,
    ) -> Result<()> {
        let mut state = self.state.borrow_mut();
        self.show(&mut state, labels.to_vec(), pictures)?;
        state.colours.add(latents, pictures);
        state.first += labels.len();
        Ok(())
    }

    fn show(&self, state: &mut State, labels: Vec<String>, pictures: &Tensor) -> Result<()> {
        if state.first + labels.len() > self.cells {
            (state.first, state.sheet) = (0, None);
        }
        let sheet = match &mut state.sheet {
            Some(sheet) => sheet,
            none => none.insert(ContactSheet::new(self.cells, self.size, None)?),
        };
        for (row, label) in labels.iter().enumerate() {
            sheet.place(state.first + row, &to_rgb(pictures, row)?, label);
        }
        let mark = (MARK, env!("CARGO_PKG_VERSION"));
        let bytes = quick_png_bytes(sheet.so_far(), &[mark])?;
        replace_bytes(&self.path, &bytes).map_err(|error| anyhow!("the preview: {error:#}"))?;
        state.is_written = true;
        Ok(())
    }
}

fn is_preview(path: &Path) -> bool {
    let has_mark = |texts: Vec<(String, String)>| texts.iter().any(|(keyword, _)| keyword == MARK);
    path.is_file() && read_png_text(path).is_ok_and(has_mark)
}

impl Drop for Preview {
    /// Removes the sheet: the finished pictures and their contact sheet replace it.
    fn drop(&mut self) {
        if self.state.get_mut().is_written {
            // A preview that cannot be removed does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}
