//! What is known of a tuning before it is done.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::super::outlook::{Measured, Outlook};
use super::layout::Layout;
use super::resume::is_resumed;
use super::{Tuning, choice, kind, method};
use crate::config::TuneJob;

impl Tuning {
    /// Its sentences, steps and memory.
    ///
    /// # Errors
    /// When a file of the model is missing.
    pub(in super::super) fn outlook(&self) -> Result<Outlook> {
        let mut outlook = Outlook::of(&self.model);
        if self.is_finished {
            return Ok(outlook);
        }
        let facts = &self.base.facts;
        for sentence in kind(self.job.kind).prompts(&facts.base_words) {
            let tokens = self.model.tokenizers.plain_tokens(&sentence)?;
            outlook.add("sentence", tokens, &facts.base_words);
        }
        let (rows, at_once) = method::rows(&self.job, self.num_auxiliary);
        let layout = Layout::of(&self.job);
        let log = layout.log();
        let (logged, each) = earlier_steps(&log);
        let taken = match self.goes_on(&layout) {
            true => logged,
            false => 0,
        };
        let steps = self.job.max_steps.saturating_sub(taken);
        outlook.add_tuning((facts.width, facts.height), steps, rows, at_once)?;
        outlook.measured = each.map(|seconds| Measured {
            seconds: seconds * steps as f64,
            source: format!("the steps in {}; tuning may end earlier", log.display()),
        });
        Ok(outlook)
    }

    /// Whether it goes on from a checkpoint: `--overwrite` redoes what has come to its end.
    fn goes_on(&self, layout: &Layout) -> bool {
        let is_redone = self.job.overwrite && layout.config().is_file();
        !is_redone && is_resumed(layout, &self.settings)
    }
}

/// Rows of a step, and how many pass the U-Net at once, where the base images are not there yet but how many they
/// will be is known.
pub(in super::super) fn rows_before(job: &TuneJob, images: usize) -> (usize, usize) {
    let auxiliary = job.num_auxiliary.unwrap_or(choice::NUM_AUXILIARY);
    method::rows(job, auxiliary.min(images - 1))
}

/// Steps in the log of an earlier run, and the seconds of one in the middle of these.
fn earlier_steps(log: &Path) -> (usize, Option<f64>) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let rows = text
        .lines()
        .map_while(|line| serde_json::from_str::<Value>(line).ok());
    let mut seconds: Vec<f64> = rows.filter_map(|row| row["seconds"].as_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    (seconds.len(), seconds.get(seconds.len() / 2).copied())
}
