//! Ctrl-C and SIGTERM: noticed between steps, so that nothing is left half-written.
//!
//! Their handlers run in a thread of their own. A signal that interrupts a product of matrices destroys
//! memory: oneDNN's kernels for AVX-512 move the stack pointer into a buffer on the heap, and Linux writes the
//! handler's frame, of some kilobytes, below it.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::{io, ptr, thread};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::{Error, ErrorKind};

/// From now on a write beyond the limit of a file's size (`ulimit -f`) fails like one on a full disk: what was written
/// of the file is removed, and the user is told. The system's default is to kill the process there.
///
/// # Errors
/// When the system refuses a handler.
pub fn survive_file_size_limit() -> Result<()> {
    // Whether it was received does not matter: the write itself reports it.
    flag::register(SIGXFSZ, Arc::default()).context("listening for signals")?;
    Ok(())
}

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
        leave_to_another_thread().context("listening for signals")?;
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

/// Begins a thread for the handlers, and keeps the signals from this thread and those that it begins from now on.
fn leave_to_another_thread() -> io::Result<()> {
    // It has the mask of this thread, in which nothing is blocked yet.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(|| {
            loop {
                thread::park();
            }
        })?;
    // SAFETY: the set is made by the first call, and lives during the last one.
    #[allow(
        unsafe_code,
        reason = "C functions that fill and read a set of signals"
    )]
    let code = unsafe {
        let mut blocked = MaybeUninit::uninit();
        libc::sigemptyset(blocked.as_mut_ptr());
        for signal in [SIGINT, SIGTERM] {
            libc::sigaddset(blocked.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), ptr::null_mut())
    };
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
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
    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_computes_is_not_interrupted() {
        let blocked = thread::spawn(|| {
            leave_to_another_thread().expect("threads can be begun here");
            let status = std::fs::read_to_string("/proc/thread-self/status");
            let status = status.expect("Linux tells a thread's mask");
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            u64::from_str_radix(mask.expect("it is there").trim(), 16)
        });
        let blocked = blocked.join().expect("it ends").expect("hexadecimal");
        for signal in [SIGINT, SIGTERM] {
            assert_ne!(blocked & 1 << (signal - 1), 0, "{signal} in {blocked:x}");
        }
    }
}
