//! The backend's messages on their way to a client, and the end of the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::codec::JsonCodec;
use super::compression::Encoding;
use super::envelope::{self, COMPRESSED, Envelope, Splitter};
use super::inbound::Fault;
use super::{connect, deadline, text, trailers};
use crate::json::MessageId;

/// How a client wants its messages.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) encoding: Option<Encoding>,
    /// Where it wants them in JSON.
    pub(super) json: Option<(JsonCodec, MessageId)>,
    /// The shortest message that is compressed.
    pub(super) compress_from: usize,
}

impl Outbound {
    fn is_verbatim(&self) -> bool {
        self.encoding.is_none() && self.json.is_none()
    }

    /// The encoding of a message of this length.
    pub(super) fn encoding_for(&self, length: usize) -> Option<Encoding> {
        self.encoding.filter(|_| length >= self.compress_from.max(1))
    }

    fn append(&self, envelope: &Envelope, out: &mut Vec<u8>) -> Result<(), Status> {
        envelope::check_flags(envelope.flags, false)?;
        let Some((codec, output)) = &self.json else {
            return self.append_message(&envelope.message(), out);
        };
        if self.encoding.is_none() {
            return envelope::append(out, 0, |out| codec.to_json(*output, &envelope.message(), out));
        }
        let mut message = Vec::new();
        codec.to_json(*output, &envelope.message(), &mut message)?;
        self.append_message(&message, out)
    }

    fn append_message(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        match self.encoding_for(message.len()) {
            Some(encoding) => envelope::append(out, COMPRESSED, |out| encoding.compress(message, out)),
            None => envelope::append(out, 0, |out| {
                out.extend_from_slice(message);
                Ok(())
            }),
        }
    }
}

/// How an answer ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// With HTTP trailers.
    Grpc,
    /// With an envelope of trailers.
    GrpcWeb,
    /// As that, all of it in base64.
    GrpcWebText,
    /// With an envelope of JSON.
    Connect(JsonCodec),
}

/// The body of an answer in envelopes. Each message is sent as soon as the backend has made it.
#[derive(Debug)]
pub(super) struct Answer {
    /// The backend's answer; dropped, and the handler with it, when the answer ends.
    pub(super) source: Option<Body>,
    pub(super) messages: Messages,
    pub(super) ending: Ending,
    /// What the handler wants to be sent at the end.
    pub(super) trailers: HeaderMap,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// What is wrong with the request; its handler may still run.
    pub(super) fault: Option<Fault>,
}

/// What becomes of the backend's messages.
#[derive(Debug)]
pub(super) enum Messages {
    /// Nothing: gRPC's own envelopes in protobuf are those of all protocols.
    Verbatim,
    Written(Splitter, Outbound),
}

impl From<Outbound> for Messages {
    fn from(outbound: Outbound) -> Self {
        if outbound.is_verbatim() {
            Self::Verbatim
        } else {
            Self::Written(Splitter::new(usize::MAX), outbound)
        }
    }
}

impl Messages {
    /// What there is to send of the messages that have arrived.
    fn take(&mut self, data: Bytes) -> Result<Bytes, Status> {
        let Self::Written(splitter, outbound) = self else { return Ok(data) };
        splitter.push(data);
        let mut out = Vec::new();
        while let Some(envelope) = splitter.next()? {
            outbound.append(&envelope, &mut out)?;
        }
        Ok(out.into())
    }
}

/// How the backend ended, or was ended.
enum End {
    /// By its own trailers.
    Trailers(HeaderMap),
    Failed(Status),
}

impl Answer {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            let Some(source) = &mut self.source else { return Poll::Ready(None) };
            let is_late = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
            let frame = Pin::new(source).poll_frame(context);
            let end = match frame {
                // An ending of the backend's own is as good.
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                    End::Trailers(frame.into_trailers().unwrap_or_default())
                }
                _ if is_late => End::Failed(deadline::exceeded()),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => End::Failed(trailers::without_status()),
                Poll::Ready(Some(Err(status))) => End::Failed(status),
                Poll::Ready(Some(Ok(frame))) => {
                    match self.messages.take(frame.into_data().unwrap_or_default()) {
                        Ok(data) if data.is_empty() => continue,
                        Ok(data) => return Poll::Ready(Some(Frame::data(self.written(data)))),
                        Err(status) => End::Failed(status),
                    }
                }
            };
            return Poll::Ready(Some(self.end(end)));
        }
    }

    /// The last frame.
    fn end(&mut self, end: End) -> Frame<Bytes> {
        self.source = None;
        let fault = self.fault.as_ref().and_then(|fault| fault.get());
        let end = fault.map_or(end, |fault| End::Failed(fault.clone()));
        let mut block = std::mem::take(&mut self.trailers);
        if let Ending::Connect(codec) = &self.ending {
            let outcome = match end {
                End::Failed(status) => Err(status),
                End::Trailers(trailers) => {
                    block.extend(trailers);
                    trailers::outcome(block)
                }
            };
            return Frame::data(connect::end_of_stream(codec, outcome));
        }
        block.extend(match end {
            End::Trailers(trailers) => trailers,
            End::Failed(status) => trailers::of_status(&status),
        });
        if matches!(self.ending, Ending::Grpc) {
            trailers::guard(&mut block);
            return Frame::trailers(block);
        }
        Frame::data(self.written(trailers::web_envelope(&block)))
    }

    fn written(&self, data: Bytes) -> Bytes {
        if matches!(self.ending, Ending::GrpcWebText) { text::encode(&data) } else { data }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(self.poll_next(context));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }
}
