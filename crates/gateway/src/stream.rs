//! Server streams over REST: one JSON value per line, server-sent events, one array, or bytes as they are.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;

use crate::answer::{self, Plain};
use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::grpc::{Messages, Reply};
use crate::json::Selection;
use crate::options::{JSON, Options};
use crate::response;
use crate::rule::Route;

/// How messages are told apart on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/x-ndjson`; an error is the line `{"error": status}`.
    Lines,
    /// `text/event-stream`; an error is an event of the type `error`.
    Events,
    /// `application/json`; an error breaks it off.
    Array,
    /// The bytes of `google.api.HttpBody` messages one after the other, under the type of the first; an error breaks
    /// them off.
    Raw,
}

/// How messages are shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) format: Format,
    /// The part of each, where that is not all.
    pub(crate) selection: Option<Selection>,
}

/// A stream on its way to its client.
struct State {
    route: Arc<Route>,
    errors: ErrorRenderer,
    options: Arc<Options>,
    format: Format,
    selection: Option<Selection>,
    messages: Messages,
    /// A message read while the response headers waited.
    first: Option<Bytes>,
    /// Whether nothing was written yet.
    is_new: bool,
    takes_trailers: bool,
    end: End,
}

/// How far the end is.
enum End {
    /// Messages may come.
    Open,
    /// The last one came, with this behind it.
    Near(HeaderMap),
    /// Nothing but this is left.
    Trailers(HeaderMap),
    Reached,
}

/// The streaming answer; `Err` where the call failed before its first message.
pub(crate) async fn respond(
    route: Arc<Route>,
    mut reply: Reply,
    shown: Shown,
    errors: ErrorRenderer,
    options: Arc<Options>,
    takes_trailers: bool,
) -> Result<Response<Body>, Failure> {
    let Shown { format, selection } = shown;
    let mut end = End::Open;
    let next = reply.messages.next();
    // The type of raw bytes comes with the first of them.
    let waited = match format {
        Format::Raw => Some(next.await),
        _ => tokio::time::timeout(options.answers.stream_header_wait, next).await.ok(),
    };
    let first = match waited {
        None => None,
        Some(Ok(Some(message))) => Some(message),
        Some(Ok(None)) => {
            end = End::Near(reply.messages.finish()?);
            None
        }
        Some(Err(failure)) => return Err(failure),
    };

    let mut headers = reply.headers;
    options.headers.to_headers(&mut headers);
    let content_type = match format {
        Format::Lines => HeaderValue::from_static("application/x-ndjson"),
        Format::Events => HeaderValue::from_static("text/event-stream"),
        Format::Array => JSON,
        Format::Raw => response::raw(&route, first.as_ref().unwrap_or(&Bytes::new())).0,
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if format != Format::Raw {
        let is_selectable = route.answer.partial.is_some();
        answer::vary(&mut headers, if is_selectable { "accept, x-goog-fieldmask" } else { "accept" });
    }

    let messages = reply.messages;
    let is_new = true;
    let state =
        State { route, errors, options, format, selection, messages, first, is_new, takes_trailers, end };
    let mut response = Response::new(Body::new(StreamBody::new(frames(state))));
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = headers;
    Ok(response)
}

fn frames(state: State) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    stream::unfold(state, |mut state| async move {
        let frame = state.frame().await?;
        Some((frame, state))
    })
}

/// What a stream gives next.
enum Next {
    Message(Bytes),
    End(HeaderMap),
    /// It has been silent for long.
    Silence,
}

impl State {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        match std::mem::replace(&mut self.end, End::Reached) {
            End::Reached => None,
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            End::Near(trailers) => self.last(trailers),
            End::Open => match self.next().await {
                Ok(Next::End(trailers)) => self.last(trailers),
                Ok(Next::Silence) => {
                    self.end = End::Open;
                    Some(Ok(Frame::data(Bytes::from_static(b":\n\n"))))
                }
                Ok(Next::Message(message)) => match self.message(&message) {
                    Ok(data) => {
                        self.end = End::Open;
                        self.is_new = false;
                        Some(Ok(Frame::data(data)))
                    }
                    Err(failure) => Some(self.broken(failure)),
                },
                Err(failure) => Some(self.broken(failure)),
            },
        }
    }

    async fn next(&mut self) -> Result<Next, Failure> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None if self.format == Format::Events => {
                let waited =
                    tokio::time::timeout(self.options.answers.event_keep_alive, self.messages.next()).await;
                let Ok(message) = waited else { return Ok(Next::Silence) };
                message?
            }
            None => self.messages.next().await?,
        };
        match message {
            Some(message) => Ok(Next::Message(message)),
            None => self.messages.finish().map(Next::End),
        }
    }

    fn message(&self, wire: &Bytes) -> Result<Bytes, Failure> {
        if self.format == Format::Raw {
            return Ok(response::raw(&self.route, wire).1);
        }
        let json = response::json(&self.route, wire, self.selection.as_ref(), &self.errors)?;
        Ok(match self.format {
            Format::Events => event(&self.route, wire, &json),
            Format::Array if self.is_new => [b"[", &*json].concat().into(),
            Format::Array => [b",\n", &*json].concat().into(),
            Format::Lines | Format::Raw => [&*json, b"\n"].concat().into(),
        })
    }

    /// The end of a stream that came to it.
    fn last(&mut self, trailers: HeaderMap) -> Option<Result<Frame<Bytes>, Status>> {
        let trailers = Some(trailers).filter(|_| self.takes_trailers);
        let trailers = trailers.and_then(|trailers| answer::trailers(&self.options.headers, trailers));
        if self.format == Format::Array {
            if let Some((_, trailers)) = trailers {
                self.end = End::Trailers(trailers);
            }
            let end: &[u8] = if self.is_new { b"[]" } else { b"]" };
            return Some(Ok(Frame::data(Bytes::from_static(end))));
        }
        trailers.map(|(_, trailers)| Ok(Frame::trailers(trailers)))
    }

    /// The end of a stream that broke.
    fn broken(&self, failure: Failure) -> Result<Frame<Bytes>, Status> {
        let (before, after): (&[u8], &[u8]) = match self.format {
            Format::Lines => (b"{\"error\":", b"}\n"),
            Format::Events => (b"event: error\ndata: ", b"\n\n"),
            // There is no place for words. The client sees that the end is missing.
            Format::Array | Format::Raw => return Err(self.errors.status(failure)),
        };
        Ok(Frame::data([before, &self.errors.in_band(failure), after].concat().into()))
    }
}

/// One server-sent event. JSON without spaces is one line.
fn event(route: &Route, wire: &[u8], json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() + 64);
    let fields = [("id", route.answer.event_id), ("retry", route.answer.event_retry)];
    for (name, field) in fields {
        let Some(value) = field.and_then(|field: Plain| field.of(wire)) else { continue };
        // An id that would end its line, or that clients pass over, is none.
        if !value.contains(['\n', '\r', '\0']) {
            out.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
    out.into()
}
