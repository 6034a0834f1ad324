//! Running the program as a process beside the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Run, program};

/// Starts the program in `folder`.
pub(super) fn start(folder: &Path, line: &str) -> Child {
    program(folder, line.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Waits until the process ends.
pub(super) fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().expect("the program ends"))
}

/// Waits until `is_time` holds; fails after a time limit.
pub(super) fn wait_until(what: &str, is_time: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_time() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "never: {what}"
        );
        sleep(Duration::from_millis(5));
    }
}

/// Sends a signal, named as for `kill`: `-INT`.
pub(super) fn send(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill works here"
    );
}

/// Runs an action while these processes are stopped, so that none of them ends meanwhile.
pub(super) fn while_paused(children: &[&Child], action: impl FnOnce()) {
    children.iter().for_each(|child| send(child, "-STOP"));
    action();
    children.iter().for_each(|child| send(child, "-CONT"));
}

/// Starts the program, sends a signal as soon as `is_time` holds, and waits for the end.
pub(super) fn interrupted(
    folder: &Path,
    line: &str,
    signal: &str,
    is_time: impl Fn() -> bool,
) -> Run {
    let child = start(folder, line);
    wait_until("the time of the signal", is_time);
    send(&child, signal);
    end(child)
}
