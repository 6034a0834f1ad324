//! Ctrl-C and SIGTERM are noticed between steps, so that nothing is left half-written.
//!
//! The signal handlers run in a thread of their own. A signal that interrupts a matrix product
//! corrupts memory: oneDNN's AVX-512 kernels move the stack pointer into a buffer on the heap, and
//! Linux writes the handler's frame, which takes some kilobytes, below the stack pointer.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::{io, ptr, thread};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::{Error, ErrorKind};

/// After this call a write beyond the file size limit (`ulimit -f`) fails like a write to a full
/// disk: the incomplete file is removed, and the user gets an error. By default the system kills
/// the process.
///
/// # Errors
/// When the system refuses a handler.
pub fn survive_file_size_limit() -> Result<()> {
    // The signal itself is ignored: the failed write reports the error.
    flag::register(SIGXFSZ, Arc::default()).context("listening for signals")?;
    Ok(())
}

/// The signals that the process listens for; empty until [`Signals::listen`] is called.
static LISTENING: OnceLock<Signals> = OnceLock::new();

/// Returns an error if the process has been asked to stop. For code without access to a
/// [`Signals`], such as downloads.
///
/// # Errors
/// As [`Signals::check`].
pub fn check() -> Result<()> {
    LISTENING.get().map_or(Ok(()), Signals::check)
}

/// The signals received so far.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    /// Starts to listen. A second signal of the same kind ends the process at once.
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

    /// Returns an error if a signal has been received. Call it between steps.
    ///
    /// # Errors
    /// When a signal has been received; the error's kind says which.
    pub fn check(&self) -> Result<()> {
        let stopped = |kind, by: &str| {
            let message = format!(
                "stopped by {by}; what was finished is kept, and the same command continues from there"
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

/// Starts a thread for the handlers, and blocks the signals in this thread and in all threads that
/// it starts later.
fn leave_to_another_thread() -> io::Result<()> {
    // The new thread inherits this thread's signal mask, in which nothing is blocked yet.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(|| {
            loop {
                thread::park();
            }
        })?;
    // SAFETY: the first call initialises the set, which lives until after the last call.
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
