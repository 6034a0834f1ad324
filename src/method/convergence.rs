//! Decides when tuning has converged, by the loss on a fixed set of (t, ε) pairs. The loss of a single step is
//! too noisy, because every step draws its own pairs.

use serde::{Deserialize, Serialize};

/// Number of steps between two checks of the criterion.
pub const VALIDATE_EVERY: usize = 25;
/// An improvement smaller than this fraction of the best value does not count.
const LEAST_IMPROVEMENT: f64 = 0.002;
/// Number of checks in a row without improvement after which tuning ends.
const PATIENCE: usize = 12;

/// The best value so far, and the number of checks since then.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Convergence {
    /// The smallest validation loss.
    pub best: f64,
    /// The step with that loss.
    pub best_step: usize,
    /// The last value that counted as an improvement.
    reference: f64,
    looks_without_improvement: usize,
}

impl Convergence {
    /// Starts with the loss of the untrained projector.
    pub fn new(initial: f64) -> Self {
        Convergence {
            best: initial,
            best_step: 0,
            reference: initial,
            looks_without_improvement: 0,
        }
    }

    /// Records the validation loss after `step`. Returns whether the loss is the best so far.
    ///
    /// The last step of a tuning is checked too, whatever its number. This check does not count towards the
    /// checks without improvement, so that a tuning that continues from there converges at the same step as one
    /// that never stopped.
    pub fn look(&mut self, step: usize, validation: f64) -> bool {
        if step.is_multiple_of(VALIDATE_EVERY) {
            self.count(validation);
        }
        let is_best = validation < self.best;
        if is_best {
            (self.best, self.best_step) = (validation, step);
        }
        is_best
    }

    fn count(&mut self, validation: f64) {
        if validation < self.reference * (1.0 - LEAST_IMPROVEMENT) {
            self.reference = validation;
            self.looks_without_improvement = 0;
        } else {
            self.looks_without_improvement += 1;
        }
    }

    /// Whether tuning has converged.
    pub fn is_reached(&self) -> bool {
        self.looks_without_improvement >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuning_ends_when_the_fixed_pairs_stop_improving() {
        let mut convergence = Convergence::new(1.0);
        assert!(convergence.look(25, 0.5));
        for i in 2..2 + PATIENCE {
            assert!(!convergence.is_reached());
            convergence.look(i * VALIDATE_EVERY, 0.4999);
        }
        assert!(convergence.is_reached());
        assert_eq!(convergence.best_step, 50);
    }

    #[test]
    fn a_look_at_the_last_step_allowed_leaves_patience_as_it_was() {
        let mut stopped = Convergence::new(1.0);
        stopped.look(25, 0.5);
        let mut straight = stopped.clone();
        assert!(stopped.look(40, 0.3));
        assert_eq!((stopped.best, stopped.best_step), (0.3, 40));
        for i in 2..2 + PATIENCE {
            assert!(!stopped.is_reached());
            stopped.look(i * VALIDATE_EVERY, 0.5);
            straight.look(i * VALIDATE_EVERY, 0.5);
        }
        assert!(stopped.is_reached() && straight.is_reached());
    }
}
