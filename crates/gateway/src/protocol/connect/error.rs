//! Errors and endings as Connect writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap};
use http_body_util::Full;
use prost::Message as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::error::http_status;
use crate::headers::HeaderPolicy;
use crate::json;
use crate::options::JSON;
use crate::protocol::codec::JsonCodec;
use crate::protocol::envelope;

/// The flag of the envelope that ends a stream.
const END: u8 = 0b10;

/// Connect's name for a code.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The answer to a unary call that failed.
pub(in crate::protocol) fn response(codec: &JsonCodec, status: &Status) -> Response<Body> {
    let mut out = Vec::new();
    write(codec, status, &mut out);
    let mut response = Response::new(Body::new(Full::new(Bytes::from(out))));
    *response.status_mut() = http_status(status.code());
    let headers = response.headers_mut();
    *headers = status.metadata().clone().into_headers();
    HeaderPolicy::default().to_headers(headers);
    headers.insert(header::CONTENT_TYPE, JSON);
    response
}

/// The last envelope of a stream.
pub(in crate::protocol) fn end_of_stream(codec: &JsonCodec, outcome: Result<HeaderMap, Status>) -> Bytes {
    let (error, mut metadata) = match outcome {
        Ok(metadata) => (None, metadata),
        Err(status) => {
            let metadata = status.metadata().clone().into_headers();
            (Some(status), metadata)
        }
    };
    HeaderPolicy::default().to_headers(&mut metadata);
    let mut out = Vec::with_capacity(32);
    let written = envelope::append::<Status>(&mut out, END, |out| {
        out.push(b'{');
        if let Some(status) = &error {
            out.extend_from_slice(b"\"error\":");
            write(codec, status, out);
        }
        if !metadata.is_empty() {
            out.extend_from_slice(if error.is_some() { b",\"metadata\":{" } else { b"\"metadata\":{" });
            write_metadata(&metadata, out);
            out.push(b'}');
        }
        out.push(b'}');
        Ok(())
    });
    if let Err(error) = written {
        tracing::error!(%error, "the end of a stream does not fit into an envelope");
    }
    out.into()
}

fn write_metadata(metadata: &HeaderMap, out: &mut Vec<u8>) {
    for (index, name) in metadata.keys().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::string(out, name.as_str());
        out.extend_from_slice(b":[");
        for (index, value) in metadata.get_all(name).iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::string(out, &String::from_utf8_lossy(value.as_bytes()));
        }
        out.push(b']');
    }
}

/// Writes the error as JSON.
fn write(codec: &JsonCodec, status: &Status, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    json::string(out, name(status.code()));
    if !status.message().is_empty() {
        out.extend_from_slice(b",\"message\":");
        json::string(out, status.message());
    }
    // Details that cannot be read are left out: code and message still stand.
    let details = pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    for (index, detail) in details.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b",\"details\":[{\"type\":" } else { b",{\"type\":" });
        let name = detail.type_url.rsplit_once('/').map_or(&*detail.type_url, |(_, name)| name);
        json::string(out, name);
        out.extend_from_slice(b",\"value\":\"");
        out.extend_from_slice(STANDARD_NO_PAD.encode(&detail.value).as_bytes());
        out.push(b'"');
        if let Some(text) = codec.known(name, &detail.value) {
            out.extend_from_slice(b",\"debug\":");
            out.extend_from_slice(&text);
        }
        out.push(b'}');
    }
    if !details.is_empty() {
        out.push(b']');
    }
    out.push(b'}');
}
