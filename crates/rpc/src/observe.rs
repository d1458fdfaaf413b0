//! Counts and traces every call, refused ones included. The outermost layer of the gRPC services, so that each
//! protocol passes it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use agentrouter_telemetry::Telemetry;
use agentrouter_telemetry::metrics::{CallTimer, MethodMetrics};
use agentrouter_telemetry::trace::{self, Context, FutureExt, SpanContext, Tracer};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

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
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = match open.span.clone() {
                Some(span) => answer.with_context(span).await?,
                None => answer.await?,
            };
            // A refusal has its code among the headers; what is answered with a body has it at the end of that.
            if let Some(code) = code(response.headers()) {
                open.timer.set_code(code);
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Observed { body, open })))
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
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
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
