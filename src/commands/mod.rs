//! The subcommands, one a file: jobs in, files out.
//!
//! All of them work a batch off in the same way, see `work_off`: every job is prepared, which
//! checks all that can be checked without loading weights, and only then is the first one done.

mod ablate;
mod changes;
mod claims;
mod control;
mod doctor;
mod draw;
mod evaluate;
mod fetch;
mod gallery;
mod generate_base;
mod help_files;
mod html_page;
mod image_prompt;
mod inspect;
mod kernels;
mod located;
mod manifest;
mod merge;
mod order;
mod outlook;
mod parameters_text;
mod picture;
mod preview;
mod sample;
mod session;
mod sheet;
mod stale;
mod story;
mod sweep;
mod toy_words;
mod tune;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::{Cli, Command};
use crate::config::{Planned, Writes};
use crate::error::{Error, ErrorKind, device, kind_of, runtime, usage};
use crate::io::hub::human_size;
use crate::io::writable::check_files;
use crate::libtorch::peak_resident_bytes;
use claims::{Claims, apart};
use order::{Loads, Ready, ordered};
use session::Session;

/// Does what the command line says.
///
/// # Errors
/// With the kind that decides the exit code.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::GenerateBase(line) => generate_base::run(line),
        Command::Tune(line) => tune::run(line),
        Command::Sample(line) => sample::run(line),
        Command::Story(line) => story::run(line),
        Command::Ablate(line) => ablate::run(line),
        Command::Sweep(line) => sweep::run(line),
        Command::Evaluate(line) => evaluate::run(line),
        Command::Merge(flags) => merge::run(flags),
        Command::Fetch(flags) => fetch::run(flags),
        Command::Gallery(flags) => gallery::run(flags),
        Command::Doctor(flags) => doctor::run(flags),
        Command::Inspect(flags) => inspect::run(flags),
        Command::Schema(flags) => help_files::schema(flags),
        Command::Completions(flags) => help_files::completions(flags),
        Command::Man(flags) => help_files::man(flags),
    }
}

/// A job that is ready to be done.
trait Prepared {
    /// Whether its files are those that it reads.
    fn only_reads(&self) -> bool {
        false
    }

    /// The files that it would write, those that are there and finished left out; of a job that writes
    /// none, those that it reads.
    fn files(&self) -> Vec<PathBuf>;

    /// Refuses networks that could not be loaded.
    ///
    /// # Errors
    /// Names file and tensor.
    fn check_networks(&self) -> Result<()> {
        Ok(())
    }

    /// Its resolved settings, for `--dry-run` and `--verbose`.
    fn settings(&self) -> serde_json::Value;

    /// What it loads, so that jobs which load the same are done one after the other.
    fn loads(&self) -> Loads {
        Loads::default()
    }

    /// What `--dry-run` tells: what would be written.
    ///
    /// # Errors
    /// When something is found that would go wrong, or not as it is meant.
    fn foresee(&self, session: &Session) -> Result<()> {
        session.list_planned(&self.files());
        Ok(())
    }
}

/// Prepares all jobs, then does them one after the other, in the order in which the least is loaded. A job that fails
/// does not stop the others; a signal does.
///
/// # Errors
/// That of the only job; with several jobs, one that tells how many failed, of kind `Partial`
/// when others were done.
fn work_off<J: Writes, P: Prepared>(
    session: &Session,
    planned: Vec<Planned<J>>,
    prepare: impl Fn(&Session, J) -> Result<P>,
    execute: impl Fn(&Session, P) -> Result<()>,
) -> Result<()> {
    let jobs = planned.len();
    let mut failures = Failures::default();
    let mut ready: Vec<Ready<P>> = Vec::new();
    let claims = Claims::default();
    for Planned { job, place } in apart(planned) {
        session.signals.check()?;
        let prepared = job.and_then(|job| {
            guarded(|| {
                let folders = job.locked_folders();
                let mut claim = claims.take(session, &job)?;
                let prepared = prepare(session, job)?;
                check_work(&prepared)?;
                session.tell_all_notes();
                claims.rest(&mut claim, folders);
                Ok((prepared, claim))
            })
        });
        match prepared {
            Ok((job, claim)) => ready.push(Ready { job, place, claim }),
            Err(error) => failures.add(session, error, place)?,
        }
    }
    let ready = ordered(session, ready);
    let last = ready.len();
    for (number, Ready { job, place, claim }) in (1..).zip(ready) {
        session.signals.check()?;
        session.is_last_job.set(number == last);
        session.reset_peak_memory();
        if let Some(place) = &place {
            session.reporter.note(&format!("{place}:"));
        }
        session
            .reporter
            .detail(&format!("settings: {}", job.settings()));
        let result = guarded(|| {
            let mut claim = claim;
            claims.renew(session, &mut claim)?;
            if session.dry_run {
                job.foresee(session)
            } else {
                execute(session, job)
            }
        });
        session.reporter.finish();
        match (session.peak_memory(), peak_resident_bytes()) {
            (Some(bytes), _) => {
                let gigabytes = bytes as f64 / 1e9;
                let line = format!("most memory of the GPU in use: {gigabytes:.2} GB");
                session.reporter.detail(&line);
            }
            (None, Some(bytes)) if !session.dry_run => {
                let line = format!("most memory of the process so far: {}", human_size(bytes));
                session.reporter.detail(&line);
            }
            _ => {}
        }
        if let Err(error) = result {
            failures.add(session, error, place)?;
        }
    }
    failures.into_result(jobs)
}

