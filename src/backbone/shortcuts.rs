//! Approximations that save passes through the U-Net, or parts of them. They change pictures, so
//! nothing takes them unasked.

use serde::Serialize;
use tch::Tensor;

use super::Conditioning;
use super::guidance::Guidance;

/// Which approximations are taken; by default none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shortcuts {
    /// First and last step, counted from 1, that are guided at all; all others follow the row of the
    /// prompt alone, which halves or thirds their cost (arXiv 2404.07724).
    pub guidance_interval: Option<(usize, usize)>,
    /// Every so many-th pass is whole; those between run the outermost blocks alone and take all else
    /// from the last whole one (arXiv 2312.00858). 1: all are whole.
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
    /// The row of the prompt alone, for each of the conditionings of unguided steps.
    alone: Vec<(&'a Conditioning, Conditioning)>,
}

impl<'a> ShortenedGuidance<'a> {
    /// Shortens a guidance that neither looks at attention nor masks it, for that many steps.
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
