//! Approximations that save passes through the U-Net, or parts of passes. They change pictures, so they are
//! used only when the user asks for them.

use serde::Serialize;
use tch::Tensor;

use super::Conditioning;
use super::guidance::Guidance;

/// The approximations of a run; by default none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shortcuts {
    /// First and last guided step, counted from 1. The other steps compute only the prompt's row, which takes
    /// half or a third of the time (arXiv 2404.07724).
    pub guidance_interval: Option<(usize, usize)>,
    /// Only every N-th pass is whole, where N is this number. The passes between run only the outermost blocks
    /// and reuse the other features of the last whole pass (arXiv 2312.00858). With 1 all passes are whole.
    pub feature_reuse: usize,
}

impl Default for Shortcuts {
    fn default() -> Self {
        Shortcuts {
            guidance_interval: None,
            feature_reuse: 1,
        }
    }
}

/// A guidance with shortcuts.
pub struct ShortenedGuidance<'a> {
    whole: &'a dyn Guidance,
    shortcuts: Shortcuts,
    /// The prompt's row alone, for each conditioning of the unguided steps.
    alone: Vec<(&'a Conditioning, Conditioning)>,
}

impl<'a> ShortenedGuidance<'a> {
    /// Wraps a guidance that neither records nor masks attention, for a run of this many steps.
    pub fn new(whole: &'a dyn Guidance, shortcuts: Shortcuts, steps: usize) -> Self {
        assert!(whole.attention().is_none(), "masks need whole passes");
        let mut shortened = ShortenedGuidance {
            whole,
            shortcuts,
            alone: Vec::new(),
        };
        for step in 1..=steps {
            let rows = whole.conditioning(step);
            if !shortened.is_guided(step) && shortened.row_alone(rows).is_none() {
                let row = rows.narrow(whole.conditional_row(step) as i64, 1);
                shortened.alone.push((rows, row));
            }
        }
        shortened
    }

    fn is_guided(&self, step: usize) -> bool {
        let interval = self.shortcuts.guidance_interval;
        interval.is_none_or(|(first, last)| (first..=last).contains(&step))
    }

    fn row_alone(&self, rows: &Conditioning) -> Option<&Conditioning> {
        let same = |(of, _): &&(&Conditioning, Conditioning)| std::ptr::eq(*of, rows);
        self.alone.iter().find(same).map(|(_, row)| row)
    }
}

impl Guidance for ShortenedGuidance<'_> {
    fn conditioning(&self, step: usize) -> &Conditioning {
        let rows = self.whole.conditioning(step);
        if self.is_guided(step) {
            rows
        } else {
            self.row_alone(rows).expect("made for all unguided steps")
        }
    }

    fn conditional_row(&self, step: usize) -> usize {
        if self.is_guided(step) {
            self.whole.conditional_row(step)
        } else {
            0
        }
    }

    /// Outside of the interval `ε = ε(c)`: Eq. (3) with s = 1, Eq. (19) with η1 = 1 and η2 = 0.
    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor {
        if self.is_guided(step) {
            self.whole.combine(step, rows)
        } else {
            rows[0].shallow_clone()
        }
    }

    fn feature_reuse(&self) -> usize {
        self.shortcuts.feature_reuse
    }
}