/// Finds out what would stop the job later, unless nothing is left to do.
///
/// # Errors
/// When a file could not be written, or a network not be loaded.
fn check_work<P: Prepared>(prepared: &P) -> Result<()> {
    let files = prepared.files();
    if files.is_empty() {
        return Ok(());
    }
    if !prepared.only_reads() {
        check_files(&files)?;
    }
    prepared.check_networks()
}

/// The errors of a batch.
#[derive(Default)]
struct Failures {
    errors: Vec<anyhow::Error>,
}

impl Failures {
    /// Takes note of a failed job, and reports it at once where it is one of a batch file's.
    fn add(
        &mut self,
        session: &Session,
        error: anyhow::Error,
        place: Option<String>,
    ) -> Result<()> {
        if matches!(kind_of(&error), ErrorKind::Interrupt | ErrorKind::Terminate) {
            return Err(error);
        }
        let error = match place {
            Some(place) => {
                let error = error.context(place);
                session.reporter.error(&format!("{error:#}"));
                error
            }
            None => error,
        };
        self.errors.push(error);
        Ok(())
    }

    fn into_result(mut self, jobs: usize) -> Result<()> {
        let failed = self.errors.len();
        if failed == 0 {
            return Ok(());
        }
        if jobs == 1 {
            return Err(self.errors.remove(0));
        }
        let is_quality = |error: &anyhow::Error| kind_of(error) == ErrorKind::Quality;
        let kind = if failed == jobs || self.errors.iter().all(is_quality) {
            kind_of(&self.errors[0])
        } else {
            ErrorKind::Partial
        };
        Err(Error::new(kind, format!("{failed} of {jobs} jobs failed, see above")).into())
    }
}

/// Turns a panic into an error, and what libtorch says of a full memory into the way out: it comes as a
/// panic or, rarely, as an error.
fn guarded<T>(action: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(action));
    std::panic::set_hook(hook);
    match result {
        Ok(Err(error)) if is_of_full_memory(&error) => Err(out_of_memory()),
        Ok(result) => result,
        Err(panic) => Err(error_of_panic(panic.as_ref())),
    }
}

/// Whether an error is libtorch's own about memory; others may quote a prompt.
fn is_of_full_memory(error: &anyhow::Error) -> bool {
    let torch = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<tch::TchError>());
    torch.is_some_and(|error| tells_of_full_memory(&error.to_string()))
}

/// Whether libtorch says that memory is full, of a GPU or of the host.
fn tells_of_full_memory(message: &str) -> bool {
    let lower = message.to_lowercase();
    [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
    ]
    .iter()
    .any(|phrase| lower.contains(phrase))
}

fn out_of_memory() -> anyhow::Error {
    device(
        "out of memory: try --dtype fp16, a smaller --batch-size (in tune: --micro-batch 1, in ablate: \
         --tune-batch-size 1), --vae-tiling with a --vae-tile-size below the picture's size, --cpu-offload, or smaller \
         pictures (--width, --height)",
    )
}

fn error_of_panic(panic: &(dyn Any + Send)) -> anyhow::Error {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    if tells_of_full_memory(message) {
        return out_of_memory();
    }
    // libtorch's words, where `located` has foreseen less than all that is asked of the kernel.
    if message.contains("No available kernel") {
        return usage(
            "--attention: the kernel cannot compute the attention of this job, expected auto or math",
        );
    }
    let line = message.lines().next().unwrap_or_default();
    runtime(format!("internal error, please report it: {line}"))
}

/// Creates a folder and those above it.
fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| {
        Error::new(
            ErrorKind::Usage,
            format!("creating the folder {}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::usage;

    #[test]
    fn a_full_memory_is_reported_in_one_line_with_the_way_out() {
        // As libtorch words them: c10/cuda/CUDACachingAllocator.cpp, c10/cuda/CUDAException.cpp for what
        // the driver itself refuses, c10/core/impl/alloc_cpu.cpp for a CPU.
        let texts = [
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.69 GiB of \
             which 1.20 GiB is free. Process 7 has 22.4 GiB memory in use. …\nException raised from …",
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported …",
            "[enforce fail at alloc_cpu.cpp:128] data. DefaultCPUAllocator: can't allocate memory: you \
             tried to allocate 99999999999999 bytes. Error code 12 (Cannot allocate memory)\n…",
        ];
        for text in texts {
            let torch = tch::TchError::Torch(text.to_owned());
            let panicked = guarded::<()>(|| Err::<(), _>(&torch).map_err(|e| panic!("{e:?}")));
            let returned = guarded::<()>(|| Err(tch::TchError::Torch(text.to_owned()).into()));
            for result in [panicked, returned] {
                let error = result.expect_err("it failed");
                assert_eq!(kind_of(&error).exit_code(), 4, "{error:#}");
                let line = format!("{error:#}");
                for flag in [
                    "--dtype",
                    "--batch-size",
                    "--micro-batch",
                    "--vae-tiling",
                    "--cpu-offload",
                ] {
                    assert!(line.contains(flag), "{flag}: {line}");
                }
                assert_eq!(line.lines().count(), 1);
            }
        }
        let quoted = guarded::<()>(|| Err(usage("the prompt \"out of memory\" is no subject")));
        assert_eq!(kind_of(&quoted.expect_err("it failed")), ErrorKind::Usage);
    }
}
