//! Shows the progress of a transfer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::fetch::TransferProgress;
use super::settings::HubReport;

/// Counts the bytes that arrive, and draws the bar on a terminal.
pub(super) struct Meter {
    pub(super) received: Arc<AtomicU64>,
    pub(super) announced: Arc<AtomicU64>,
    pub(super) abandoned: Arc<AtomicBool>,
    pub(super) bar: Option<ProgressBar>,
}

impl Meter {
    pub(super) fn new(report: HubReport, name: &str) -> Self {
        let bar = (report == HubReport::Bars).then(|| {
            let style = ProgressStyle::with_template(
                "{msg} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ({eta})",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            let file = name.rsplit('/').next().unwrap_or(name);
            ProgressBar::new(0)
                .with_style(style)
                .with_message(file.to_owned())
        });
        Self {
            received: Arc::default(),
            announced: Arc::default(),
            abandoned: Arc::default(),
            bar,
        }
    }
}

impl TransferProgress for Meter {
    fn begin(&mut self, size: u64, so_far: u64) {
        self.announced.store(size, Ordering::Relaxed);
        self.arrived(so_far);
        if let Some(bar) = &self.bar {
            bar.set_length(size);
        }
    }

    fn arrived(&mut self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}
