//! Request bodies that have to move on.

use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service;

/// How fast a request body has to come. Only the time that is spent waiting for it counts.
#[derive(Debug, Clone, Copy)]
pub struct BodyPace {
    /// The longest pause between two pieces.
    pub idle: Duration,
    /// How long one waits for all pieces together, however small they are.
    pub grace: Duration,
    /// The bytes that earn a second more than that.
    pub bytes_per_second: u32,
}

impl Default for BodyPace {
    fn default() -> Self {
        Self { idle: Duration::from_secs(15), grace: Duration::from_secs(30), bytes_per_second: 1024 }
    }
}

/// Gives every request body its time. A stream of messages that the client sends as it likes, by its method, has only
/// to begin in time.
#[derive(Debug, Clone)]
pub struct Timely<S> {
    inner: S,
    pace: BodyPace,
    client_streams: Arc<HashSet<String>>,
}

impl<S> Timely<S> {
    /// `client_streams` are the paths of the methods whose requests are streams.
    pub fn new(inner: S, pace: BodyPace, client_streams: Arc<HashSet<String>>) -> Self {
        Self { inner, pace, client_streams }
    }
}

impl<S, B> Service<Request<B>> for Timely<S>
where
    S: Service<Request<Moving<B>>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        let is_framed = content_type.starts_with(b"application/grpc")
            || content_type.starts_with(b"application/connect+");
        let is_stream = is_framed && self.client_streams.contains(request.uri().path());
        let pace = self.pace;
        self.inner.call(request.map(|body| Moving::new(body, pace, is_stream)))
    }
}

pin_project_lite::pin_project! {
    /// A body that fails with DEADLINE_EXCEEDED where it comes too slowly.
    #[derive(Debug)]
    pub struct Moving<B> {
        #[pin]
        body: B,
        pace: BodyPace,
        // Whether only its beginning has to be in time.
        is_stream: bool,
        received: u64,
        // Spent on waiting for what has come by now.
        waited: Duration,
        waiting: Option<Waiting>,
    }
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// None between two waits: the timer is kept.
    is_over: bool,
    limit: Pin<Box<Sleep>>,
}

impl<B> Moving<B> {
    fn new(body: B, pace: BodyPace, is_stream: bool) -> Self {
        Self { body, pace, is_stream, received: 0, waited: Duration::ZERO, waiting: None }
    }
}

impl<B> Body for Moving<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(context) {
            if let Some(waiting) = this.waiting.as_mut().filter(|waiting| !waiting.is_over) {
                *this.waited += waiting.since.elapsed();
                waiting.is_over = true;
            }
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                *this.received += u64::try_from(data.len()).unwrap_or(u64::MAX);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if *this.is_stream && *this.received > 0 {
            return Poll::Pending;
        }
        // Most bodies come with their heads, so that a timer is made only for those that do not.
        let waiting = this.waiting.get_or_insert_with(|| {
            let since = Instant::now();
            Waiting { since, is_over: true, limit: Box::pin(sleep_until(since)) }
        });
        if waiting.is_over {
            waiting.since = Instant::now();
            waiting.is_over = false;
            let earned = Duration::from_secs(*this.received / u64::from(this.pace.bytes_per_second.max(1)));
            let left = (this.pace.grace + earned).saturating_sub(*this.waited);
            waiting.limit.as_mut().reset(waiting.since + left.min(this.pace.idle));
        }
        match waiting.limit.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(too_slow().into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_slow() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        "REQUEST_BODY_TOO_SLOW",
        agentrouter_rpc::status::ERROR_DOMAIN,
        std::collections::HashMap::new(),
    );
    Status::with_error_details(Code::DeadlineExceeded, "the request body came too slowly", details)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Full};
    use tokio::time::sleep;

    use super::*;

    const PACE: BodyPace =
        BodyPace { idle: Duration::from_secs(10), grace: Duration::from_secs(25), bytes_per_second: 10 };

    /// A body whose pieces come after these pauses.
    struct Slow {
        pieces: Vec<(Duration, usize)>,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some((pause, length)) = self.pieces.first().copied() else { return Poll::Ready(None) };
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
            self.pieces.remove(0);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; length])))))
        }
    }

    /// How many bytes come of a body, and how long that takes.
    async fn read(pieces: &[(u64, usize)], is_stream: bool) -> (Result<usize, Code>, u64) {
        let pieces = pieces.iter().map(|(pause, length)| (Duration::from_secs(*pause), *length)).collect();
        let started = Instant::now();
        let body = Moving::new(Slow { pieces, pause: None }, PACE, is_stream);
        let read = body.collect().await.map(|body| body.to_bytes().len());
        let read = read.map_err(|error| error.downcast::<Status>().expect("a status").code());
        (read, started.elapsed().as_secs())
    }

    // A9 #101: pauses are bounded, and so are many small ones.
    #[tokio::test(start_paused = true)]
    async fn bodies_have_to_move_on() {
        assert_eq!(read(&[(0, 5), (9, 5), (9, 5)], false).await, (Ok(15), 18));
        assert_eq!(read(&[(9, 5), (11, 5)], false).await, (Err(Code::DeadlineExceeded), 19));
        assert_eq!(read(&[(9, 1); 10], false).await, (Err(Code::DeadlineExceeded), 25));
        assert_eq!(read(&[(9, 90); 10], false).await, (Ok(900), 90), "what comes fast enough may be long");
    }

    // A9 #101: a stream of messages is as slow as its client likes, once it has begun.
    #[tokio::test(start_paused = true)]
    async fn streams_have_to_begin_only() {
        assert_eq!(read(&[(9, 5), (1000, 5)], true).await, (Ok(10), 1009));
        assert_eq!(read(&[(11, 5)], true).await, (Err(Code::DeadlineExceeded), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_does_not_count() {
        let slow = Slow { pieces: vec![(Duration::from_secs(9), 1); 3], pause: None };
        let mut body = Moving::new(slow, PACE, false);
        for _ in 0..2 {
            assert!(body.frame().await.expect("a piece").is_ok());
            sleep(Duration::from_mins(10)).await;
        }
        assert!(body.frame().await.expect("a piece").is_err(), "27 s were waited for, though");
    }

    // A9 #101: what is a stream is decided by the method, not by what the client says of the type.
    #[tokio::test]
    async fn streams_are_known_by_their_method() {
        let streams = Arc::new(HashSet::from(["/a.B/Stream".to_owned()]));
        let service = tower::service_fn(|request: Request<Moving<Full<Bytes>>>| async move {
            Ok::<_, Infallible>(request.into_body().is_stream)
        });
        let mut service = Timely::new(service, PACE, streams);
        for (path, content_type, is_stream) in [
            ("/a.B/Stream", "application/grpc+proto", true),
            ("/a.B/Stream", "application/connect+json", true),
            ("/a.B/Stream", "application/json", false),
            ("/a.B/Unary", "application/grpc", false),
        ] {
            let request = Request::post(path).header("content-type", content_type);
            let request = request.body(Full::default()).expect("a request");
            assert_eq!(service.call(request).await, Ok(is_stream), "{path} {content_type}");
        }
    }
}
