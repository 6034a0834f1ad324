//! Runs jobs one after the other. First every job is prepared, which checks all that can be checked without loading
//! weights; only then does the first job start.

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

/// Prepares all jobs, then runs them one after the other, in the order that loads models least often. A job that fails
/// does not stop the others; a signal does.
///
/// # Errors
/// With one job, the error of that job. With several jobs, an error that says how many failed; its kind is `Partial` if
/// other jobs succeeded.
pub fn work_off<J: Writes, P: Prepared>(
    session: &Session,
    planned: Vec<Planned<J>>,
    prepare: impl Fn(&Session, J) -> Result<P>,
    execute: impl Fn(&Session, P) -> Result<()>,
) -> Result<()> {
    let jobs = planned.len();
    let mut failures = Failures {
        jobs,
        called: P::JOBS,
        errors: Vec::new(),
    };
    let mut ready: Vec<Ready<P>> = Vec::new();
    let claims = Claims::default();
    for Planned { job, place } in apart(planned) {
        session.signals.check()?;
        let prepared = job.and_then(|job| {
            guarded(session.command(), || {
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
        let result = guarded(session.command(), || {
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
                let line = format!("peak of the GPU's memory in this job: {gigabytes:.2} GB");
                session.reporter.detail(&line);
            }
            (None, Some(bytes)) if !session.dry_run => {
                let line = format!("peak of the process's memory so far: {}", human_size(bytes));
                session.reporter.detail(&line);
            }
            _ => {}
        }
        if let Err(error) = result {
            failures.add(session, error, place)?;
        }
    }
    failures.into_result()
}

/// Checks that the files of a job can be written and its networks can be loaded, unless the job is done already.
///
/// # Errors
/// When a file cannot be written, or a network cannot be loaded.
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

/// The errors of a run.
struct Failures {
    /// How many jobs the run has.
    jobs: usize,
    /// What the jobs are called.
    called: &'static str,
    errors: Vec<anyhow::Error>,
}

impl Failures {
    /// Records a failed job. With several jobs its error is printed at once; the error of an only job is left to
    /// `main`, so that it is printed once.
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
                // The place of a download is the name of the model, with which the error may begin.
                let is_told = error.to_string().starts_with(&place);
                let error = if is_told { error } else { error.context(place) };
                if self.jobs > 1 {
                    session.reporter.error(&format!("{error:#}"));
                }
                error
            }
            None => error,
        };
        self.errors.push(error);
        Ok(())
    }

    fn into_result(mut self) -> Result<()> {
        let (jobs, failed) = (self.jobs, self.errors.len());
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
        let called = self.called;
        let message = format!("{failed} of {jobs} {called} failed, see above");
        Err(Error::new(kind, message).into())
    }
}
