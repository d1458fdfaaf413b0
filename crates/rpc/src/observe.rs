//! Counts and traces every call, refused ones included, and outlives those that panic. The outermost layer of the gRPC
//! services, so that each protocol passes it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use agentrouter_telemetry::Telemetry;
use agentrouter_telemetry::metrics::{CallTimer, MethodMetrics};
use agentrouter_telemetry::trace::{self, Context, FutureExt, SpanContext, Tracer};
use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::call::RequestId;
use crate::panics;
use crate::policy::Policies;

/// Methods of the services that are not ours.
const OTHERS: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// What all methods that do not exist are counted as: clients choose those names, and there is no end of them.
const UNKNOWN: &str = "unknown";

/// Wraps the gRPC services.
#[derive(Clone)]
pub struct ObserveLayer(Arc<Shared>);

struct Shared {
    telemetry: Telemetry,
    methods: HashMap<String, Method>,
    unknown: Method,
}

struct Method {
    service: String,
    name: String,
    metrics: Arc<MethodMetrics>,
}

impl std::fmt::Debug for ObserveLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObserveLayer(..)")
    }
}

impl ObserveLayer {
    /// A layer that knows the methods of these policies.
    pub fn new(policies: &Policies, telemetry: Telemetry) -> Self {
        let method = |full_name: &str| {
            let (service, name) = full_name.split_once('/').unwrap_or((full_name, ""));
            let metrics = telemetry.metrics().rpc.method(full_name);
            Method { service: service.to_owned(), name: name.to_owned(), metrics }
        };
        let names = policies.iter().map(|policy| policy.method.as_str()).chain(OTHERS);
        let methods = names.map(|name| (format!("/{name}"), method(name))).collect();
        let unknown = method(UNKNOWN);
        Self(Arc::new(Shared { telemetry, methods, unknown }))
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { inner, shared: Arc::clone(&self.0) }
    }
}

/// The service made by [`ObserveLayer`].
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> std::fmt::Debug for Observe<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observe(..)")
    }
}

impl<S, ReqBody> Service<Request<ReqBody>> for Observe<S>
where
    S: Service<Request<ReqBody>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let mut open = self.shared.open(request.uri().path(), request.headers());
        let request_id = request.extensions().get::<RequestId>().cloned();
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let answer = match open.span.clone() {
                Some(span) => answer.with_context(span).await,
                None => answer.await,
            };
            let response = match answer {
                Ok(response) => response?,
                Err(panic) => panics::status(&*panic, request_id.as_ref()).into_http(),
            };
            // A refusal has its code among the headers; what is answered with a body has it at the end of that.
            if let Some(code) = code(response.headers()) {
                open.timer.set_code(code);
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Observed { body, open, request_id })))
        })
    }
}

impl Shared {
    fn open(&self, path: &str, headers: &HeaderMap) -> OpenCall {
        let method = self.methods.get(path).unwrap_or(&self.unknown);
        let timer = self.telemetry.metrics().rpc.start(&method.metrics);
        let span = self.telemetry.tracer().map(|tracer| {
            let caller = caller(headers);
            let is_new = caller.is_none();
            let span = tracer.start_call(&method.service, &method.name, caller);
            // The line of the log has the caller's trace already, where there is one.
            if is_new && let Some(trace) = trace::trace_id(&span) {
                tracing::Span::current().record("trace_id", trace);
            }
            span
        });
        OpenCall { timer, span }
    }
}

/// The span that a caller says it is in.
pub fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    trace::parse(text("traceparent")?, text("tracestate"))
}

/// A call under way; ends when it is dropped.
struct OpenCall {
    timer: CallTimer,
    span: Option<Context>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        const CANCELLED: i32 = 1;
        if let Some(span) = &self.span {
            Tracer::end_call(span, self.timer.code().unwrap_or(CANCELLED));
        }
    }
}

/// An answer on its way out.
struct Observed {
    body: Body,
    open: OpenCall,
    request_id: Option<RequestId>,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(context)));
        let frame = ready!(polled.unwrap_or_else(|panic| {
            // What panicked is not asked again.
            self.body = Body::empty();
            Poll::Ready(Some(Err(panics::status(&*panic, self.request_id.as_ref()))))
        }));
        let code = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().and_then(code),
            Some(Err(status)) => Some(i32::from(status.code())),
            None => None,
        };
        if let Some(code) = code {
            self.open.timer.set_code(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code(headers: &HeaderMap) -> Option<i32> {
    headers.get(Status::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use agentrouter_api::DESCRIPTOR_POOL;
    use http_body::Body as _;
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// Panics when it is asked for its second frame.
    struct Fragile(bool);

    impl http_body::Body for Fragile {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut TaskContext<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            assert!(!std::mem::replace(&mut self.0, true), "a stream broke");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"news")))))
        }
    }

    fn request(path: &str) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().expect("a path");
        request.extensions_mut().insert(RequestId("request-1".into()));
        request
    }

    fn layer() -> ObserveLayer {
        let policies = Policies::load(&DESCRIPTOR_POOL).expect("every method has one");
        ObserveLayer::new(&policies, Telemetry::default())
    }

    fn check(status: &Status) {
        assert_eq!(status.code(), tonic::Code::Internal);
        assert_eq!(status.get_details_error_info().expect("a reason").reason, "PANIC");
        assert_eq!(status.get_details_request_info().expect("an id").request_id, "request-1");
        assert!(!status.message().contains("broke"), "what happened is for the log: {status:?}");
    }

    // A6 #80: a panic costs its call.
    #[tokio::test]
    async fn a_panic_is_answered_with_internal() {
        let service = tower::service_fn(|request: Request<()>| async move {
            assert!(request.uri().path() == "/fine", "it broke");
            Ok(Response::new(Body::empty()))
        });
        let service = layer().layer(service);
        let response = service.clone().oneshot(request("/broken")).await.expect("an answer");
        check(&Status::from_header_map(response.headers()).expect("a status"));
        assert!(service.oneshot(request("/fine")).await.is_ok());
    }

    // A6 #80: also where the answer has begun.
    #[tokio::test]
    async fn a_stream_that_panics_ends_with_internal() {
        let service =
            tower::service_fn(|_: Request<()>| async { Ok(Response::new(Body::new(Fragile(false)))) });
        let response = layer().layer(service).oneshot(request("/stream")).await.expect("an answer");
        let mut body = response.into_body();
        let mut next = || {
            let mut context = TaskContext::from_waker(std::task::Waker::noop());
            Pin::new(&mut body).poll_frame(&mut context)
        };
        let Poll::Ready(Some(Ok(frame))) = next() else { panic!("there are news") };
        assert_eq!(frame.data_ref().expect("data"), "news");
        let Poll::Ready(Some(Err(status))) = next() else { panic!("it broke") };
        check(&status);
    }
}
