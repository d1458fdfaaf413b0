//! What the body of a REST request may be, told from its headers before any of it is read.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tonic::Code;

use crate::body::is_utf8;
use crate::failure::Failure;
use crate::options::{ACCEPT_PATCH, ACCEPT_POST, JSON};
use crate::protocol::{Encoding, SPOKEN};
use crate::rule::{Payload, Route};

/// Forms, and what `curl -d` says of every body unless told otherwise.
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    /// JSON values one after the other.
    Lines,
    /// The message as protobuf has it.
    Protobuf,
    /// Names and values, written as in a query.
    Form,
    /// The same in parts, files among them.
    Multipart,
    /// As it is, into a `google.api.HttpBody`.
    Raw,
}

/// Refuses a body by its type. A route that takes `google.api.HttpBody` takes them all.
pub(crate) fn of(
    route: &Route,
    method: &Method,
    headers: &HeaderMap,
    form_is_json: bool,
) -> Result<Media, Failure> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    if route.payload == Payload::Raw {
        // The type becomes text of the message.
        let is_text = second.is_none() && first.is_none_or(|one| one.to_str().is_ok());
        return if is_text {
            Ok(Media::Raw)
        } else {
            Err(unsupported("the request body must have one type"))
        };
    }
    let Some(one) = first else { return Ok(Media::Json) };
    let is_message = matches!(route.payload, Payload::Message | Payload::WellKnown);
    let takes_protobuf = !route.is_client_streaming && is_message;
    let has_fields = !route.is_client_streaming && route.payload == Payload::Message;
    let takes_forms = has_fields && route.reading.options.forms;
    let takes_parts = has_fields && route.reading.options.multipart;
    match named(one).filter(|_| second.is_none()) {
        Some(Media::Json) => Ok(Media::Json),
        Some(Media::Lines) if route.is_client_streaming => Ok(Media::Lines),
        Some(Media::Protobuf) if takes_protobuf => Ok(Media::Protobuf),
        Some(Media::Form) if takes_forms => Ok(Media::Form),
        Some(Media::Multipart) if takes_parts => Ok(Media::Multipart),
        _ if form_is_json && second.is_none() && one == FORM => Ok(Media::Json),
        _ => {
            let others = [
                (route.is_client_streaming, "application/x-ndjson"),
                (takes_protobuf, "application/x-protobuf"),
                (takes_forms, FORM),
                (takes_parts, MULTIPART),
            ];
            let others = others.into_iter().filter(|(is_taken, _)| *is_taken).map(|(_, name)| name);
            let accepted: Vec<_> = ["application/json"].into_iter().chain(others).collect();
            let message = format!("the request body must be `{}`", accepted.join("`, or `"));
            let message = message.replacen("json`", "json` in UTF-8", 1);
            let accepted = HeaderValue::try_from(accepted.join(", ")).unwrap_or(JSON);
            let failure = unsupported(message).with_header(header::ACCEPT, accepted.clone());
            Err(match *method {
                Method::POST => failure.with_header(ACCEPT_POST, accepted),
                Method::PATCH => failure.with_header(ACCEPT_PATCH, accepted),
                _ => failure,
            })
        }
    }
}

/// The coding the body is compressed with.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Encoding>, Failure> {
    const NAME: HeaderName = header::CONTENT_ENCODING;
    Encoding::of_request(headers, &NAME).map_err(|_| {
        let message = "the coding of the request body is not supported: gzip, br, zstd and identity are";
        unsupported(message).with_header(header::ACCEPT_ENCODING, SPOKEN)
    })
}

fn named(content_type: &HeaderValue) -> Option<Media> {
    let text = content_type.to_str().ok()?;
    let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
    match media.trim().to_ascii_lowercase().as_str() {
        "application/json" if is_utf8(parameters) => Some(Media::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" if is_utf8(parameters) => {
            Some(Media::Lines)
        }
        "application/x-protobuf" | "application/protobuf" => Some(Media::Protobuf),
        FORM if is_utf8(parameters) => Some(Media::Form),
        MULTIPART => Some(Media::Multipart),
        _ => None,
    }
}

fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", message)
        .with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A3 #48, #51, #52, #53.
    #[test]
    fn media_types() {
        for (text, media) in [
            ("application/json", Some(Media::Json)),
            ("Application/JSON", Some(Media::Json)),
            ("application/json; charset=utf-8", Some(Media::Json)),
            ("application/json;charset=\"UTF-8\"", Some(Media::Json)),
            ("application/json; version=1", Some(Media::Json)),
            ("application/x-ndjson", Some(Media::Lines)),
            ("application/jsonl; charset=utf-8", Some(Media::Lines)),
            ("application/x-protobuf", Some(Media::Protobuf)),
            ("application/protobuf; messageType=\"a.B\"", Some(Media::Protobuf)),
            ("application/x-www-form-urlencoded", Some(Media::Form)),
            ("application/x-www-form-urlencoded; charset=UTF-8", Some(Media::Form)),
            ("application/x-www-form-urlencoded; charset=latin1", None),
            ("multipart/form-data; boundary=x", Some(Media::Multipart)),
            ("multipart/mixed; boundary=x", None),
            ("", None),
            ("text/plain", None),
            ("application/jsonp", None),
            ("application/json; charset=latin1", None),
            ("application/x-ndjson; charset=latin1", None),
            ("application/xml", None),
        ] {
            assert_eq!(named(&HeaderValue::from_static(text)), media, "{text}");
        }
    }
}
