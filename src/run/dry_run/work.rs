//! The amount of computation of a job.

/// The most rows that a job has in one U-Net pass.
#[derive(Clone, Copy, Default)]
pub struct UnetRows {
    /// All rows.
    pub at_once: usize,
    /// Rows that differ in more than their text.
    pub without_text: usize,
    /// Rows whose attention maps are recorded.
    pub watched: usize,
}

impl UnetRows {
    /// The maximum of each number.
    #[must_use]
    pub fn or(self, other: UnetRows) -> UnetRows {
        UnetRows {
            at_once: self.at_once.max(other.at_once),
            without_text: self.without_text.max(other.without_text),
            watched: self.watched.max(other.watched),
        }
    }
}

/// The amount of computation.
#[derive(Clone, Copy, Default)]
pub struct Work {
    /// Pictures to draw.
    pub pictures: usize,
    /// U-Net passes while drawing.
    pub passes: usize,
    /// Rows of these passes together.
    pub rows: usize,
    /// Whether the method has more U-Net passes than are counted here.
    pub is_least: bool,
    /// The most steps of tuning.
    pub tuning_steps: usize,
    /// Rows of each tuning step.
    pub tuning_rows: usize,
}

impl Work {
    /// Whether nothing is to be computed.
    pub(super) fn is_none(&self) -> bool {
        self.pictures == 0 && self.tuning_steps == 0
    }

    /// The work of both jobs.
    pub fn and(self, other: Work) -> Work {
        Work {
            pictures: self.pictures + other.pictures,
            passes: self.passes + other.passes,
            rows: self.rows + other.rows,
            is_least: self.is_least || other.is_least,
            tuning_steps: self.tuning_steps + other.tuning_steps,
            tuning_rows: self.tuning_rows.max(other.tuning_rows),
        }
    }
}
