//! What can go wrong between a REST request and its answer, before it is
//! written down as an HTTP response by [`crate::error`].

use http::{HeaderMap, StatusCode};
use prost_types::Any;
use tonic::Code;

/// No request names more wrong fields than this, however hostile it is.
const MAX_VIOLATIONS: usize = 100;
/// Longest piece of client text repeated in an error, in characters.
const MAX_QUOTED: usize = 80;
/// Why a request with [`Violations`] is refused.
const INVALID_FIELDS: &str = "INVALID_FIELDS";

/// An error answer. Boxed, as it travels in the `Err` of most functions here.
#[derive(Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) code: Code,
    /// Where HTTP has a better status than the code's own.
    pub(crate) http: Option<StatusCode>,
    pub(crate) message: String,
    pub(crate) origin: Origin,
    /// Headers of the answer: REST ones, or the backend's metadata.
    pub(crate) headers: HeaderMap,
}

/// Who found the error.
#[derive(Debug)]
pub(crate) enum Origin {
    /// This crate; the details are made from these when the answer is written.
    Gateway { reason: &'static str, violations: Vec<Violation> },
    /// The backend, with the details it sent.
    Backend { details: Vec<Any> },
}

impl Failure {
    pub(crate) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            http: None,
            message: message.into(),
            origin: Origin::Gateway { reason, violations: Vec::new() },
            headers: HeaderMap::new(),
        }))
    }

    pub(crate) fn backend(code: Code, message: String, details: Vec<Any>, metadata: HeaderMap) -> Self {
        Self(Box::new(Inner {
            code,
            http: None,
            message,
            origin: Origin::Backend { details },
            headers: metadata,
        }))
    }

    /// The backend broke the protocol; `what` is for the log, not for the client.
    pub(crate) fn broken_backend(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "the rpc answer could not be transcoded");
        Self::new(
            Code::Internal,
            "INVALID_BACKEND_RESPONSE",
            "the service sent an answer that cannot be shown",
        )
    }

    pub(crate) fn with_http(mut self, status: StatusCode) -> Self {
        self.0.http = Some(status);
        self
    }

    pub(crate) fn with_header(mut self, name: http::HeaderName, value: http::HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// With what else is wrong with the request, where it is about that.
    pub(crate) fn and(self, more: Violations) -> Self {
        match self.0.origin {
            Origin::Gateway { reason: INVALID_FIELDS, violations } => {
                let mut all = Violations(violations);
                more.0.into_iter().for_each(|violation| all.add(violation));
                all.into_failure()
            }
            _ => self,
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    pub(crate) fn into_inner(self) -> Inner {
        *self.0
    }
}

/// What is wrong with one field; the `reason` of its `BadRequest` entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    UnknownField,
    InvalidValue,
    /// A singular field with more than one value.
    DuplicateField,
    /// Two parts of the request, or two members of a oneof, say different things.
    ConflictingField,
    /// The field exists, but not in this part of the request.
    NotBindable,
    MalformedJson,
    MalformedProtobuf,
    MalformedForm,
    UnexpectedBody,
    TooManyParameters,
}

impl Problem {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::UnknownField => "UNKNOWN_FIELD",
            Self::InvalidValue => "INVALID_VALUE",
            Self::DuplicateField => "DUPLICATE_FIELD",
            Self::ConflictingField => "CONFLICTING_FIELD",
            Self::NotBindable => "NOT_BINDABLE",
            Self::MalformedJson => "MALFORMED_JSON",
            Self::MalformedProtobuf => "MALFORMED_PROTOBUF",
            Self::MalformedForm => "MALFORMED_FORM",
            Self::UnexpectedBody => "UNEXPECTED_BODY",
            Self::TooManyParameters => "TOO_MANY_PARAMETERS",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path of the field, or of the parameter as the client wrote it.
    pub(crate) field: String,
    pub(crate) problem: Problem,
    pub(crate) description: String,
}

/// Everything wrong with one request, collected before it is refused.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    pub(crate) fn push(&mut self, field: &str, problem: Problem, description: impl Into<String>) {
        if !self.is_full() {
            self.0.push(Violation { field: quoted(field), problem, description: description.into() });
        }
    }

    fn add(&mut self, violation: Violation) {
        if !self.is_full() {
            self.0.push(violation);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts a parent in front of the fields of every violation from `first` on.
    /// Done while a decoder unwinds, so that good input pays nothing for paths.
    pub(crate) fn prefix(&mut self, first: usize, parent: impl std::fmt::Display) {
        for violation in self.0.iter_mut().skip(first) {
            let separator = match violation.field.chars().next() {
                None | Some('[') => "",
                Some(_) => ".",
            };
            violation.field = format!("{parent}{separator}{}", violation.field);
        }
    }

    /// Whether no more of them are told.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MAX_VIOLATIONS
    }

    /// Forgets those from `first` on.
    pub(crate) fn truncate(&mut self, first: usize) {
        self.0.truncate(first);
    }

    /// All of them in one sentence; none where there are none.
    pub(crate) fn message(&self) -> Option<String> {
        let first = self.0.first()?;
        let also = match self.0.len() - 1 {
            0 => String::new(),
            1 => "; and 1 more violation".to_owned(),
            more => format!("; and {more} more violations"),
        };
        Some(if first.field.is_empty() {
            format!("the request {}{also}", first.description)
        } else {
            format!("`{}` {}{also}", first.field, first.description)
        })
    }

    pub(crate) fn into_result(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_failure()) }
    }

    /// The refusal that names them.
    pub(crate) fn into_failure(self) -> Failure {
        let message = self.message().unwrap_or_default();
        let mut failure = Failure::new(Code::InvalidArgument, INVALID_FIELDS, message);
        failure.0.origin = Origin::Gateway { reason: INVALID_FIELDS, violations: self.0 };
        failure
    }
}

/// Client text, shortened so that an error never echoes a large request.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
