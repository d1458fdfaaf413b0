//! The only message of a call to an answer.

use bytes::Bytes;
use futures::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tonic::body::Body;

use super::rule::{Rule, success};
use super::{AnswerOptions, Asked, Form, compress, etag, trailers};
use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::grpc::Reply;
use crate::json::{self, Selection};
use crate::options::{JSON, Options};
use crate::response;
use crate::rule::Route;

/// What an answer depends on beside its request's address, where clients may select a part of it by a header.
const SELECTABLE: &str = "x-goog-fieldmask";
/// And where it has more than one form.
const SELECTABLE_FORM: &str = "accept, x-goog-fieldmask";

/// The answer to a unary call that gave this reply.
pub(crate) async fn unary(
    asked: &Asked,
    route: &Route,
    form: Form,
    selection: Option<&Selection>,
    reply: Reply,
    errors: &ErrorRenderer,
    options: &Options,
) -> Result<Response<Body>, Failure> {
    let (message, mut headers, mut trailing) = reply.into_message().await?;
    let chosen =
        options.answers.status_metadata.as_ref().and_then(|name| status(name, &mut headers, &mut trailing));
    let mut trailing = if asked.takes_trailers {
        trailers(&options.headers, trailing)
    } else {
        headers.extend(trailing);
        None
    };
    options.headers.to_headers(&mut headers);

    let (content_type, body) = match form {
        Form::Raw => response::raw(route, &message),
        Form::Protobuf(name) => {
            (HeaderValue::from_static(name), response::protobuf(route, &message, selection, errors)?)
        }
        Form::Json | Form::Stream(_) => {
            let text = response::json(route, &message, selection, errors)?;
            let is_pretty = asked.is_pretty || route.answer.json.pretty;
            (JSON, Bytes::from(if is_pretty { json::pretty(&text) } else { text }))
        }
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    let etag = response::entity_tag(route, &message);
    if selection.is_some() && asked.is_read {
        // A tag of the whole would tell a client that it has what it never saw.
        let had_tag = headers.remove(header::ETAG).is_some();
        let has_tag = had_tag || etag.is_some() || options.answers.etag_of_body;
        if has_tag && let Some(etag) = etag::of_body(&body) {
            headers.insert(header::ETAG, etag);
        }
    } else if let Some(etag) = etag {
        headers.insert(header::ETAG, etag);
        if form != Form::Json {
            // The tag is one of the resource, and of its bytes in one form only.
            etag::weaken(&mut headers);
        }
    } else if options.answers.etag_of_body
        && asked.is_read
        && !headers.contains_key(header::ETAG)
        && let Some(etag) = etag::of_body(&body)
    {
        headers.insert(header::ETAG, etag);
    }
    let (has_forms, is_selectable) =
        (route.answer.is_message, route.answer.partial.is_some() && asked.is_read);
    match (has_forms, is_selectable) {
        _ if form == Form::Raw => {}
        (true, true) => compress::vary(&mut headers, SELECTABLE_FORM),
        (true, false) => compress::vary(&mut headers, "accept"),
        (false, true) => compress::vary(&mut headers, SELECTABLE),
        (false, false) => {}
    }
    if let Some(location) = &route.answer.location
        && let Some(location) = location.of(errors.tables(), &message)
    {
        headers.insert(header::LOCATION, location);
    }

    let status = chosen.or_else(|| by_rule(&route.answer, &options.answers)).unwrap_or(StatusCode::OK);
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    let body = match trailing.take().filter(|_| has_body) {
        _ if !has_body => {
            headers.remove(header::CONTENT_TYPE);
            Body::empty()
        }
        None => Body::new(Full::new(body)),
        Some((names, trailing)) => {
            headers.insert(header::TRAILER, names);
            let frames = [Frame::data(body), Frame::trailers(trailing)].map(Ok::<_, tonic::Status>);
            Body::new(StreamBody::new(stream::iter(frames)))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn by_rule(rule: &Rule, options: &AnswerOptions) -> Option<StatusCode> {
    rule.status.or((rule.is_empty && options.empty_is_no_content).then_some(StatusCode::NO_CONTENT))
}

/// The status that the rpc chose. What is none is passed over, since the call has succeeded.
fn status(name: &HeaderName, headers: &mut HeaderMap, trailers: &mut HeaderMap) -> Option<StatusCode> {
    let (first, last) = (headers.remove(name), trailers.remove(name));
    let value = first.or(last)?;
    let status = value.to_str().ok().and_then(|text| success(text.trim().parse().ok()?));
    if status.is_none() {
        tracing::warn!(?value, %name, "an rpc chose an HTTP status that is no success");
    }
    status
}
