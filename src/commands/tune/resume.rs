//! Continues a run that was interrupted or stopped at `--max-steps`: its checkpoint and its log.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::config::batch::Settings;
use crate::io::atomic::write_bytes_atomically;
use crate::io::text;
use crate::method::learner::Learner;
use crate::records::ActorFolder;
use crate::run::session::Session;

/// Continues from the checkpoint of a run with the same settings, except that its `--max-steps` may have been smaller.
pub(super) fn resume(
    session: &Session,
    results: ActorFolder,
    settings: &Settings,
    learner: &mut dyn Learner,
) -> Result<()> {
    let Some(obstacles) = results.obstacles(settings) else {
        return Ok(());
    };
    if !obstacles.is_empty() {
        session.reporter.note(&format!(
            "starting again with step 1, because the interrupted run had other settings ({})",
            obstacles.join("; ")
        ));
        return Ok(());
    }
    learner.restore(&results.checkpoint())?;
    session
        .reporter
        .note(&format!("continuing after step {}", learner.steps_taken()));
    Ok(())
}

/// Removes the checkpoint. The settings are removed first, because a checkpoint without settings is never read.
pub(super) fn remove_checkpoint(results: ActorFolder) {
    for path in [results.checkpoint_settings(), results.checkpoint()] {
        let _ = fs::remove_file(path);
    }
}

/// Writes the checkpoint. Old settings are removed first and the new settings are written last, because a checkpoint
/// without settings is never read.
pub(super) fn save_checkpoint(
    results: ActorFolder,
    settings: &Settings,
    learner: &dyn Learner,
) -> Result<()> {
    let text = serde_json::to_string(settings)?;
    let config = results.checkpoint_settings();
    if text::read(&config).is_ok_and(|there| there != text) {
        fs::remove_file(&config).with_context(|| format!("removing {}", config.display()))?;
    }
    write_bytes_atomically(&results.checkpoint(), &learner.checkpoint()?)?;
    write_bytes_atomically(&config, text.as_bytes())
}

/// Opens the log for appending, after dropping the rows after step `steps`.
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
