//! Server streams over REST: one JSON value per line, or server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;

use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::grpc::{Messages, Reply};
use crate::headers::HeaderPolicy;
use crate::response;
use crate::rule::Route;

/// How messages are told apart on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/x-ndjson`; an error is the line `{"error": status}`.
    Lines,
    /// `text/event-stream`; an error is an event of the type `error`.
    Events,
}

impl Format {
    /// Events where `Accept` asks for them, lines otherwise.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT);
        let items = accepts.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let (mut lines, mut events) = (0, 0);
        for item in items {
            let (media, parameters) = item.split_once(';').unwrap_or((item, ""));
            let quality = quality(parameters);
            match media.trim().to_ascii_lowercase().as_str() {
                "text/event-stream" => events = quality.max(events),
                "application/x-ndjson" | "application/json" => lines = quality.max(lines),
                _ => {}
            }
        }
        if events > lines { Self::Events } else { Self::Lines }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        })
    }

    fn message(self, json: &[u8]) -> Bytes {
        match self {
            Self::Lines => [json, b"\n"].concat().into(),
            Self::Events => [b"data: ", json, b"\n\n"].concat().into(),
        }
    }

    fn error(self, json: &[u8]) -> Bytes {
        match self {
            Self::Lines => [b"{\"error\":", json, b"}\n"].concat().into(),
            Self::Events => [b"event: error\ndata: ", json, b"\n\n"].concat().into(),
        }
    }
}

/// The `q` of an item of an `Accept` header in thousandths; what cannot be read counts full.
pub(crate) fn quality(parameters: &str) -> u16 {
    let q = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
    let thousandths = q.and_then(|q| {
        let (whole, fraction) = q.trim().split_once('.').unwrap_or((q.trim(), ""));
        let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
        Some(whole.parse::<u16>().ok()?.min(1) * 1000 + digits.parse::<u16>().ok()?)
    });
    thousandths.unwrap_or(1000).min(1000)
}

struct State {
    route: Arc<Route>,
    errors: ErrorRenderer,
    format: Format,
    messages: Messages,
    /// A message read while the response headers waited.
    first: Option<Bytes>,
    ended: bool,
}

/// The streaming answer; `Err` where the call failed before its first message.
pub(crate) async fn respond(
    route: Arc<Route>,
    mut reply: Reply,
    format: Format,
    errors: ErrorRenderer,
    policy: &HeaderPolicy,
    wait: Duration,
) -> Result<Response<Body>, Failure> {
    let mut ended = false;
    let first = match tokio::time::timeout(wait, reply.messages.next()).await {
        Err(_elapsed) => None,
        Ok(Ok(Some(message))) => Some(message),
        Ok(Ok(None)) => {
            reply.messages.finish()?;
            ended = true;
            None
        }
        Ok(Err(failure)) => return Err(failure),
    };

    let mut headers = reply.headers;
    policy.to_headers(&mut headers);
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));

    let state = State { route, errors, format, messages: reply.messages, first, ended };
    let mut response = Response::new(Body::new(StreamBody::new(chunks(state))));
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = headers;
    Ok(response)
}

fn chunks(state: State) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(state, |mut state| async move {
        let chunk = state.chunk().await?;
        Some((Ok(Frame::data(chunk)), state))
    })
}

impl State {
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        match self.json().await {
            Ok(Some(json)) => Some(self.format.message(&json)),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(failure) => {
                self.ended = true;
                Some(self.format.error(&self.errors.in_band(failure)))
            }
        }
    }

    async fn json(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => self.messages.next().await?,
        };
        match message {
            Some(wire) => {
                response::body(&self.route, &wire, self.errors.encoder()).map(|body| Some(body.json))
            }
            None => self.messages.finish().map(|_| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A10 #104.
    #[test]
    fn accept_decides_the_format() {
        for (accept, expected) in [
            ("", Format::Lines),
            ("*/*", Format::Lines),
            ("text/event-stream", Format::Events),
            ("Text/Event-Stream; charset=utf-8", Format::Events),
            ("text/event-stream, */*;q=0.1", Format::Events),
            ("text/event-stream;q=0", Format::Lines),
            ("application/x-ndjson, text/event-stream;q=0.9", Format::Lines),
            ("application/x-ndjson;q=0.5, text/event-stream;q=0.9", Format::Events),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Format::negotiate(&headers), expected, "{accept}");
        }
    }
}
