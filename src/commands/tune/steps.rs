//! The steps of a tuning, with a row in the log for each, progress, checkpoints and the summary at the end.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Tuning;
use super::resume::{open_log, save_checkpoint};
use crate::method::convergence::Convergence;
use crate::method::learner::{Learner, StepReport};
use crate::progress::STEPS;
use crate::records::tune_record::TuneResult;
use crate::run::session::Session;
use crate::wording::counted;

/// A checkpoint is written after every so many steps, and after the last step.
const CHECKPOINT_EVERY: usize = 50;

/// Takes steps until the tuning converges or reaches `--max-steps`. `untrained` is the validation loss, on the fixed
/// pairs, before the first step.
pub(super) fn learn(
    session: &Session,
    tuning: &Tuning,
    learner: &mut dyn Learner,
    untrained: f64,
) -> Result<()> {
    let results = tuning.job.results();
    let mut log = open_log(&results.log(), learner.steps_taken())?;
    let steps = tuning.job.max_steps.saturating_sub(learner.steps_taken());
    session.reporter.start_at_most("tuning", steps, STEPS);
    while !learner.is_done() {
        let started = Instant::now();
        let report = learner.step()?;
        let row = row(&report, started.elapsed().as_secs_f64());
        writeln!(log, "{row}").with_context(|| format!("writing {}", results.log().display()))?;
        // The validation loss is shown, because the loss of single steps jumps: each step draws its own noise.
        let best = learner.convergence().best;
        let message = format!("validation loss {untrained:.4} → {best:.4}");
        session.reporter.advance(&message);
        let stopped = session.signals.check();
        let is_due = report.step.is_multiple_of(CHECKPOINT_EVERY) || learner.is_done();
        if stopped.is_err() || is_due {
            save_checkpoint(results, &tuning.settings, learner)?;
        }
        stopped?;
    }
    session.reporter.finish();
    Ok(())
}

fn row(report: &StepReport, seconds: f64) -> Value {
    let mut row = json!({
        "step": report.step,
        "loss": report.losses.loss,
        "validation": report.validation,
        "seconds": seconds,
    });
    for (name, loss) in &report.losses.parts {
        row[*name] = json!(loss);
    }
    row
}

/// Whether the same command with more steps continues from here. `ablate` does not continue, because all of its columns
/// must be tuned equally, and `story` does not, because its pictures would still show the earlier actor.
pub(super) fn can_continue(session: &Session, learner: &dyn Learner) -> bool {
    !learner.convergence().is_reached() && session.command() == "tune"
}

/// Reports how the tuning has ended, and returns it for the record.
pub(super) fn summary(session: &Session, tuning: &Tuning, learner: &dyn Learner) -> TuneResult {
    let steps = learner.steps_taken();
    let convergence = learner.convergence();
    let mut line = ending(steps, convergence);
    if can_continue(session, learner) {
        let without = if tuning.job.overwrite {
            "without --overwrite and "
        } else {
            ""
        };
        line += &format!(
            "; the same command {without}with --max-steps {} continues from here",
            2 * steps
        );
    }
    session.reporter.note(&line);
    TuneResult {
        steps: Some(steps),
        best_step: Some(convergence.best_step),
        best_validation: Some(convergence.best),
        converged: Some(convergence.is_reached()),
    }
}

fn ending(steps: usize, convergence: &Convergence) -> String {
    let best = convergence.best_step;
    if convergence.is_reached() {
        let steps = counted(steps, "step", "steps");
        format!("converged after {steps} (best: step {best})")
    } else {
        format!(
            "stopped at --max-steps {steps} before converging (best: step {best}): more steps usually give a closer \
             likeness"
        )
    }
}
