//! Refusals of layers around the services, in the protocol that the caller speaks: by its content type, since they
//! come before anything else of the request was looked at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use prost::Message as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::answer::Accept;
use crate::error::{ErrorRenderer, Wanted, http_status};
use crate::json;
use crate::options::JSON;

const GRPC_WEB: &[u8] = b"application/grpc-web";
const GRPC: &[u8] = b"application/grpc";
const CONNECT_STREAM: &[u8] = b"application/connect+";
const CONNECT_PROTO: &[u8] = b"application/proto";
const CONNECT_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
/// The flag of a Connect stream's last envelope.
const END_STREAM: u8 = 0b10;

/// What a request speaks, by its headers.
#[derive(Debug, Clone)]
pub struct Caller {
    protocol: Protocol,
    content_type: Option<HeaderValue>,
    is_problem: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Rest,
    Grpc,
    GrpcWeb,
    ConnectUnary,
    ConnectStream,
}

impl Caller {
    /// Reads the headers of a request.
    pub fn of(request: &HeaderMap) -> Self {
        let content_type = request.get(header::CONTENT_TYPE);
        let text = content_type.map_or(&[][..], HeaderValue::as_bytes);
        let protocol = if text.starts_with(GRPC_WEB) {
            Protocol::GrpcWeb
        } else if text.starts_with(GRPC) {
            Protocol::Grpc
        } else if text.starts_with(CONNECT_STREAM) {
            Protocol::ConnectStream
        } else if text.starts_with(CONNECT_PROTO) || request.contains_key(CONNECT_VERSION) {
            Protocol::ConnectUnary
        } else {
            Protocol::Rest
        };
        let is_problem = protocol == Protocol::Rest && Accept::of(request).is_problem;
        Self { protocol, content_type: content_type.cloned(), is_problem }
    }

    /// Whether it speaks gRPC itself, which no browser can.
    pub fn is_native_grpc(&self) -> bool {
        self.protocol == Protocol::Grpc
    }
}

impl ErrorRenderer {
    /// The answer to a request that is refused before it reaches a service. `http` is the status of REST where there
    /// is a better one than the code's own; the other protocols have their own rules.
    pub fn refusal(&self, caller: &Caller, status: &Status, http: Option<StatusCode>) -> Response<Body> {
        let content_type = caller.content_type.as_ref();
        match caller.protocol {
            Protocol::Rest => {
                let wanted = Wanted { is_problem: caller.is_problem, ..Wanted::default() };
                self.response_as(status, http, wanted)
            }
            Protocol::Grpc | Protocol::GrpcWeb => grpc(status, content_type),
            Protocol::ConnectUnary => connect_unary(status),
            Protocol::ConnectStream => connect_stream(status, content_type),
        }
    }
}

/// Trailers only, for gRPC and gRPC-Web alike, under the type of the request: a web client takes no other.
fn grpc(status: &Status, content_type: Option<&HeaderValue>) -> Response<Body> {
    let mut response = status.clone().into_http();
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    response
}

fn connect_unary(status: &Status) -> Response<Body> {
    let mut response = Response::new(full(connect_error(status)));
    // Connect's table of codes is the one of REST.
    *response.status_mut() = http_status(status.code());
    *response.headers_mut() = status.metadata().clone().into_headers();
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// A stream answers 200, and ends with what went wrong.
fn connect_stream(status: &Status, content_type: Option<&HeaderValue>) -> Response<Body> {
    let mut json = b"{\"error\":".to_vec();
    json.extend_from_slice(&connect_error(status));
    json.push(b'}');
    let mut envelope = BytesMut::with_capacity(5 + json.len());
    envelope.put_u8(END_STREAM);
    envelope.put_u32(u32::try_from(json.len()).unwrap_or(u32::MAX));
    envelope.extend_from_slice(&json);
    let mut response = Response::new(full(envelope.freeze()));
    *response.headers_mut() = status.metadata().clone().into_headers();
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()))
}

/// Code, message and details as Connect writes them.
fn connect_error(status: &Status) -> Vec<u8> {
    let mut out = format!("{{\"code\":\"{}\",\"message\":", connect_code(status.code())).into_bytes();
    json::string(&mut out, status.message());
    let details = pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    if !details.is_empty() {
        out.extend_from_slice(b",\"details\":[");
        for (index, detail) in details.iter().enumerate() {
            let name = detail.type_url.rsplit_once('/').map_or(detail.type_url.as_str(), |(_, name)| name);
            out.extend_from_slice(if index == 0 { b"{\"type\":" } else { b",{\"type\":" });
            json::string(&mut out, name);
            out.extend_from_slice(b",\"value\":\"");
            out.extend_from_slice(STANDARD_NO_PAD.encode(&detail.value).as_bytes());
            out.extend_from_slice(b"\"}");
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

fn connect_code(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "canceled",
        Code::Ok | Code::Unknown => "unknown",
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    async fn refused(headers: &[(&'static str, &'static str)]) -> (u16, HeaderMap, Bytes) {
        let mut details = ErrorDetails::new();
        details.set_error_info("TOO_MUCH", "test", std::collections::HashMap::new());
        details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::ResourceExhausted, "too \"much\"", details);
        let request = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let request: HeaderMap = request.collect();
        let status =
            ErrorRenderer::default().refusal(&Caller::of(&request), &status, Some(StatusCode::URI_TOO_LONG));
        let (parts, body) = status.into_parts();
        let body = body.collect().await.expect("it is in memory").to_bytes();
        (parts.status.as_u16(), parts.headers, body)
    }

    fn text(body: &Bytes) -> &str {
        std::str::from_utf8(body).expect("it is text")
    }

    // A9 #94, #102: no refusal is in a protocol that the caller does not speak.
    #[tokio::test]
    async fn refusals_are_in_the_protocol_of_the_caller() {
        let (status, headers, body) = refused(&[("content-type", "application/json")]).await;
        assert_eq!((status, headers["retry-after"].to_str().unwrap()), (414, "2"));
        assert!(text(&body).starts_with(r#"{"code":8,"message":"too \"much\"","details":[{"#), "{body:?}");
        assert_eq!(refused(&[]).await.0, 414);

        for content_type in ["application/grpc", "application/grpc-web+proto", "application/grpc-web-text"] {
            let (status, headers, body) = refused(&[("content-type", content_type)]).await;
            assert_eq!((status, headers["grpc-status"].to_str().unwrap(), body.len()), (200, "8", 0));
            assert_eq!(headers["content-type"], content_type);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(status.get_details_error_info().unwrap().reason, "TOO_MUCH");
        }

        let unary = [("content-type", "application/json"), ("connect-protocol-version", "1")];
        for headers in [&unary[..], &[("content-type", "application/proto")]] {
            let (status, headers, body) = refused(headers).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (429, "application/json"));
            let start =
                r#"{"code":"resource_exhausted","message":"too \"much\"","details":[{"type":"google.rpc."#;
            assert!(text(&body).starts_with(start), "{body:?}");
        }

        let (status, headers, body) = refused(&[("content-type", "application/connect+json")]).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/connect+json"));
        assert_eq!((body[0], usize::from(body[3]) * 256 + usize::from(body[4])), (2, body.len() - 5));
        assert!(body[5..].starts_with(br#"{"error":{"code":"resource_exhausted","#), "{body:?}");
    }
}
