//! Errors as REST answers: the JSON of `google.rpc.Status` under the HTTP
//! status of its code.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::Any;
use tonic::Code;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic_types::pb;

use crate::failure::{Failure, Inner, Origin, Violation};
use crate::grpc;
use crate::headers::HeaderPolicy;
use crate::json::{self, Encoder, JsonOutput, Tables};
use crate::options::{JSON, Options, PROBLEM};

/// The reason of an `ABORTED` that a failed `If-Match` caused.
const ETAG_MISMATCH: &str = "ETAG_MISMATCH";
const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// The types of `google.rpc` details, for pools that do not hold them.
static DETAIL_TYPES: LazyLock<Tables> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap_or_else(|error| {
        tracing::error!(%error, "the built-in google.rpc descriptors cannot be read");
        DescriptorPool::new()
    });
    Tables::new(&pool)
});

/// The HTTP status a gRPC code is answered with.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // Registered nowhere, and what every proxy writes for it.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What a request makes of its error.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// It had `If-Match`.
    pub(crate) is_conditional: bool,
    /// It accepts `application/problem+json`.
    pub(crate) is_problem: bool,
}

/// Writes errors as REST answers, for the transcoder and for layers around it
/// that refuse a request before it gets there.
#[derive(Debug, Clone)]
pub struct ErrorRenderer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tables: Tables,
    domain: String,
    www_authenticate: Option<HeaderValue>,
    headers: HeaderPolicy,
    problem_details: bool,
}

impl Default for ErrorRenderer {
    /// Where there are no routes, and so no types of details but those of `google.rpc`.
    fn default() -> Self {
        Self::new(Tables::new(&DescriptorPool::new()), &Options::default())
    }
}

impl ErrorRenderer {
    pub(crate) fn new(tables: Tables, options: &Options) -> Self {
        Self(Arc::new(Shared {
            tables,
            domain: options.error_domain.clone(),
            www_authenticate: options.www_authenticate.clone(),
            headers: options.headers.clone(),
            problem_details: options.answers.problem_details,
        }))
    }

    /// The REST answer for a status: JSON body with its details, `Retry-After`
    /// where they ask for it, and its metadata as headers.
    pub fn response(&self, status: &tonic::Status) -> Response<Body> {
        self.response_as(status, None, Wanted::default())
    }

    /// The same under another HTTP status, where there is a better one than the code's own.
    pub(crate) fn response_as(
        &self,
        status: &tonic::Status,
        http: Option<StatusCode>,
        wanted: Wanted,
    ) -> Response<Body> {
        let failure = grpc::from_status(status);
        self.render(if let Some(http) = http { failure.with_http(http) } else { failure }, wanted)
    }

