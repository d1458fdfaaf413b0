//! How the program ends.

use std::io::Write;
use std::process::ExitCode;

/// The end of `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0    done, or stopped by SIGINT or SIGTERM after the running work was finished
  1    it could not be done
  2    the command line, the environment or a setting is wrong
  130  a second SIGINT or SIGTERM ended it at once";

/// The code after a second signal: what shells say of a program that SIGINT ended.
pub(crate) const INTERRUPTED: i32 = 130;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// The user has to change something about the call.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// Anything else.
    pub(crate) fn other(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, error: error.into() }
    }

    /// Tells the user, on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        // Where standard error is closed, the code is left.
        let _ = writeln!(std::io::stderr().lock(), "error: {:#}", self.error);
        ExitCode::from(self.code)
    }
}
