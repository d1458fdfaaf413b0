//! Client streams over REST: the body becomes messages while it arrives, each of them bound as the only one of a
//! unary call would be. Nothing is read that the rpc does not ask for, so a slow rpc slows its client down.

mod values;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use http_body::{Body as _, Frame};
use tonic::Status;
use tonic::body::Body;

use crate::body;
use crate::content::Content;
use crate::error::ErrorRenderer;
use crate::failure::{Failure, Problem, Violations};
use crate::media::Media;
use crate::request::{self, Parts};
use crate::router::Match;
use crate::rule::Route;
use values::{Values, Wrong};

/// What was wrong with a body, for the end of the answer: the rpc sees no more than that its stream broke.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<Failure>>>);

impl Fault {
    fn set(&self, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    pub(crate) fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What every message of a body is bound with besides itself.
#[derive(Debug)]
pub(crate) struct Binder {
    pub(crate) route: Arc<Route>,
    pub(crate) errors: ErrorRenderer,
    pub(crate) uri: Uri,
    pub(crate) matched: Match<'static>,
    pub(crate) headers: HeaderMap,
}

impl Binder {
    fn frame(&self, content: Content<'_>, index: Option<usize>) -> Result<Bytes, Failure> {
        let matched = self.matched.clone().in_path(self.uri.path());
        let parts =
            Parts { matched: &matched, query: self.uri.query(), headers: &self.headers, content, index };
        request::frame(&self.route, self.errors.tables(), &parts)
    }
}

/// A body as the frames of a gRPC request.
#[derive(Debug)]
pub(crate) struct Upload {
    source: Body,
    binder: Binder,
    reader: Reader,
    /// Of one message, in bytes.
    limit: usize,
    /// Of the next message.
    index: usize,
    fault: Fault,
    /// Whether the source has ended.
    is_read: bool,
    ended: bool,
}

#[derive(Debug)]
enum Reader {
    Values(Values),
    /// Each chunk that arrives is a message.
    Chunks(Bytes),
}

impl Upload {
    pub(crate) fn new(source: Body, binder: Binder, media: Media, limit: usize, fault: Fault) -> Self {
        let reader = match media {
            Media::Raw => Reader::Chunks(Bytes::new()),
            Media::Lines => Reader::Values(Values::lines(limit)),
            Media::Json | Media::Protobuf | Media::Form | Media::Multipart => {
                Reader::Values(Values::json(limit))
            }
        };
        Self { source, binder, reader, limit, index: 0, fault, is_read: false, ended: false }
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            if let Some(frame) = self.next()? {
                self.index += 1;
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.is_read {
                return Poll::Ready(Ok(None));
            }
            match ready!(Pin::new(&mut self.source).poll_frame(context)) {
                None => self.is_read = true,
                Some(Err(error)) => return Poll::Ready(Err(body::unreadable(&error, self.limit))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    match &mut self.reader {
                        Reader::Values(values) => values.push(&data),
                        Reader::Chunks(chunk) => *chunk = data,
                    }
                }
            }
        }
    }

    /// The next message of what has arrived.
    fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match &mut self.reader {
            Reader::Values(values) => {
                let value = if self.is_read { values.last() } else { values.next() };
                match value.map_err(|wrong| malformed(&wrong, self.index, self.limit))? {
                    None => Ok(None),
                    Some(text) => self.binder.frame(Content::Json(&text), Some(self.index)).map(Some),
                }
            }
            Reader::Chunks(arrived) => {
                let data = arrived.split_to(arrived.len().min(self.limit));
                // An empty body is one message, too: it has a type and a path.
                let is_empty_body = self.is_read && self.index == 0;
                if data.is_empty() && !is_empty_body {
                    return Ok(None);
                }
                let content_type = self.binder.headers.get(header::CONTENT_TYPE);
                self.binder.frame(Content::Raw { content_type, data: &data }, None).map(Some)
            }
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.poll_message(context)) {
            Ok(Some(message)) => Poll::Ready(Some(Ok(Frame::data(message)))),
            Ok(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Err(failure) => {
                self.ended = true;
                let status = Status::new(failure.code(), "the request body is at fault");
                self.fault.set(failure);
                Poll::Ready(Some(Err(status)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

fn malformed(wrong: &Wrong, index: usize, limit: usize) -> Failure {
    match wrong {
        Wrong::TooLarge => body::message_too_large(limit),
        Wrong::Malformed(what) => {
            let mut violations = Violations::default();
            let description = format!("is malformed JSON: {what}");
            violations.push(&format!("[{index}]"), Problem::MalformedJson, description);
            violations.into_failure()
        }
    }
}
