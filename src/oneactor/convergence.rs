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
    pub fn look(&mut self, step: usize, validation: f64) -> bool {
        if validation < self.reference * (1.0 - LEAST_IMPROVEMENT) {
            self.reference = validation;
            self.looks_without_improvement = 0;
        } else {
            self.looks_without_improvement += 1;
        }
        let is_best = validation < self.best;
        if is_best {
            (self.best, self.best_step) = (validation, step);
        }
        is_best
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
        for i in 0..PATIENCE {
            assert!(!convergence.is_reached());
            convergence.look(50 + i, 0.4999);
        }
        assert!(convergence.is_reached());
        assert_eq!(convergence.best_step, 50);
    }
}
