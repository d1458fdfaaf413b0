//! How the program ends.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The end of `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0    done; a worker also when SIGINT or SIGTERM stopped it after the running work was finished
  1    it could not be done, or what was waited for did not come
  2    the command line, the environment or a setting is wrong
  130  a second SIGINT or SIGTERM ended a worker at once";

/// The code after a second signal: what shells say of a program that SIGINT ended.
pub(crate) const INTERRUPTED: i32 = 130;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// None where nobody is left to be told.
    error: Option<anyhow::Error>,
}

impl Failure {
    /// The user has to change something about the call.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: Some(error.into()) }
    }

    /// Anything else.
    pub(crate) fn other(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, error: Some(error.into()) }
    }

    /// Standard output does not take what is written. That its reader has seen enough, as `head` has, is no news.
    pub(crate) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: 1, error: None };
        }
        Self::other(anyhow::Error::new(error).context("cannot write to standard output"))
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Tells the user, on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if self.error.is_some() {
            // Where standard error is closed, the code is left.
            let _ = writeln!(io::stderr().lock(), "error: {self}");
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.as_ref().map_or(Ok(()), |error| write!(f, "{error:#}"))
    }
}
