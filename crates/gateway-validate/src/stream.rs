//! Calls with many messages: what comes in is checked, and what goes out ends where that is at fault.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
use futures::task::AtomicWaker;
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::checker::{Checker, PREFIX, Rpc, frame_length};

/// What is wrong with a call's messages; whatever its service makes of that, the client is told this.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    status: OnceLock<Status>,
    /// Who waits for it: the call, and later its answer.
    waiting: AtomicWaker,
}

impl Fault {
    fn set(&self, status: Status) {
        let _ = self.0.status.set(status);
        self.0.waiting.wake();
    }

    pub(crate) fn get(&self) -> Option<Status> {
        self.0.status.get().cloned()
    }

    pub(crate) async fn wait(&self) -> Status {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Status> {
        self.0.waiting.register(context.waker());
        self.get().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The body of a request, message by message.
#[derive(Debug)]
pub(crate) struct Incoming {
    source: Body,
    checker: Arc<Checker>,
    rpc: Arc<Rpc>,
    fault: Fault,
    pending: BytesMut,
    /// Of the next message.
    index: usize,
    has_ended: bool,
}

impl Incoming {
    pub(crate) fn new(source: Body, checker: Arc<Checker>, rpc: Arc<Rpc>, fault: Fault) -> Self {
        Self { source, checker, rpc, fault, pending: BytesMut::new(), index: 0, has_ended: false }
    }

    /// The next frame, if it is there and keeps to the rules.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(length) = frame_length(&self.pending)?.filter(|length| *length <= self.pending.len()) else {
            return Ok(None);
        };
        let frame = self.pending.split_to(length).freeze();
        self.checker.message(&self.rpc, frame.get(PREFIX..).unwrap_or_default(), Some(self.index))?;
        self.index += 1;
        Ok(Some(frame))
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while !self.has_ended {
            match self.take() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                Ok(None) => {}
                Err(status) => {
                    self.has_ended = true;
                    self.fault.set(status.clone());
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(Pin::new(&mut self.source).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pending.extend_from_slice(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(status)) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    self.has_ended = true;
                    // A message that is cut off: the service says so.
                    let rest = self.pending.split().freeze();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// The body of an answer, which ends as soon as something is wrong with the request.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Dropped, and the handler with it, when the answer ends.
    source: Option<Body>,
    fault: Fault,
}

impl Outgoing {
    pub(crate) fn new(source: Body, fault: Fault) -> Self {
        Self { source: Some(source), fault }
    }

    /// The end of a call that is at fault.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.source = None;
        let mut trailers = HeaderMap::new();
        if let Err(error) = status.add_header(&mut trailers) {
            tracing::error!(%error, "a status cannot be written as trailers");
            trailers.insert("grpc-status", i32::from(status.code()).into());
        }
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let fault = self.fault.poll(context);
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        if let Poll::Ready(status) = fault {
            return Poll::Ready(Some(Ok(self.end(&status))));
        }
        match Pin::new(source).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => Poll::Ready(Some(Ok(frame))),
            // What the service makes of the fault is its own affair.
            other => match self.fault.get() {
                Some(status) => Poll::Ready(Some(Ok(self.end(&status)))),
                None => other,
            },
        }
    }
}
