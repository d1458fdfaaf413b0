//! What is read of a request that is refused before its end.
//!
//! Over HTTP/1.1 the connection is closed with the answer where the request was not read to its end, and a client that
//! still writes then does not read the answer. Requests of a usual length are therefore read, and thrown away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Version, request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Sleep, sleep, timeout};
use tonic::Status;
use tonic::body::Body;

const BYTES_MAX: usize = 1 << 20;
const TIME_MAX: Duration = Duration::from_millis(500);

/// Whether what is refused shall be read. Who waits for `100 Continue` has not sent it and never will.
pub(super) fn is_needed(parts: &request::Parts) -> bool {
    needed(parts.version, &parts.headers)
}

fn needed(version: Version, headers: &HeaderMap) -> bool {
    version <= Version::HTTP_11 && !headers.contains_key(header::EXPECT)
}

/// Reads what is left of a request.
pub(super) async fn drain(parts: &request::Parts, mut body: Body) {
    if !is_needed(parts) {
        return;
    }
    let read = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > BYTES_MAX {
                break;
            }
        }
    };
    // Late or not: the answer is sent.
    let _ = timeout(TIME_MAX, read).await;
}

/// A refused message of a stream, until it has been read. What may follow it is not waited for.
#[derive(Debug)]
pub(super) struct Rest {
    status: Status,
    left: usize,
    timer: Pin<Box<Sleep>>,
}

impl Rest {
    /// `left` is what is still to come of the message.
    pub(super) fn new(status: Status, left: usize) -> Self {
        Self { status, left: left.min(BYTES_MAX), timer: Box::pin(sleep(TIME_MAX)) }
    }

    /// Is ready with what was wrong.
    pub(super) fn poll(&mut self, source: &mut Body, context: &mut Context<'_>) -> Poll<Status> {
        while self.left > 0 && self.timer.as_mut().poll(context).is_pending() {
            match Pin::new(&mut *source).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    let read = frame.data_ref().map_or(0, Bytes::len);
                    self.left = self.left.saturating_sub(read);
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(self.status.clone())
    }
}