    pub(crate) fn render(&self, failure: Failure, wanted: Wanted) -> Response<Body> {
        let inner = failure.into_inner();
        let details = self.details(&inner);
        let info = find::<pb::ErrorInfo>(&details, "google.rpc.ErrorInfo");
        let is_etag_mismatch = info.is_some_and(|info| info.reason == ETAG_MISMATCH);
        let status = match inner.http {
            Some(status) => status,
            None if wanted.is_conditional && is_etag_mismatch && inner.code == Code::Aborted => {
                StatusCode::PRECONDITION_FAILED
            }
            None => http_status(inner.code),
        };

        let is_problem = wanted.is_problem || self.0.problem_details;
        let body = if is_problem {
            self.problem(status, &inner, &details)
        } else {
            self.json(inner.code, &inner.message, &details)
        };
        let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        *headers = inner.headers;
        self.0.headers.to_headers(headers);
        headers.insert(header::CONTENT_TYPE, if is_problem { PROBLEM } else { JSON });
        if let Some(delay) = retry_delay(&details) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay));
        }
        if status == StatusCode::UNAUTHORIZED
            && let Some(challenge) = &self.0.www_authenticate
        {
            headers.entry(header::WWW_AUTHENTICATE).or_insert_with(|| challenge.clone());
        }
        response
    }

    /// The error as gRPC tells it.
    pub(crate) fn status(&self, failure: Failure) -> tonic::Status {
        let inner = failure.into_inner();
        let details = self.details(&inner);
        let metadata = MetadataMap::from_headers(inner.headers);
        let code = i32::from(inner.code);
        let details = if details.is_empty() {
            Bytes::new()
        } else {
            pb::Status { code, message: inner.message.clone(), details }.encode_to_vec().into()
        };
        tonic::Status::with_details_and_metadata(inner.code, inner.message, details, metadata)
    }

    /// The error as the JSON of `google.rpc.Status`, for an answer under way.
    pub(crate) fn in_band(&self, failure: Failure) -> Vec<u8> {
        let inner = failure.into_inner();
        let details = self.details(&inner);
        self.json(inner.code, &inner.message, &details)
    }

    /// The tables of the transcoder's messages.
    pub(crate) fn tables(&self) -> &Tables {
        &self.0.tables
    }

    pub(crate) fn encoder(&self) -> Encoder<'_> {
        self.encoder_as(JsonOutput::REST)
    }

    pub(crate) fn encoder_as(&self, style: JsonOutput) -> Encoder<'_> {
        Encoder { tables: [&self.0.tables, &DETAIL_TYPES], style, selection: None }
    }

    fn info(&self, reason: &str) -> Any {
        let domain = self.0.domain.clone();
        pack(
            "google.rpc.ErrorInfo",
            &pb::ErrorInfo { reason: reason.to_owned(), domain, ..Default::default() },
        )
    }

    fn details(&self, inner: &Inner) -> Vec<Any> {
        match &inner.origin {
            Origin::Backend { details } => details.clone(),
            Origin::Gateway { reason, violations } => {
                let mut details = vec![self.info(reason)];
                if !violations.is_empty() {
                    details.push(pack("google.rpc.BadRequest", &bad_request(violations)));
                }
                details
            }
        }
    }

    fn json(&self, code: Code, message: &str, details: &[Any]) -> Vec<u8> {
        let mut out = format!("{{\"code\":{},\"message\":", i32::from(code)).into_bytes();
        json::string(&mut out, message);
        self.put_details(&mut out, details);
        out
    }

    /// The problem of RFC 9457. It has no type of its own: code and details, which every error has, say it better.
    fn problem(&self, http: StatusCode, inner: &Inner, details: &[Any]) -> Vec<u8> {
        let title = http.canonical_reason().unwrap_or("Client Closed Request");
        let mut out = b"{\"type\":\"about:blank\",\"title\":".to_vec();
        json::string(&mut out, title);
        out.extend_from_slice(format!(",\"status\":{},\"detail\":", http.as_u16()).as_bytes());
        json::string(&mut out, &inner.message);
        out.extend_from_slice(format!(",\"code\":{}", i32::from(inner.code)).as_bytes());
        self.put_details(&mut out, details);
        out
    }

    /// The last member of an error, and its end.
    fn put_details(&self, out: &mut Vec<u8>, details: &[Any]) {
        out.extend_from_slice(b",\"details\":[");
        for (index, detail) in details.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let start = out.len();
            if let Err(error) = self.encoder().any(out, &detail.type_url, &detail.value) {
                tracing::warn!(%error, type_url = detail.type_url, "an error detail cannot be shown");
                out.truncate(start);
                out.extend_from_slice(b"{\"@type\":");
                json::string(out, &detail.type_url);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b"]}");
    }
}

fn bad_request(violations: &[Violation]) -> pb::BadRequest {
    let field_violations = violations
        .iter()
        .map(|violation| pb::bad_request::FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
            reason: violation.problem.reason().to_owned(),
            localized_message: None,
        })
        .collect();
    pb::BadRequest { field_violations }
}

fn pack(name: &str, message: &impl prost::Message) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{name}"), value: message.encode_to_vec() }
}

/// The first detail of a type.
fn find<M: prost::Message + Default>(details: &[Any], name: &str) -> Option<M> {
    let detail =
        details.iter().find(|detail| detail.type_url.rsplit_once('/').is_some_and(|(_, n)| n == name))?;
    M::decode(detail.value.as_slice()).ok()
}

/// Whole seconds, rounded up: earlier than asked is too early.
fn retry_delay(details: &[Any]) -> Option<u64> {
    let delay = find::<pb::RetryInfo>(details, "google.rpc.RetryInfo")?.retry_delay?;
    let seconds = u64::try_from(delay.seconds).ok()?;
    Some(seconds + u64::from(delay.nanos > 0))
}
