//! What `--method consistory` does not go with.

use anyhow::Result;

use crate::cli::{Method, SampleFlags};
use crate::error::usage;

/// Refuses flags that have no place beside pictures which are drawn along.
pub(super) fn check(flags: &SampleFlags) -> Result<()> {
    if flags.method != Some(Method::Consistory) {
        return Ok(());
    }
    let is_given = |flag: Option<bool>| flag == Some(true);
    let shortcuts = &flags.shortcuts;
    for (flag, is_given, why) in [
        (
            "--controlnet",
            flags.control.controlnet.is_some(),
            "would keep the anchors to the picture too",
        ),
        (
            "--guidance-interval",
            shortcuts.guidance_interval.is_some(),
            "leaves out rows that are shared",
        ),
        (
            "--feature-reuse",
            shortcuts.feature_reuse.is_some_and(|every| every != 1),
            "leaves out layers that are shared",
        ),
        (
            "--long-prompts",
            is_given(flags.drawing.long_prompts),
            "makes prompts longer than that of the anchors, which pass beside the picture",
        ),
    ] {
        if is_given {
            return Err(usage(format!(
                "{flag} {why}: leave it out with --method consistory"
            )));
        }
    }
    Ok(())
}
