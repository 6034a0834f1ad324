//! Going on where an interrupted run stopped: its checkpoint and its log.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::picture::differences;
use super::super::session::Session;
use super::layout::Layout;
use crate::config::batch::Settings;
use crate::io::atomic::write_bytes_atomically;
use crate::io::text;
use crate::oneactor::learner::Learner;

/// Goes on from the checkpoint of an interrupted run with the same settings.
pub(super) fn resume(
    session: &Session,
    layout: &Layout,
    settings: &Settings,
    learner: &mut dyn Learner,
) -> Result<()> {
    let Ok(text) = text::read(&layout.checkpoint_config()) else {
        return Ok(());
    };
    let there: Settings = serde_json::from_str(&text).unwrap_or_default();
    let differences = differences(&there, settings);
    if !differences.is_empty() {
        session.reporter.note(&format!(
            "starting anew: the interrupted run had other settings ({})",
            differences.join("; ")
        ));
        return Ok(());
    }
    learner.restore(&layout.checkpoint())?;
    session
        .reporter
        .note(&format!("going on after step {}", learner.steps_taken()));
    Ok(())
}

/// The settings go first and come last: a checkpoint without settings is never read.
pub(super) fn save_checkpoint(
    layout: &Layout,
    settings: &Settings,
    learner: &dyn Learner,
) -> Result<()> {
    let text = serde_json::to_string(settings)?;
    let config = layout.checkpoint_config();
    if text::read(&config).is_ok_and(|there| there != text) {
        fs::remove_file(&config).with_context(|| format!("removing {}", config.display()))?;
    }
    write_bytes_atomically(&layout.checkpoint(), &learner.checkpoint()?)?;
    write_bytes_atomically(&config, text.as_bytes())
}

/// The log with the rows up to step `steps`, open for more.
pub(super) fn open_log(path: &Path, steps: usize) -> Result<File> {
    let text = text::read(path).unwrap_or_default();
    let is_kept = |line: &&str| {
        let row: Option<Value> = serde_json::from_str(line).ok();
        let step = row.and_then(|row| row["step"].as_u64());
        step.is_some_and(|step| (1..=steps as u64).contains(&step))
    };
    let kept: Vec<String> = text
        .lines()
        .filter(is_kept)
        .map(|line| format!("{line}\n"))
        .collect();
    write_bytes_atomically(path, kept.concat().as_bytes())?;
    OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}
