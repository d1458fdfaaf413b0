//! What an operator can decide about a transcoder.

use http::{HeaderValue, header};

use crate::answer::AnswerOptions;
use crate::headers::HeaderPolicy;
use crate::reading::{RequestOptions, TrailingSlash};

/// Settings of a [`Transcoder`](crate::Transcoder).
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest request body in bytes, decompressed or not; a larger one is refused with 413. Of a client stream it
    /// is the largest message, and the body has no end that it must keep to.
    pub max_body_bytes: usize,
    /// Read a body of the type `application/x-www-form-urlencoded` as JSON, because that is what `curl -d`
    /// calls the JSON it sends unless told otherwise. Off: such a body is refused with 415, unless
    /// [`RequestOptions::forms`] reads it as the form that it says it is.
    pub form_type_is_json: bool,
    /// Most query parameters of one request, and most fields or parts of a form.
    pub max_query_parameters: usize,
    /// How strictly requests are read.
    pub requests: RequestOptions,
    /// How strictly those of some rpcs are read: `library.v1.Library.GetBook`, all of `library.v1.Library.*`. Of
    /// several selectors that name an rpc the last counts; one that names none is a
    /// [`BuildError`](crate::BuildError).
    pub requests_of: Vec<(String, RequestOptions)>,
    /// What is done with a path that ends with a slash.
    pub trailing_slash: TrailingSlash,
    /// The `domain` of the `ErrorInfo` in errors this crate finds itself.
    pub error_domain: String,
    /// Which headers cross between HTTP and gRPC.
    pub headers: HeaderPolicy,
    /// Decode `%2F` in captures of several path segments too. Off, as the
    /// annotation's definition has it: an encoded slash stays `%2F` there.
    pub fully_decode_reserved_expansion: bool,
    /// The challenge of a 401, unless the backend sends one.
    pub www_authenticate: Option<HeaderValue>,
    /// How it answers.
    pub answers: AnswerOptions,
}

impl Default for Options {
    /// 4 MiB bodies, 1000 parameters, strict requests and paths, domain `agentrouter`, `Bearer` challenge,
    /// and the defaults of [`AnswerOptions`].
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            form_type_is_json: false,
            max_query_parameters: 1000,
            requests: RequestOptions::default(),
            requests_of: Vec::new(),
            trailing_slash: TrailingSlash::default(),
            error_domain: "agentrouter".to_owned(),
            headers: HeaderPolicy::default(),
            fully_decode_reserved_expansion: false,
            www_authenticate: Some(HeaderValue::from_static("Bearer")),
            answers: AnswerOptions::default(),
        }
    }
}

/// The one media type of request bodies and unary answers.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of errors for clients that want them as RFC 9457 has them.
pub(crate) const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
pub(crate) const ACCEPT_POST: header::HeaderName = header::HeaderName::from_static("accept-post");
pub(crate) const ACCEPT_PATCH: header::HeaderName = header::HeaderName::from_static("accept-patch");
