//! Jobs one after the other: each is prepared, which checks all that can be checked without loading weights, and only
//! then is the first one done.

use anyhow::Result;

use super::claims::{Claims, apart};
use super::guard::guarded;
use super::order::{Ready, ordered};
use super::prepared::Prepared;
use super::session::Session;
use crate::config::{Planned, Writes};
use crate::error::{Error, ErrorKind, kind_of};
use crate::io::hub::human_size;
use crate::io::writable::check_files;
use crate::libtorch::peak_resident_bytes;

/// Prepares all jobs, then does them one after the other, in the order in which the least is loaded. A job that fails
/// does not stop the others; a signal does.
///
/// # Errors
/// That of the only job; with several jobs, one that tells how many failed, of kind `Partial`
/// when others were done.
pub fn work_off<J: Writes, P: Prepared>(
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
                job.dry_run(session)
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
