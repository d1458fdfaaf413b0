//! A client's messages on their way to the backend.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::LengthLimitError;
use tonic::body::Body;
use tonic::{Code, Status};

use super::codec::JsonCodec;
use super::compression::Encoding;
use super::drain::Rest;
use super::envelope::{self, COMPRESSED, Envelope, Scanner, Splitter, check_flags};
use super::text::Base64Stream;
use crate::json::MessageId;

/// How a client's messages are written.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) encoding: Option<Encoding>,
    /// Where they are JSON.
    pub(super) json: Option<(JsonCodec, MessageId)>,
    pub(super) limit: usize,
}

impl Inbound {
    fn is_verbatim(&self) -> bool {
        self.encoding.is_none() && self.json.is_none()
    }

    /// The message as the backend reads it.
    fn frame(&self, envelope: Envelope) -> Result<Bytes, Status> {
        check_flags(envelope.flags, self.encoding.is_some())?;
        let encoding = if envelope.flags == COMPRESSED { self.encoding } else { None };
        if encoding.is_none() && self.json.is_none() {
            return Ok(envelope.whole);
        }
        self.message(encoding, &envelope.message())
    }

    /// A single message, in an envelope of its own.
    pub(super) fn message(&self, encoding: Option<Encoding>, message: &[u8]) -> Result<Bytes, Status> {
        let mut out = Vec::with_capacity(message.len() + envelope::PREFIX);
        envelope::append(&mut out, 0, |out| match (encoding, &self.json) {
            (None, None) => {
                out.extend_from_slice(message);
                Ok(())
            }
            (Some(encoding), None) => encoding.decompress(message, self.limit, out),
            (None, Some((codec, input))) => codec.to_wire(*input, message, out),
            (Some(encoding), Some((codec, input))) => {
                let mut text = Vec::new();
                encoding.decompress(message, self.limit, &mut text)?;
                codec.to_wire(*input, &text, out)
            }
        })?;
        Ok(out.into())
    }
}

/// What was wrong with a client's messages, for the end of the answer: a handler may turn it into something else.
pub(super) type Fault = Arc<OnceLock<Status>>;

/// The messages as the body of the request to the backend.
#[derive(Debug)]
pub(super) struct Incoming {
    source: Body,
    text: Option<Base64Stream>,
    reader: Reader,
    inbound: Inbound,
    fault: Fault,
    is_drained: bool,
    /// A message that is refused.
    rest: Option<Rest>,
    ended: bool,
}

#[derive(Debug)]
enum Reader {
    /// The chunks are passed on as they are.
    Scan(Scanner),
    Split(Splitter),
}

impl Reader {
    /// What has not arrived of the message that was read last.
    fn missing(&self) -> usize {
        match self {
            Self::Scan(scanner) => scanner.missing(),
            Self::Split(splitter) => splitter.missing(),
        }
    }
}

/// How the body arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// In base64.
    pub(super) is_text: bool,
    /// A message that is refused shall be read.
    pub(super) is_drained: bool,
}

impl Incoming {
    pub(super) fn new(source: Body, how: How, inbound: Inbound, fault: Fault) -> Self {
        let reader = if inbound.is_verbatim() {
            Reader::Scan(Scanner::new(inbound.limit))
        } else {
            Reader::Split(Splitter::new(inbound.limit))
        };
        Self::reading(source, how, reader, inbound, fault)
    }

    fn reading(source: Body, how: How, reader: Reader, inbound: Inbound, fault: Fault) -> Self {
        let text = how.is_text.then(Base64Stream::default);
        let is_drained = how.is_drained;
        Self { source, text, reader, inbound, fault, is_drained, rest: None, ended: false }
    }

    /// The only message of a call that has one. Leaves in `source` what was not read.
    pub(super) async fn single(source: &mut Body, how: How, inbound: Inbound) -> Result<Bytes, Status> {
        let reader = Reader::Split(Splitter::new(inbound.limit));
        let mut incoming = Self::reading(std::mem::take(source), how, reader, inbound, Fault::default());
        let message = incoming.only().await;
        *source = incoming.source;
        message
    }

    async fn only(&mut self) -> Result<Bytes, Status> {
        let missing = || Status::unimplemented("the call has no message, and needs one");
        let message = self.next().await.ok_or_else(missing)??;
        match self.next().await {
            None => Ok(message),
            Some(Err(status)) => Err(status),
            Some(Ok(_)) => Err(Status::unimplemented("the call has more than one message")),
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|context| self.poll_data(context)).await
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.rest.is_none() {
            match ready!(self.poll_good_data(context)) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Err(status) => {
                    let left = if self.is_drained { self.reader.missing() } else { 0 };
                    self.rest = Some(Rest::new(status, left));
                }
            }
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let status = ready!(rest.poll(&mut self.source, context));
        self.ended = true;
        // The first one stays.
        let _ = self.fault.set(status.clone());
        Poll::Ready(Some(Err(status)))
    }

    fn poll_good_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Reader::Split(splitter) = &mut self.reader
                && let Some(envelope) = splitter.next()?
            {
                return Poll::Ready(self.inbound.frame(envelope).map(Some));
            }
            let data = match ready!(Pin::new(&mut self.source).poll_frame(context)) {
                None => return Poll::Ready(self.check_end().map(|()| None)),
                Some(Err(error)) => return Poll::Ready(Err(interrupted(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    // Nobody reads what a client sends behind its messages.
                    Err(_) => continue,
                },
            };
            let data = match &mut self.text {
                Some(text) => text.decode(&data)?,
                None => data,
            };
            match &mut self.reader {
                Reader::Split(splitter) => splitter.push(data),
                Reader::Scan(_) if data.is_empty() => {}
                Reader::Scan(scanner) => {
                    scanner.scan(&data, |flags| check_flags(flags, false))?;
                    return Poll::Ready(Ok(Some(data)));
                }
            }
        }
    }

    fn check_end(&self) -> Result<(), Status> {
        let is_whole = match &self.reader {
            Reader::Scan(scanner) => scanner.is_at_end(),
            Reader::Split(splitter) => splitter.is_empty(),
        };
        let is_whole = is_whole && self.text.as_ref().is_none_or(Base64Stream::is_at_end);
        if is_whole { Ok(()) } else { Err(envelope::cut_off()) }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let data = ready!(self.poll_data(context));
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A layer outside may have a limit of its own; anything else is a client that went away.
fn interrupted(error: &Status) -> Status {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.is::<LengthLimitError>() {
            return Status::resource_exhausted("the request is too large");
        }
        if let Some(status) = inner.downcast_ref::<Status>()
            && status.code() == Code::DeadlineExceeded
        {
            return status.clone();
        }
        source = inner.source();
    }
    tracing::debug!(%error, "a request ended early");
    Status::cancelled("the request ended early")
}
