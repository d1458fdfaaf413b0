//! What a client asks of its answer by the headers of its request, and what becomes of an answer by that: its form,
//! its status, its `ETag`, its encoding.

mod accept;
mod compress;
pub(crate) mod etag;
mod options;
mod partial;
mod rule;
mod unary;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use tonic::Code;
use tonic::body::Body;

use crate::error::Wanted;
use crate::escape::{self, Decode};
use crate::failure::Failure;
use crate::headers::HeaderPolicy;
use crate::rule::Route;
use crate::stream::Format;
use accept::Codings;
use etag::Known;

pub(crate) use accept::{Accept, quality};
pub(crate) use compress::vary;
pub use options::{AnswerOptions, StreamFormat};
pub(crate) use partial::{FIELDS, is_parameter, selection};
pub(crate) use rule::{Extensions, Plain, Rule};
pub(crate) use unary::unary;

/// The query parameter for answers over several lines.
pub(crate) const PRETTY: &str = "$prettyPrint";

/// How an answer is written, and the name of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf(&'static str),
    /// A `google.api.HttpBody`, which has a type of its own.
    Raw,
    Stream(Format),
}

/// What a request says of its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    accept: Accept,
    codings: Codings,
    known: Known,
    /// What becomes of an error.
    pub(crate) error: Wanted,
    /// GET or HEAD.
    is_read: bool,
    is_pretty: bool,
    pub(crate) takes_trailers: bool,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let accept = Accept::of(headers);
        let is_conditional = headers.contains_key(header::IF_MATCH);
        Self {
            error: Wanted { is_conditional, is_problem: accept.is_problem },
            accept,
            codings: Codings::of(headers),
            known: if is_read { Known::of(headers) } else { Known::default() },
            is_read,
            is_pretty: request.uri().query().is_some_and(is_pretty),
            takes_trailers: takes_trailers(headers),
        }
    }

    /// The form of a route's answer. Refuses the request where the client takes none.
    pub(crate) fn form(&self, route: &Route, options: &AnswerOptions) -> Result<Form, Failure> {
        if options.compress_from.is_some() && self.codings.best.is_none() && !self.codings.identity {
            return Err(not_acceptable("the answer can be sent as it is, or in gzip, br or zstd"));
        }
        // Its type is known when it is there.
        if route.answer.is_raw {
            return Ok(if route.is_streaming { Form::Stream(Format::Raw) } else { Form::Raw });
        }
        let best = if route.is_streaming {
            let mut offers = vec![
                (Form::Stream(Format::Lines), "application/x-ndjson"),
                (Form::Stream(Format::Events), "text/event-stream"),
                (Form::Stream(Format::Array), "application/json"),
            ];
            let preferred = match options.stream_format {
                StreamFormat::Lines => 0,
                StreamFormat::Events => 1,
                StreamFormat::Array => 2,
            };
            offers.swap(0, preferred);
            self.accept.best(&offers)
        } else if route.answer.is_message {
            self.accept.best(&[
                (Form::Json, "application/json"),
                (Form::Protobuf("application/x-protobuf"), "application/x-protobuf"),
                (Form::Protobuf("application/protobuf"), "application/protobuf"),
            ])
        } else {
            self.accept.best(&[(Form::Json, "application/json")])
        };
        best.map(|(form, _)| form).ok_or_else(|| {
            not_acceptable(match (route.is_streaming, route.answer.is_message) {
                (true, _) => {
                    "the answer can be `application/x-ndjson`, `text/event-stream` or `application/json`"
                }
                (false, true) => "the answer can be `application/json` or `application/x-protobuf`",
                (false, false) => "the answer can be `application/json`",
            })
        })
    }

    /// Leaves out what the client has already, and compresses what is left.
    pub(crate) async fn finish(
        &self,
        mut response: Response<Body>,
        options: &AnswerOptions,
    ) -> Response<Body> {
        let mut encoding = None;
        if let Some(from) = options.compress_from
            && compress::is_useful(&response)
        {
            encoding = compress::choose(self.codings, response.body().size_hint().exact(), from);
            vary(response.headers_mut(), "accept-encoding");
        }
        if encoding.is_some() {
            etag::weaken(response.headers_mut());
        }
        let is_known = response.status() == StatusCode::OK
            && self.is_read
            && self.known.has(response.headers().get(header::ETAG));
        match encoding {
            _ if is_known => not_modified(response),
            Some(encoding) => Box::pin(compress::compress(response, encoding)).await,
            None => response,
        }
    }
}

/// The answer to a client that has the content.
fn not_modified(mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRAILER] {
        response.headers_mut().remove(name);
    }
    response.map(|_| Body::empty())
}

fn not_acceptable(message: &str) -> Failure {
    Failure::new(Code::InvalidArgument, "NOT_ACCEPTABLE", message).with_http(StatusCode::NOT_ACCEPTABLE)
}

/// Trailing metadata as HTTP trailers, with the header that announces them.
pub(crate) fn trailers(policy: &HeaderPolicy, mut metadata: HeaderMap) -> Option<(HeaderValue, HeaderMap)> {
    policy.to_headers(&mut metadata);
    let names: Vec<&str> = metadata.keys().map(HeaderName::as_str).collect();
    let names = HeaderValue::try_from(names.join(", ")).ok().filter(|names| !names.is_empty())?;
    Some((names, metadata))
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    let mut items = values.flat_map(|value| value.split(','));
    items.any(|item| item.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers")))
}

/// Whether a query asks for answers over several lines. Its value is judged where the other parameters are.
fn is_pretty(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_system(name, PRETTY) && value == "true"
    })
}

/// Whether a name as it stands in a query is that of a parameter that begins with a dollar sign.
fn is_system(name: &str, parameter: &str) -> bool {
    // Few begin so, and the others need no decoding.
    name.starts_with(['$', '%']) && escape::decode(name, Decode::Form).is_ok_and(|name| name == parameter)
}
