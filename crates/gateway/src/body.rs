//! Reading the body of a REST request, within the limit and only when its type
//! is one this crate reads.

use std::error::Error;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError};
use tonic::Code;

use crate::failure::Failure;
use crate::grpc;
use crate::options::{ACCEPT_PATCH, ACCEPT_POST, JSON};

/// What `curl -d` says of every body unless told otherwise.
const FORM: &str = "application/x-www-form-urlencoded";

/// Refuses a body by its length, before any of it is read: a client that waits
/// for `100 Continue` then never sends it.
pub(crate) fn check_length(body: &impl Body, limit: usize) -> Result<(), Failure> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(too_large(limit));
    }
    Ok(())
}

/// Refuses a body that is not plain JSON by its headers, again before reading it.
pub(crate) fn check_type(method: &Method, headers: &HeaderMap, form_is_json: bool) -> Result<(), Failure> {
    let encoded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(unsupported("a compressed request body is not supported")
            .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if is_json(one) => Ok(()),
        (Some(one), None) if form_is_json && one == FORM => Ok(()),
        _ => {
            let failure = unsupported("the request body must be `application/json` in UTF-8");
            let failure = failure.with_header(header::ACCEPT, JSON);
            Err(match *method {
                Method::POST => failure.with_header(ACCEPT_POST, JSON),
                Method::PATCH => failure.with_header(ACCEPT_PATCH, JSON),
                _ => failure,
            })
        }
    }
}

/// Reads the body to its end.
pub(crate) async fn read<B>(body: B, limit: usize) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.as_mut().frame().await {
        let frame = frame.map_err(|error| unreadable(&*error.into(), limit))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        // One chunk is the usual case and is kept as it came.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// `application/json`, with no charset or with UTF-8.
fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
    media.trim().eq_ignore_ascii_case("application/json") && is_utf8(parameters)
}

/// Whether the parameters of a content type name no charset but UTF-8.
pub(crate) fn is_utf8(parameters: &str) -> bool {
    parameters.split(';').all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

fn too_large(limit: usize) -> Failure {
    let message = format!("the request body is larger than {limit} bytes");
    Failure::new(Code::ResourceExhausted, "REQUEST_BODY_TOO_LARGE", message)
        .with_http(StatusCode::PAYLOAD_TOO_LARGE)
}

fn unsupported(message: &str) -> Failure {
    Failure::new(Code::InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", message)
        .with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// A layer outside may have limits of its own on length and time; anything else
/// is a client that went away.
fn unreadable(error: &(dyn Error + 'static), limit: usize) -> Failure {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return too_large(limit);
        }
        if let Some(status) = error.downcast_ref::<tonic::Status>()
            && status.code() == Code::DeadlineExceeded
        {
            return grpc::from_status(status).with_http(StatusCode::REQUEST_TIMEOUT);
        }
        source = error.source();
    }
    tracing::debug!(%error, "the request body ended early");
    Failure::new(Code::Cancelled, "REQUEST_BODY_INCOMPLETE", "the request body ended early")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A3 #48.
    #[test]
    fn media_types() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; version=1",
        ] {
            assert!(is_json(&HeaderValue::from_static(good)), "{good}");
        }
        for bad in
            ["", "text/plain", "application/jsonp", "application/json; charset=latin1", "application/xml"]
        {
            assert!(!is_json(&HeaderValue::from_static(bad)), "{bad}");
        }
    }
}
