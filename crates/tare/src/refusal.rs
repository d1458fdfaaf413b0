//! What a failed call means, to people and to what follows.

use std::error::Error;
use std::fmt::Write;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::exit::Failure;
use crate::text::plain;

/// The server's sentence with its reason, and a line for every field that is wrong; or why it was not reached.
pub(crate) fn sentence(status: &Status, base_url: &str) -> String {
    if let Some(cause) = status.source() {
        return plain(&format!("{base_url} cannot be reached: {}", chain(cause)));
    }
    let mut text = plain(status.message());
    if text.is_empty() {
        text = plain(&format!("the server answered {:?}", status.code()));
    }
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        let _ = write!(text, " ({})", plain(&info.reason));
    }
    for violation in details.bad_request().iter().flat_map(|request| &request.field_violations) {
        let _ = write!(text, "\n  {}: {}", plain(&violation.field), plain(&violation.description));
    }
    text
}

/// The end of a command whose call failed.
pub(crate) fn failure(status: &Status, base_url: &str) -> Failure {
    Failure::other(anyhow::anyhow!(sentence(status, base_url)))
}

/// Whether the same call may succeed soon, without anybody doing anything about it.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
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

/// An error and its causes, each said once.
fn chain(error: &dyn Error) -> String {
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
    fn every_wrong_field_is_said_and_nothing_reaches_the_terminal() {
        let mut details = ErrorDetails::new();
        details.set_error_info("INVALID_FIELDS", "agentrouter", std::collections::HashMap::new());
        details.add_bad_request_violation("user_id", "must be a user");
        details.add_bad_request_violation("key_id", "is \u{1b}[2Jrequired");
        let status = Status::with_error_details(Code::InvalidArgument, "two fields are wrong", details);
        assert_eq!(
            sentence(&status, "http://x"),
            "two fields are wrong (INVALID_FIELDS)\n  user_id: must be a user\n  key_id: is  [2Jrequired"
        );
        assert_eq!(sentence(&Status::not_found("gone"), "http://x"), "gone");
        assert_eq!(sentence(&Status::new(Code::Internal, ""), "http://x"), "the server answered Internal");
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let cause = std::io::Error::other("Connection refused");
        let status = Status::from_error(Box::new(cause));
        assert_eq!(sentence(&status, "http://x:1"), "http://x:1 cannot be reached: Connection refused");
    }
}
