//! What is told of the rules that a message breaks.

use std::collections::HashMap;
use std::fmt::Write as _;

use prost::Message as _;
use prost_protovalidate::Violation;
use prost_protovalidate::types::{
    DESCRIPTOR_POOL, MessageConstraintsExt as _, PredefinedConstraintsExt as _,
};
use prost_reflect::MessageDescriptor;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb::{BadRequest, ErrorInfo, Status as Told, bad_request::FieldViolation};

/// No message is told of more rules than this.
const MAX_VIOLATIONS: usize = 100;
/// Longest list of violations, encoded: as text, and with the message beside it, it has to fit into trailers of 8 KiB,
/// since many clients of gRPC read no longer ones, and all protocols tell the same.
const MAX_ENCODED: usize = 4 << 10;
/// Longest path and longest description of a violation, in bytes: both may hold text of the client's.
const MAX_TEXT: usize = 240;

/// The words of rules that are broken without any, by the rule's id. None where two rules of an id have other words.
#[derive(Debug)]
pub(crate) struct Words(HashMap<String, Option<String>>);

impl Words {
    /// Those of the published rules, and of the rules of these messages.
    pub(crate) fn of<'m>(messages: impl Iterator<Item = &'m MessageDescriptor>) -> Self {
        let mut words = HashMap::from([(
            "required".to_owned(),
            // That of a field has words. Left is that of a oneof.
            Some("needs one of its fields".to_owned()),
        )]);
        let published = DESCRIPTOR_POOL.all_messages().flat_map(|rules| rules.fields().collect::<Vec<_>>());
        let published = published.filter_map(|rule| rule.predefined_constraints().ok().flatten());
        let own = messages.filter_map(|message| message.message_constraints().ok().flatten());
        for rule in published.flat_map(|rules| rules.cel).chain(own.flat_map(|rules| rules.cel)) {
            let (Some(id), Some(text)) = (rule.id, rule.message.filter(|text| !text.is_empty())) else {
                continue;
            };
            let known = words.entry(id).or_insert_with(|| Some(text.clone()));
            if known.as_ref().is_some_and(|known| *known != text) {
                *known = None;
            }
        }
        Self(words)
    }

    fn describe(&self, violation: &Violation) -> String {
        let id = violation.rule_id();
        let text = match violation.message() {
            "" => match self.0.get(id) {
                Some(Some(text)) => text.clone(),
                _ => format!("breaks the rule `{id}`"),
            },
            text => text.to_owned(),
        };
        shortened(if violation.for_key() == Some(true) { format!("key {text}") } else { text })
    }
}

/// The refusal that names all broken rules of a message; `index` is its place among others.
pub(crate) fn of_violations(
    violations: &[Violation],
    index: Option<usize>,
    words: &Words,
    domain: &str,
) -> Status {
    let mut told = BadRequest::default();
    for violation in violations.iter().take(MAX_VIOLATIONS) {
        told.field_violations.push(FieldViolation {
            field: shortened(within(index, &violation.field_path())),
            description: words.describe(violation),
            reason: violation.rule_id().to_owned(),
            localized_message: None,
        });
        if told.field_violations.len() > 1 && told.encoded_len() > MAX_ENCODED {
            told.field_violations.pop();
            break;
        }
    }
    refusal(&told, violations.len(), domain)
}

/// The refusal of bytes that are no message.
pub(crate) fn of_no_message(index: Option<usize>, domain: &str) -> Status {
    let violation = FieldViolation {
        field: within(index, ""),
        description: "is no message of this type".to_owned(),
        reason: "MALFORMED_PROTOBUF".to_owned(),
        localized_message: None,
    };
    refusal(&BadRequest { field_violations: vec![violation] }, 1, domain)
}

/// The server's own fault: a rule cannot be evaluated. The client is told no more than that.
pub(crate) fn of_failure(error: &prost_protovalidate::Error) -> Status {
    tracing::error!(%error, "a rule of validation failed");
    Status::internal("the request could not be validated")
}

/// A message that cannot be looked into.
pub(crate) fn of_compressed() -> Status {
    Status::unimplemented("compressed messages cannot be validated")
}

fn refusal(told: &BadRequest, count: usize, domain: &str) -> Status {
    let mut message = match told.field_violations.first() {
        Some(first) if first.field.is_empty() => first.description.clone(),
        Some(first) => format!("`{}` {}", first.field, first.description),
        None => "the request breaks a rule".to_owned(),
    };
    match count.saturating_sub(1) {
        0 => {}
        1 => message.push_str("; and 1 more violation"),
        more => {
            let _ = write!(message, "; and {more} more violations");
        }
    }
    let info =
        ErrorInfo { reason: "INVALID_FIELDS".to_owned(), domain: domain.to_owned(), ..ErrorInfo::default() };
    let details = vec![pack("ErrorInfo", &info), pack("BadRequest", told)];
    let code = Code::InvalidArgument;
    let status = Told { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

fn pack(name: &str, detail: &impl prost::Message) -> Any {
    Any { type_url: format!("type.googleapis.com/google.rpc.{name}"), value: detail.encode_to_vec() }
}

/// The path of a field of a message among others.
fn within(index: Option<usize>, path: &str) -> String {
    let Some(index) = index else { return path.to_owned() };
    let separator = if path.is_empty() || path.starts_with('[') { "" } else { "." };
    format!("[{index}]{separator}{path}")
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}
