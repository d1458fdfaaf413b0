//! Deadlines inside the backend's stack of layers: what is outside of this one sees how a late call ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::Either;
use http::header::HeaderMap;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::answer::{Answer, Ending, Messages};
use super::deadline::Deadline;
use crate::grpc::STATUS;

/// Ends gRPC calls at their deadline, with DEADLINE_EXCEEDED, and drops their handlers.
///
/// [`Protocols`](crate::Protocols) does the same for what it serves, but it does so outside of the backend: a layer
/// there that counts calls would see one that was given up. It belongs inside of such a layer. REST calls have their
/// deadline from here alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner }
    }
}

/// The service made by [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Timed<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clock of a call starts with its first byte, which was long ago.
        let begun = request.extensions().get().copied().map(Ok);
        let deadline: Deadline = match begun.unwrap_or_else(|| Deadline::of_grpc(request.headers())) {
            Ok(deadline) => deadline,
            Err(status) => return Either::Right(Box::pin(std::future::ready(Ok(status.into_http())))),
        };
        let answer = self.inner.call(request);
        if deadline.is_none() {
            return Either::Left(answer);
        }
        Either::Right(Box::pin(async move {
            let response = match deadline.limit(answer).await {
                Ok(response) => response?,
                Err(status) => status.into_http(),
            };
            if response.headers().contains_key(STATUS) {
                return Ok(response);
            }
            Ok(response.map(|body| {
                Body::new(Answer {
                    source: Some(body),
                    messages: Messages::Verbatim,
                    ending: Ending::Grpc,
                    trailers: HeaderMap::new(),
                    timer: deadline.timer(),
                    fault: None,
                })
            }))
        }))
    }
}
