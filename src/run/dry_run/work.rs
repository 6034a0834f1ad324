//! How much a job computes.

/// Rows of the U-Net, as a job has them at most at a time.
#[derive(Clone, Copy, Default)]
pub struct UnetRows {
    /// All of them.
    pub at_once: usize,
    /// Those that differ in more than their text.
    pub without_text: usize,
    /// Those whose attention is looked at.
    pub watched: usize,
}

impl UnetRows {
    /// The larger number of each.
    #[must_use]
    pub fn or(self, other: UnetRows) -> UnetRows {
        UnetRows {
            at_once: self.at_once.max(other.at_once),
            without_text: self.without_text.max(other.without_text),
            watched: self.watched.max(other.watched),
        }
    }
}

/// How much is to be computed.
#[derive(Clone, Copy, Default)]
pub struct Work {
    /// Pictures.
    pub pictures: usize,
    /// Runs of the U-Net while drawing.
    pub passes: usize,
    /// Its rows in these.
    pub rows: usize,
    /// Whether a method runs it more often than is counted here.
    pub is_least: bool,
    /// Most steps of tuning.
    pub tuning_steps: usize,
    /// Rows of each.
    pub tuning_rows: usize,
}

impl Work {
    /// Whether nothing is to be computed.
    pub(super) fn is_none(&self) -> bool {
        self.pictures == 0 && self.tuning_steps == 0
    }

    /// Both.
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
