//! What is being done, on stderr: a bar on a terminal, plain lines elsewhere, nothing with
//! `--quiet`. Warnings and errors are always shown.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::streams::tell;

/// Where progress goes.
#[derive(Debug)]
pub struct Reporter {
    mode: Mode,
    verbose: bool,
    current: RefCell<Option<Task>>,
    /// Warnings that were given.
    warnings: RefCell<HashSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Quiet,
    Lines,
    Bars,
}

/// A task whose steps are counted.
#[derive(Debug)]
struct Task {
    name: String,
    steps: u64,
    done: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    told: Instant,
}

/// Without a terminal a long task tells how far it is this often.
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

    /// A line about what is being done or was found.
    pub fn note(&self, line: &str) {
        if self.mode != Mode::Quiet {
            self.print(line);
        }
    }

    /// A line for `--verbose` only.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            self.print(line);
        }
    }

    /// Something the user should know, though it stops nothing.
    pub fn warn(&self, line: &str) {
        // Jobs, and the columns of an ablation, are checked one by one and share prompts and actors.
        if !self.warnings.borrow_mut().insert(line.to_owned()) {
            return;
        }
        self.print(&format!("warning: {line}"));
    }

    /// Something that went wrong while others go on.
    pub fn error(&self, line: &str) {
        self.print(&format!("error: {line}"));
    }

    /// Starts a task of so many steps; it replaces the one before.
    pub fn start(&self, name: &str, steps: usize) {
        self.finish();
        if self.mode == Mode::Lines {
            tell(name);
        }
        let bar = (self.mode == Mode::Bars).then(|| bar(name, steps as u64));
        *self.current.borrow_mut() = Some(Task {
            name: name.to_owned(),
            steps: steps as u64,
            done: 0,
            bar,
            started: Instant::now(),
            told: Instant::now(),
        });
    }

    /// Counts one more step of the task; `message` stands behind the bar.
    pub fn advance(&self, message: &str) {
        let mut current = self.current.borrow_mut();
        let Some(task) = current.as_mut() else {
            return;
        };
        task.done += 1;
        if let Some(bar) = &task.bar {
            bar.set_message(message.to_owned());
            bar.inc(1);
        } else if self.mode == Mode::Lines && task.told.elapsed() > TELL_EVERY {
            task.told = Instant::now();
            let Task {
                name, done, steps, ..
            } = task;
            tell(&format!("{name}: {done} of {steps} {message}"));
        }
    }

    /// Ends the task and says how long it took.
    pub fn finish(&self) {
        let Some(task) = self.current.borrow_mut().take() else {
            return;
        };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        if self.mode != Mode::Quiet {
            let seconds = task.started.elapsed().as_secs_f64();
            let Task {
                name, done, steps, ..
            } = task;
            tell(&format!("{name}: {done} of {steps} in {seconds:.1} s"));
        }
    }

    /// Does something that prints, with the bar out of the way.
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

fn bar(name: &str, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let template = "{prefix} {wide_bar} {pos}/{len} {elapsed}<{eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.tick();
    bar
}
