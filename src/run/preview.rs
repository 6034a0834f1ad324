//! `--preview-every`: what is being drawn, and what is finished, on one sheet that is written again and again.

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

/// Most pictures on the sheet, but for a batch that is larger: then it begins anew. So it takes no longer to write in a
/// run of thousands than in one of a few.
const MOST: usize = 16;

/// Keyword of a text chunk that tells a sheet of this program, which a killed run may have left, from a file of somebody
/// else; the text is the version.
const MARK: &str = "oneactor preview";

/// The sheet, which is there while pictures are drawn.
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
    /// Where the pictures that are drawn now begin.
    first: usize,
}

impl Preview {
    /// For `count` pictures, on a sheet at `path`; `None` where the job asks for none, nothing is to be drawn, or another
    /// file has that name.
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
            // A killed run has left it. Where it can not be removed it is replaced.
            let _ = fs::remove_file(&path);
        }
        if count == 0 {
            return None;
        }
        if !is_left && path.symlink_metadata().is_ok() {
            session.reporter.warn(&format!(
                "{} is no preview of this program: it is left as it is, and --preview-every shows nothing",
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

    /// Shows pictures after a step, where it is the turn of one.
    ///
    /// # Errors
    /// When the sheet can not be written.
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

    /// Shows finished pictures `[B, 3, H, W]`, and learns from their latents what colours such have.
    ///
    /// # Errors
    /// When the sheet can not be written.
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
    /// The finished pictures and their sheet take its place.
    fn drop(&mut self) {
        if self.state.get_mut().is_written {
            // What is left of it does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}
