//! What a dry run of `tune` reports.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{Tuning, choice, method};
use crate::backbone::memory::low_rank_widths;
use crate::baselines::dreambooth_lora;
use crate::cli::Method;
use crate::config::TuneJob;
use crate::io::text;
use crate::method::projector::ProjectorConfig;
use crate::run::dry_run::{Forecast, Measured};
use crate::run::located::LocatedModel;

impl Tuning {
    /// The forecast of the tuning: its sentences, steps and memory.
    ///
    /// # Errors
    /// When a file of the model is missing.
    pub(in super::super) fn forecast(&self) -> Result<Forecast> {
        let mut forecast = Forecast::of(&self.model);
        if self.is_finished {
            return Ok(forecast);
        }
        let facts = &self.base.facts;
        for sentence in self.job.kind.prompts(&facts.base_words) {
            let tokens = self.model.tokenizers.plain_tokens(&sentence)?;
            forecast.add("sentence", tokens, &facts.base_words);
        }
        let rows = method::rows(&self.job, self.num_auxiliary);
        let learnt = learnt(&self.job, &self.model, &facts.base_words)?;
        forecast.keeps_text = self.job.method == Method::TextualInversion;
        forecast.tunes_networks = self.job.method != Method::Oneactor;
        let log = self.job.results().log();
        let (logged, each) = earlier_steps(&log);
        let taken = if self.continues() { logged } else { 0 };
        let steps = self.job.max_steps.saturating_sub(taken);
        forecast.add_tuning((facts.width, facts.height), steps, rows, learnt)?;
        forecast.measured = each.map(|seconds| Measured {
            seconds: seconds * steps as f64,
            source: format!("the steps in {}; tuning may end earlier", log.display()),
        });
        Ok(forecast)
    }

    /// Whether the tuning continues from a checkpoint. With `--overwrite`, a finished tuning starts again.
    fn continues(&self) -> bool {
        let results = self.job.results();
        let is_redone = self.job.overwrite && results.record().is_file();
        !is_redone && results.continues(&self.settings)
    }
}

/// The number of values that are learnt for these base words.
///
/// # Errors
/// When a sentence lacks a base word.
pub(in super::super) fn learnt(
    job: &TuneJob,
    model: &LocatedModel,
    words: &[String],
) -> Result<i64> {
    let sentences = job.kind.prompts(words);
    let tokens = model.tokenizers.plain_tokens(&sentences[0])?;
    let mut num_tokens = 0;
    for word in words {
        num_tokens += tokens.word_positions(word)?[0][0].len() as i64;
    }
    let unet = &model.unet;
    let channels = unet.block_out_channels.last();
    Ok(match job.method {
        Method::TextualInversion => num_tokens * unet.cross_attention_dim,
        Method::DreamboothLora => dreambooth_lora::RANK * low_rank_widths(unet)?,
        _ => {
            let projector = ProjectorConfig {
                feature_shape: [*channels.expect("a U-Net has blocks"), 1, 1],
                num_tokens,
                token_width: unet.cross_attention_dim,
                head: method::head(job.preset),
            };
            projector.num_values()
        }
    })
}

/// Rows of a step, and how many of them pass the U-Net at once, for base images that are not drawn yet. `images` is
/// their number.
pub(in super::super) fn rows_before(job: &TuneJob, images: usize) -> (usize, usize) {
    let auxiliary = job.num_auxiliary.unwrap_or(choice::NUM_AUXILIARY);
    method::rows(job, auxiliary.min(images - 1))
}

/// The number of steps in the log of an earlier run, and their median seconds.
fn earlier_steps(log: &Path) -> (usize, Option<f64>) {
    let text = text::read(log).unwrap_or_default();
    let rows = text
        .lines()
        .map_while(|line| serde_json::from_str::<Value>(line).ok());
    let mut seconds: Vec<f64> = rows.filter_map(|row| row["seconds"].as_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    (seconds.len(), seconds.get(seconds.len() / 2).copied())
}
