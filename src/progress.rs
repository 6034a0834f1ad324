//! Progress and messages on stderr: a progress bar on a terminal, plain lines elsewhere, no progress with `--quiet`.
//! Warnings and errors are always shown.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::streams::tell;
use crate::wording::counted;

/// Prints progress and messages.
#[derive(Debug)]
pub struct Reporter {
    mode: Mode,
    verbose: bool,
    current: RefCell<Option<Task>>,
    /// Warnings that were shown already; each is shown once.
    warnings: RefCell<HashSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Quiet,
    Lines,
    Bars,
}

/// What a task counts: the word for one, and for several.
type Unit = (&'static str, &'static str);

/// Steps of denoising or tuning.
pub const STEPS: Unit = ("step", "steps");
/// Pictures.
pub const PICTURES: Unit = ("picture", "pictures");

/// A task whose steps are counted.
#[derive(Debug)]
struct Task {
    name: String,
    /// What is counted: one of it, and several.
    unit: Unit,
    steps: u64,
    done: u64,
    /// Whether the task may end before all steps are done.
    is_limit: bool,
    bar: Option<ProgressBar>,
    started: Instant,
    told: Instant,
}

/// Without a terminal, a long task prints its progress this often.
const TELL_EVERY: Duration = Duration::from_secs(30);

impl Reporter {
    /// A reporter for this run's flags.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let mode = match quiet {
            true => Mode::Quiet,
            false if std::io::stderr().is_terminal() => Mode::Bars,
            false => Mode::Lines,
        };
        Self {
            mode,
            verbose,
            current: RefCell::new(None),
            warnings: RefCell::default(),
        }
    }

    /// Whether only warnings and errors are shown.
    pub fn is_quiet(&self) -> bool {
        self.mode == Mode::Quiet
    }

    /// Prints a line about what is being done or was found; not with `--quiet`.
    pub fn note(&self, line: &str) {
        if self.mode != Mode::Quiet {
            self.print(line);
        }
    }

    /// Prints a line with `--verbose` only.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            self.print(line);
        }
    }

    /// Prints a warning: something that the user should know and that does not stop the run.
    pub fn warn(&self, line: &str) {
        // Several jobs, or columns of an ablation, may share a prompt or an actor and give the same warning.
        if !self.warnings.borrow_mut().insert(line.to_owned()) {
            return;
        }
        self.print(&format!("warning: {line}"));
    }

    /// Prints the error of a job that failed while other jobs continue.
    pub fn error(&self, line: &str) {
        self.print(&format!("error: {line}"));
    }

    /// Starts a task of this many units and ends the previous task.
    pub fn start(&self, name: &str, steps: usize, unit: Unit) {
        self.begin(name, (steps, unit), false);
    }

    /// Starts a task of at most this many units and ends the previous task.
    pub fn start_at_most(&self, name: &str, steps: usize, unit: Unit) {
        self.begin(name, (steps, unit), true);
    }

    fn begin(&self, name: &str, (steps, unit): (usize, Unit), is_limit: bool) {
        self.finish();
        if self.mode == Mode::Lines {
            tell(name);
        }
        let bar = (self.mode == Mode::Bars).then(|| bar(name, steps as u64, is_limit));
        *self.current.borrow_mut() = Some(Task {
            name: name.to_owned(),
            unit,
            steps: steps as u64,
            done: 0,
            is_limit,
            bar,
            started: Instant::now(),
            told: Instant::now(),
        });
    }

    /// Counts one more step of the task; `message` is shown after the bar.
    pub fn advance(&self, message: &str) {
        let mut current = self.current.borrow_mut();
        let Some(task) = current.as_mut() else {
            return;
        };
        task.done += 1;
        if let Some(bar) = &task.bar {
            bar.set_message(behind(message));
            bar.inc(1);
        } else if self.mode == Mode::Lines && task.told.elapsed() > TELL_EVERY {
            task.told = Instant::now();
            tell(&task.line(message));
        }
    }

    /// Ends the task and prints how long it took.
    pub fn finish(&self) {
        let Some(task) = self.current.borrow_mut().take() else {
            return;
        };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        if self.mode != Mode::Quiet {
            let seconds = task.started.elapsed().as_secs_f64();
            tell(&format!("{} in {seconds:.1} s", task.counted()));
        }
    }

    /// Calls `print` with the bar hidden.
    pub fn suspend(&self, print: impl FnOnce()) {
        match self
            .current
            .borrow()
            .as_ref()
            .and_then(|task| task.bar.as_ref())
        {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn print(&self, line: &str) {
        self.suspend(|| tell(line));
    }
}

impl Task {
    /// How much of the task is done.
    fn counted(&self) -> String {
        let (one, several) = self.unit;
        let whole = counted(self.steps as usize, one, several);
        format!("{}: {} of {whole}", self.name, self.done)
    }

    /// The progress so far, and the remaining time at the present speed.
    fn line(&self, message: &str) -> String {
        let each = self.started.elapsed().as_secs_f64() / self.done.max(1) as f64;
        let left = shown_seconds(each * self.steps.saturating_sub(self.done) as f64);
        let about = about(self.is_limit);
        let message = behind(message);
        format!("{}, {about} {left} left{message}", self.counted())
    }
}

/// A message with a comma before it, or nothing if it is empty.
fn behind(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(", {message}")
    }
}

fn about(is_limit: bool) -> &'static str {
    if is_limit { "at most" } else { "about" }
}

/// A time such as `40 s`, `12 min` or `3 h 5 min`.
fn shown_seconds(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match (seconds < 90.0, minutes < 60) {
        (true, _) => format!("{seconds:.0} s"),
        (false, true) => format!("{minutes} min"),
        (false, false) => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn bar(name: &str, steps: u64, is_limit: bool) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let about = about(is_limit);
    let template = format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}}, {about} {{eta}} left{{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.tick();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_long_the_rest_takes() {
        let mut task = Task {
            name: "tuning".to_owned(),
            unit: STEPS,
            steps: 1000,
            done: 100,
            is_limit: true,
            bar: None,
            // 0.4 s a step: 360 s for the other 900.
            started: Instant::now()
                .checked_sub(Duration::from_secs(40))
                .expect("the clock is older"),
            told: Instant::now(),
        };
        let line = task.line("validation loss 0.0610 → 0.0412");
        let expected =
            "tuning: 100 of 1000 steps, at most 6 min left, validation loss 0.0610 → 0.0412";
        assert_eq!(line, expected);
        (task.done, task.is_limit) = (800, false);
        assert_eq!(task.line(""), "tuning: 800 of 1000 steps, about 10 s left");
    }

    #[test]
    fn long_times_are_told_in_minutes_and_hours() {
        let shown = [
            (0.4, "0 s"),
            (89.0, "89 s"),
            (90.0, "2 min"),
            (11_100.0, "3 h 5 min"),
        ];
        for (seconds, expected) in shown {
            assert_eq!(shown_seconds(seconds), expected);
        }
    }
}
