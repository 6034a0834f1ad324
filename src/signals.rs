//! Ctrl-C and SIGTERM: noticed between steps, so that nothing is left half-written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, ErrorKind};

/// What the process listens for, once it does.
static LISTENING: OnceLock<Signals> = OnceLock::new();

/// Whether the process has been asked to stop, for waits that no session reaches: downloads.
///
/// # Errors
/// As [`Signals::check`].
pub fn check() -> Result<()> {
    LISTENING.get().map_or(Ok(()), Signals::check)
}

/// What has been received so far.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on. A second signal of the same kind ends the process at once.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> Result<Self> {
        let signals = Self::default();
        for (signal, kind, received) in [
            (SIGINT, ErrorKind::Interrupt, &signals.interrupted),
            (SIGTERM, ErrorKind::Terminate, &signals.terminated),
        ] {
            let code = i32::from(kind.exit_code());
            flag::register_conditional_shutdown(signal, code, Arc::clone(received))
                .and_then(|_| flag::register(signal, Arc::clone(received)))
                .context("listening for signals")?;
        }
        Ok(LISTENING.get_or_init(|| signals).clone())
    }

    /// To be called between steps.
    ///
    /// # Errors
    /// When a signal has been received; the kind says which.
    pub fn check(&self) -> Result<()> {
        let stopped = |kind, by: &str| {
            let message = format!(
                "stopped by {by}; what was finished is kept, and the same command goes on from there"
            );
            Err(Error::new(kind, message).into())
        };
        if self.interrupted.load(Ordering::Relaxed) {
            return stopped(ErrorKind::Interrupt, "Ctrl-C");
        }
        if self.terminated.load(Ordering::Relaxed) {
            return stopped(ErrorKind::Terminate, "SIGTERM");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn a_received_signal_is_told_by_its_kind() {
        let signals = Signals::default();
        assert!(signals.check().is_ok());
        signals.terminated.store(true, Ordering::Relaxed);
        let error = signals.check().expect_err("SIGTERM was received");
        assert_eq!(kind_of(&error), ErrorKind::Terminate);
        signals.interrupted.store(true, Ordering::Relaxed);
        let error = signals.check().expect_err("SIGINT was received");
        assert_eq!(kind_of(&error), ErrorKind::Interrupt);
    }
}
