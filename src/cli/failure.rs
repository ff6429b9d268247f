//! How a command ends: an exit status, and when it is a bad one, what, why and what to do.

use std::fmt;
use std::process::ExitCode;

use crate::figures::text::visible;

/// Exit status of the process.
///
/// Source: the table in `isle help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done; a node: drained and said farewell.
    Done,
    /// Failed.
    Failed,
    /// Wrong use: the command line, a variable or a file says something that means nothing.
    Usage,
    /// The figure asked for does not exist.
    NoSuchFigure,
    /// A second Ctrl+C: did not wait for what was in flight.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoSuchFigure => 3,
            Exit::Interrupted => 130,
        })
    }
}

/// Why a command failed, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Exit status.
    pub exit: Exit,
    /// What failed and why, in one line.
    pub what: String,
    /// What to do, a line each.
    pub advice: Vec<String>,
}

impl Failure {
    /// A failure with nothing to do about it yet.
    #[must_use]
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), advice: Vec::new() }
    }

    /// An error with all its causes.
    #[must_use]
    pub fn of(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut what = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors print their cause themselves.
            if !what.ends_with(&text) {
                what = format!("{what}: {text}");
            }
            cause = error.source();
        }
        Self::new(exit, what)
    }

    /// Adds a line of what to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

impl fmt::Display for Failure {
    /// As it is printed: what is wrong after `isle: `, the rest indented below. Strangers' characters are shown,
    /// not obeyed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "isle: {}", visible(&self.what))?;
        self.advice.iter().try_for_each(|line| write!(f, "\n  {}", visible(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do_and_nothing_that_a_terminal_obeys() {
        let failure = Failure::new(Exit::Failed, "no answer\u{1b}[2J").advise("isle up");
        assert_eq!(failure.to_string(), "isle: no answer\\u{1b}[2J\n  isle up");
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("disk gone"));
        assert_eq!(Failure::of(Exit::Failed, &error).what, "cannot read: disk gone");
    }
}
