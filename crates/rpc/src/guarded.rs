//! Streams that end with the credential that opened them, so that no service has to remember it.

use std::pin::Pin;
use std::task::{Context, Poll};

use agentrouter_kernel::{Fault, FaultKind};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::enforce::UntilEnded;
use crate::status::into_status;

/// The body of a streaming answer. Ends with UNAUTHENTICATED `CREDENTIAL_ENDED` once the credential has.
pub(crate) struct Guarded {
    body: Body,
    /// None once it is over.
    until_ended: Option<UntilEnded>,
}

impl Guarded {
    pub(crate) fn new(body: Body, until_ended: UntilEnded) -> Self {
        Self { body, until_ended: Some(until_ended) }
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(until_ended) = &mut self.until_ended else { return Poll::Ready(None) };
        // Before the next message: what comes after the end is for nobody.
        if until_ended.as_mut().poll(context).is_ready() {
            self.until_ended = None;
            // The service is rid of the stream at once, and not only when the caller has read the end.
            self.body = Body::empty();
            return Poll::Ready(Some(trailers().map(Frame::trailers)));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.until_ended.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn trailers() -> Result<HeaderMap, Status> {
    let status = into_status(Fault::new(
        FaultKind::Unauthenticated,
        "CREDENTIAL_ENDED",
        "the credential that opened this stream was revoked, has expired, or belongs to what is not in service any more",
    ));
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body as _;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    /// Says one thing, and then nothing.
    struct Slow(Option<Bytes>);

    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
        }
    }

    fn slow() -> Body {
        Body::new(Slow(Some(Bytes::from_static(b"news"))))
    }

    fn poll(body: &mut Guarded) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_stream_goes_on_while_its_credential_does() {
        let mut body = Guarded::new(slow(), Box::pin(std::future::pending()));
        let Poll::Ready(Some(Ok(frame))) = poll(&mut body) else { panic!("there are news") };
        assert_eq!(frame.data_ref().unwrap(), "news");
        assert!(poll(&mut body).is_pending());
        assert!(!body.is_end_stream());
    }

    #[test]
    fn a_stream_ends_with_its_credential_whatever_there_is_to_say() {
        let mut body = Guarded::new(slow(), Box::pin(std::future::ready(())));
        let Poll::Ready(Some(Ok(frame))) = poll(&mut body) else { panic!("it has ended") };
        let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.get_details_error_info().unwrap().reason, "CREDENTIAL_ENDED");
        assert!(body.is_end_stream());
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_stream_that_ends_by_itself_ends_as_it_says() {
        let mut body = Guarded::new(Body::empty(), Box::pin(std::future::pending()));
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }
}
