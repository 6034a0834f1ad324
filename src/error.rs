//! What can go wrong, and the exit code each kind of failure has.
//!
//! Every level reports through `anyhow`. Where the exit code depends on the reason, the innermost
//! error is an [`Error`] with an [`ErrorKind`]; `main` finds that error through the chain of
//! contexts with [`kind_of`].

use std::borrow::Cow;
use std::fmt;

/// The kinds of failure that a caller of the program can tell apart. The value is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorKind {
    /// A failure while running that has no kind of its own.
    Runtime = 1,
    /// A flag, a prompt, a batch file or another input is wrong.
    Usage = 2,
    /// The model is missing, damaged, gated or cannot be downloaded.
    Model = 3,
    /// The device is missing or has too little memory.
    Device = 4,
    /// Some jobs of a batch failed and others succeeded.
    Partial = 5,
    /// A quality gate was not passed.
    Quality = 6,
    /// Ctrl-C (SIGINT).
    Interrupt = 130,
    /// SIGTERM.
    Terminate = 143,
}

impl ErrorKind {
    /// The exit code of the process that ends with this kind of failure.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// A message with the kind of failure it describes.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure this is.
    pub kind: ErrorKind,
    /// What was being done, what was found, what was expected, and what to do.
    pub message: String,
}

impl Error {
    /// An error of `kind`. Return it as it is, or wrap it in context.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Makes text from outside the program safe to print on a terminal. Control characters could move
/// the cursor or change what is on the screen, so they are escaped; line ends and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| {
        if is_hidden(c) {
            c.escape_unicode().to_string()
        } else {
            c.to_string()
        }
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// A wrong flag, prompt, batch file or other input (exit code 2).
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Error::new(ErrorKind::Usage, message).into()
}

/// A missing, damaged, gated or unreachable model (exit code 3).
pub fn model(message: impl Into<String>) -> anyhow::Error {
    Error::new(ErrorKind::Model, message).into()
}

/// A missing device or too little memory on it (exit code 4).
pub fn device(message: impl Into<String>) -> anyhow::Error {
    Error::new(ErrorKind::Device, message).into()
}

/// A failure while running that has no kind of its own (exit code 1).
pub fn runtime(message: impl Into<String>) -> anyhow::Error {
    Error::new(ErrorKind::Runtime, message).into()
}

/// The kind of the innermost [`Error`] in the chain, or of an [`Error`] that was given as context;
/// [`ErrorKind::Runtime`] if there is neither.
pub fn kind_of(error: &anyhow::Error) -> ErrorKind {
    error
        .chain()
        .rev()
        .find_map(|cause| cause.downcast_ref::<Error>())
        // The chain hides the type of an error given as context; `anyhow` itself still finds it.
        .or_else(|| error.downcast_ref::<Error>())
        .map_or(ErrorKind::Runtime, |error| error.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_kind_is_found_under_layers_of_context() {
        let error = Err::<(), _>(model("no such file"))
            .context("opening the U-Net")
            .context("loading the model")
            .expect_err("it is an error");
        assert_eq!(kind_of(&error), ErrorKind::Model);
        assert_eq!(kind_of(&error).exit_code(), 3);
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(
            printable("a \u{1b}[2Jcat\r\n\tä"),
            "a \\u{1b}[2Jcat\\u{d}\n\tä"
        );
        assert_eq!(printable("plain"), "plain");
    }

    #[test]
    fn a_kind_given_as_context_is_found_too() {
        let cause = anyhow::anyhow!("disk full").context(Error::new(ErrorKind::Device, "saving"));
        assert_eq!(kind_of(&cause), ErrorKind::Device);
    }

    #[test]
    fn an_error_without_a_kind_is_a_runtime_failure() {
        assert_eq!(kind_of(&anyhow::anyhow!("disk full")), ErrorKind::Runtime);
    }
}
