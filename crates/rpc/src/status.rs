//! Faults as gRPC statuses: the one table from [`FaultKind`] to a code, and the details that go with it.

use agentrouter_kernel::{Fault, FaultKind};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "agentrouter";

/// Details travel in a header, and many clients refuse more than 8 KiB of those. The message counts all violations.
const VIOLATIONS_MAX_BYTES: usize = 4096;

/// The code of a kind of fault.
pub fn code(kind: FaultKind) -> Code {
    match kind {
        FaultKind::InvalidArgument => Code::InvalidArgument,
        FaultKind::Unauthenticated => Code::Unauthenticated,
        FaultKind::PermissionDenied => Code::PermissionDenied,
        FaultKind::NotFound => Code::NotFound,
        FaultKind::AlreadyExists => Code::AlreadyExists,
        FaultKind::FailedPrecondition => Code::FailedPrecondition,
        FaultKind::Aborted => Code::Aborted,
        FaultKind::OutOfRange => Code::OutOfRange,
        FaultKind::ResourceExhausted => Code::ResourceExhausted,
        FaultKind::Unimplemented => Code::Unimplemented,
        FaultKind::Unavailable => Code::Unavailable,
        FaultKind::DeadlineExceeded => Code::DeadlineExceeded,
        FaultKind::Internal => Code::Internal,
    }
}

/// The status a client gets for a fault. Causes are logged here, and go no further.
pub fn to_status(fault: &Fault) -> Status {
    if let Some(source) = std::error::Error::source(fault) {
        let causes = Causes(source);
        if fault.kind() == FaultKind::Internal {
            tracing::error!(reason = fault.reason(), %causes, "call failed");
        } else {
            tracing::info!(reason = fault.reason(), %causes, "call refused");
        }
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(fault.reason(), ERROR_DOMAIN, std::collections::HashMap::new());
    let mut room = VIOLATIONS_MAX_BYTES;
    for violation in fault.violations() {
        let Some(left) = room.checked_sub(violation.field.len() + violation.description.len()) else { break };
        room = left;
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some(resource) = fault.resource() {
        details.set_resource_info(resource.kind, &resource.name, "", "");
    }
    if let Some(delay) = fault.retry_after() {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details_and_metadata(code(fault.kind()), fault.message(), details, MetadataMap::new())
}

/// [`to_status`], for `map_err`.
#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
pub fn into_status(fault: Fault) -> Status {
    to_status(&fault)
}

struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use agentrouter_kernel::Violations;

    use super::*;

    #[test]
    fn many_violations_fit_into_a_header() {
        let mut violations = Violations::new();
        for index in 0..1000 {
            violations.add(format!("models[{index}]"), "must have 1 to 255 characters");
        }
        let status = to_status(&violations.finish().unwrap_err());
        assert!(status.details().len() < 6 * 1024);
        assert!(status.message().ends_with("(and 999 more)"), "{}", status.message());
        let listed = status.get_details_bad_request().unwrap().field_violations;
        assert!((50..1000).contains(&listed.len()), "{}", listed.len());
    }
}
