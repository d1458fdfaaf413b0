//! The one error type that services return. It is translated to a gRPC status once, at the edge.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::id::Kind;

/// What went wrong, as far as a client's reaction goes. The names are those of the gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The request is wrong whatever the state of the system.
    InvalidArgument,
    /// There is no valid credential.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// The thing does not exist, or the caller may not know that it does.
    NotFound,
    /// The thing exists already.
    AlreadyExists,
    /// The system is not in the state that the request needs.
    FailedPrecondition,
    /// Somebody else was faster; read again and retry.
    Aborted,
    /// A position that is not there any more.
    OutOfRange,
    /// A limit was reached.
    ResourceExhausted,
    /// Not built yet.
    Unimplemented,
    /// Try again later.
    Unavailable,
    /// It took too long.
    DeadlineExceeded,
    /// A defect of ours.
    Internal,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `labels` or `queries[2].config_type`.
    pub field: String,
    /// What is wrong with it, as a sentence without a full stop.
    pub description: String,
}

/// The thing an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its type, such as `customer`.
    pub kind: &'static str,
    /// Its name, as the request gave it.
    pub name: String,
}

/// Why a call failed. `message` and everything else but `source` may be shown to the caller; `source` is
/// for the log.
#[derive(Debug)]
pub struct Fault {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: FaultKind,
    reason: &'static str,
    message: String,
    violations: Vec<Violation>,
    resource: Option<Resource>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault with a stable reason in UPPER_SNAKE case and a sentence the caller can act on.
    pub fn new(kind: FaultKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                reason,
                message: message.into(),
                violations: Vec::new(),
                resource: None,
                retry_after: None,
                source: None,
            }),
        }
    }

    /// INVALID_ARGUMENT with every violation.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is invalid".to_owned(),
            [only] => format!("{}: {}", only.field, only.description),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", first.field, first.description, rest.len())
            }
        };
        let mut fault = Self::new(FaultKind::InvalidArgument, "INVALID_FIELDS", message);
        fault.inner.violations = violations;
        fault
    }

    /// INVALID_ARGUMENT about one field.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// NOT_FOUND for a resource: the same whether it does not exist or belongs to another tenant.
    pub fn not_found<K: Kind>(name: impl fmt::Display) -> Self {
        let name = name.to_string();
        let mut fault = Self::new(
            FaultKind::NotFound,
            not_found_reason(K::RESOURCE),
            format!("{} {name:?} does not exist", K::NOUN),
        );
        fault.inner.resource = Some(Resource { kind: K::NOUN, name });
        fault
    }

    /// ALREADY_EXISTS for a resource.
    pub fn already_exists<K: Kind>(name: impl fmt::Display) -> Self {
        let name = name.to_string();
        let mut fault = Self::new(
            FaultKind::AlreadyExists,
            already_exists_reason(K::RESOURCE),
            format!("{} {name:?} exists already", K::NOUN),
        );
        fault.inner.resource = Some(Resource { kind: K::NOUN, name });
        fault
    }

    /// FAILED_PRECONDITION for a resource that would have to be archived first.
    pub fn not_archived<K: Kind>(name: impl fmt::Display) -> Self {
        let name = name.to_string();
        let mut fault = Self::new(
            FaultKind::FailedPrecondition,
            not_archived_reason(K::RESOURCE),
            format!("{} {name:?} is not archived", K::NOUN),
        );
        fault.inner.resource = Some(Resource { kind: K::NOUN, name });
        fault
    }

    /// ABORTED because the resource changed since the caller read it.
    pub fn etag_mismatch() -> Self {
        Self::new(
            FaultKind::Aborted,
            "ETAG_MISMATCH",
            "the resource has changed since it was read; read it again",
        )
    }

    /// PERMISSION_DENIED.
    pub fn denied(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(FaultKind::PermissionDenied, reason, message)
    }

    /// FAILED_PRECONDITION.
    pub fn precondition(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(FaultKind::FailedPrecondition, reason, message)
    }

    /// INTERNAL. The caller learns nothing of the cause; the log does.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FaultKind::Internal, "INTERNAL", "internal error; quote the request id when you report it")
            .with_source(source)
    }

    /// UNAVAILABLE with a time to wait before the next try.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut fault = Self::new(FaultKind::Unavailable, "UNAVAILABLE", message);
        fault.inner.retry_after = Some(retry_after);
        fault
    }

    /// UNIMPLEMENTED: a documented call that this version does not serve yet.
    pub fn unimplemented(what: &str) -> Self {
        Self::new(FaultKind::Unimplemented, "UNIMPLEMENTED", format!("{what} is not served by this version"))
    }

    /// The same fault with its cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same fault with one more wrong field.
    #[must_use]
    pub fn with_violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.inner.violations.push(Violation { field: field.into(), description: description.into() });
        self
    }

    /// The same fault with a time to wait before the next try.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.inner.retry_after = Some(retry_after);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> FaultKind {
        self.inner.kind
    }

    /// The stable reason.
    pub fn reason(&self) -> &'static str {
        self.inner.reason
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Every wrong field.
    pub fn violations(&self) -> &[Violation] {
        &self.inner.violations
    }

    /// The thing the fault is about.
    pub fn resource(&self) -> Option<&Resource> {
        self.inner.resource.as_ref()
    }

    /// How long to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.reason, self.inner.message)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

// Reasons are static so that they cannot be made up at run time; the table keeps them in one place.
macro_rules! reasons {
    ($name:ident, $suffix:literal) => {
        fn $name(resource: &'static str) -> &'static str {
            reasons!(@match resource, $suffix,
                "CUSTOMER", "PROJECT", "MEMBER", "IDENTITY", "WORKSPACE", "CONFIGURATION", "EVENT",
                "API_KEY", "PROVIDER", "CREDENTIAL", "AUDIT_ENTRY", "TOKEN", "SESSION", "MCP_SERVER",
                "MCP_PROFILE", "WEBHOOK", "WEBHOOK_DELIVERY", "UPGRADE", "EXTERNAL_SUBJECT")
        }
    };
    (@match $resource:ident, $suffix:literal, $($known:literal),*) => {
        match $resource {
            $($known => concat!($known, $suffix),)*
            _ => concat!("RESOURCE", $suffix),
        }
    };
}
reasons!(not_found_reason, "_NOT_FOUND");
reasons!(already_exists_reason, "_ALREADY_EXISTS");
reasons!(not_archived_reason, "_NOT_ARCHIVED");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ApiKey, Customer};

    #[test]
    fn reasons_name_the_resource() {
        assert_eq!(Fault::not_found::<Customer>("acme").reason(), "CUSTOMER_NOT_FOUND");
        assert_eq!(Fault::already_exists::<ApiKey>("x").reason(), "API_KEY_ALREADY_EXISTS");
    }

    #[test]
    fn the_message_counts_further_violations() {
        let violation = |field: &str| Violation { field: field.into(), description: "is required".into() };
        assert_eq!(Fault::invalid(vec![violation("a")]).message(), "a: is required");
        assert_eq!(
            Fault::invalid(vec![violation("a"), violation("b")]).message(),
            "a: is required (and 1 more)"
        );
    }
}
