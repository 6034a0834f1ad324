//! When tuning has learnt what there is: a criterion on a fixed set of (t, ε) pairs. The loss of a
//! single step is noise, because every step draws its own.

use serde::{Deserialize, Serialize};

/// How often the criterion is looked at, in steps.
pub const VALIDATE_EVERY: usize = 25;
/// An improvement smaller than this part of the best value is none.
const LEAST_IMPROVEMENT: f64 = 0.002;
/// So many looks in a row without improvement end the tuning.
const PATIENCE: usize = 12;

/// The best value so far and how long ago it was.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Convergence {
    /// The smallest validation loss.
    pub best: f64,
    /// The step that had it.
    pub best_step: usize,
    /// The value that patience counts from: the last one that was a real improvement.
    reference: f64,
    looks_without_improvement: usize,
}

impl Convergence {
    /// Begins with the loss of the projector that has learnt nothing.
    pub fn new(initial: f64) -> Self {
        Convergence {
            best: initial,
            best_step: 0,
            reference: initial,
            looks_without_improvement: 0,
        }
    }

    /// Takes the validation loss after `step` and says whether it is the best.
    ///
    /// The last step of a tuning is looked at too, wherever it lies. It does not count for patience, so that a tuning
    /// that continues from there converges when it would have without the stop.
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

    /// Whether there is nothing more to learn.
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
