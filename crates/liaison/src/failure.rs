//! What a failed call means to the worker.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The stable reason of the server; empty where it gave none.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// Which of the worker's tokens the call was made with, where that is known.
    pub(crate) token: Option<u64>,
}

impl Failure {
    /// A failure that no server reported.
    pub(crate) fn local(code: Code, message: impl Into<String>) -> Self {
        Self { code, reason: String::new(), message: message.into(), retry_after: None, token: None }
    }

    /// The same failure of a call that was made with one of the worker's tokens.
    pub(crate) fn with_token(self, token: u64) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Whether the same call may succeed soon, without anybody doing anything about it.
    pub(crate) fn is_transient(&self) -> bool {
        match self.code {
            Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable => true,
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => false,
        }
    }

    /// Whether the token is the trouble.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.code, Code::Unauthenticated | Code::PermissionDenied)
    }

    /// Whether a completion came too late to count.
    pub(crate) fn is_stale(&self) -> bool {
        match self.code {
            Code::Aborted => self.reason == "STALE_CLAIM",
            Code::FailedPrecondition | Code::NotFound => true,
            _ => false,
        }
    }

    /// The code in the spelling of the protocol, such as `UNAUTHENTICATED`.
    pub(crate) fn code_name(&self) -> &'static str {
        match self.code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            message: match status.source() {
                // The transport's own words name the cause last.
                Some(cause) => chain(cause),
                None => status.message().to_owned(),
            },
            token: None,
        }
    }
}

/// An error and its causes, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn reads_reason_and_retry_delay() {
        let mut details = ErrorDetails::new();
        details.set_error_info("OVERLOADED", "agentrouter", std::collections::HashMap::new());
        details.set_retry_info(Some(Duration::from_secs(3)));
        let failure = Failure::from(Status::with_error_details(Code::Unavailable, "busy", details));
        assert_eq!(failure.reason, "OVERLOADED");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(failure.message, "busy");
        assert!(failure.is_transient() && !failure.is_denied() && !failure.is_stale());
    }

    #[test]
    fn only_a_stale_claim_ends_an_aborted_completion() {
        assert!(!Failure::from(Status::aborted("serialization failure")).is_stale());
        let mut details = ErrorDetails::new();
        details.set_error_info("STALE_CLAIM", "agentrouter", std::collections::HashMap::new());
        assert!(Failure::from(Status::with_error_details(Code::Aborted, "late", details)).is_stale());
        assert!(Failure::from(Status::not_found("gone")).is_stale());
    }
}
