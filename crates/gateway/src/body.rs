//! Reading the body of a REST request, within the limit.

use std::error::Error;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError};
use tonic::Code;

use crate::failure::Failure;
use crate::grpc;
use crate::inflate::{Corrupt, Inflating};
use crate::protocol::Encoding;

/// Refuses a body by its length, before any of it is read: a client that waits
/// for `100 Continue` then never sends it.
pub(crate) fn check_length(body: &impl Body, limit: usize) -> Result<(), Failure> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(too_large(limit));
    }
    Ok(())
}

/// Reads the body to its end, without its coding.
pub(crate) async fn read<B>(body: B, coding: Option<Encoding>, limit: usize) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match coding {
        None => read_plain(body, limit).await,
        // Boxed, as what is rare should not make every call larger.
        Some(coding) => Box::pin(read_plain(Inflating::new(body, coding), limit)).await,
    }
}

async fn read_plain<B>(body: B, limit: usize) -> Result<Bytes, Failure>
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
    refused(format!("the request body is larger than {limit} bytes"))
}

/// One message of a body that has several.
pub(crate) fn message_too_large(limit: usize) -> Failure {
    refused(format!("a message of the request body is larger than {limit} bytes"))
}

fn refused(message: String) -> Failure {
    Failure::new(Code::ResourceExhausted, "REQUEST_BODY_TOO_LARGE", message)
        .with_http(StatusCode::PAYLOAD_TOO_LARGE)
}

/// A layer outside may have limits of its own on length and time; anything else
/// is a client that went away.
pub(crate) fn unreadable(error: &(dyn Error + 'static), limit: usize) -> Failure {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return too_large(limit);
        }
        if error.is::<Corrupt>() {
            let message = "the request body is not what its `Content-Encoding` says";
            return Failure::new(Code::InvalidArgument, "MALFORMED_CONTENT_CODING", message);
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
