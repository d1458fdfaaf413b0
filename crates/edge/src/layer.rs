//! The layer around everything that is served.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use agentrouter_gateway::{Caller, ErrorRenderer};
use agentrouter_listener::Connection;
use agentrouter_rpc::{RequestId, panics};
use axum::body::Body;
use http::{HeaderValue, Request, Response};
use tower::{Layer, Service};

use crate::cors::{self, Cors, Grant, Methods};
use crate::head::HeadLimits;
use crate::security;

/// What [`EdgeLayer`] does.
#[derive(Debug, Clone)]
pub struct Edge {
    /// How much heads may say.
    pub head: HeadLimits,
    /// Which pages may call; none where no page of another origin may.
    pub cors: Option<Cors>,
    /// How long browsers remember to come by TLS only, where they did; 0 for not at all.
    pub hsts_seconds: u64,
    /// The methods of a path.
    pub methods: Methods,
    /// What writes refusals.
    pub errors: ErrorRenderer,
}

/// Wraps everything that is served.
#[derive(Debug, Clone)]
pub struct EdgeLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    edge: Edge,
    hsts: Option<HeaderValue>,
}

impl EdgeLayer {
    /// A layer that does this.
    pub fn new(edge: Edge) -> Self {
        let hsts = security::hsts(edge.hsts_seconds);
        Self(Arc::new(Shared { edge, hsts }))
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = AtEdge<S>;

    fn layer(&self, inner: S) -> AtEdge<S> {
        AtEdge { inner, shared: Arc::clone(&self.0) }
    }
}

/// The service made by [`EdgeLayer`].
#[derive(Debug, Clone)]
pub struct AtEdge<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for AtEdge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Edge { head, cors, methods, errors, .. } = &self.shared.edge;
        let about = About {
            caller: Caller::of(request.headers()),
            request_id: request.extensions().get::<RequestId>().cloned(),
            is_tls: request.extensions().get::<Connection>().is_some_and(|connection| connection.is_tls),
            grant: cors.as_ref().and_then(|cors| cors.grant(request.headers())),
            shared: Arc::clone(&self.shared),
        };
        if let Err((status, http)) = head.check(&request) {
            let response = errors.refusal(&about.caller, &status, Some(http)).map(Body::new);
            return Answering::Refused { response: Some(response), about };
        }
        if let (Some(cors), Some(grant)) = (cors, &about.grant)
            && let Some(response) = cors.preflight(&request, grant, methods)
        {
            return Answering::Preflight { response: Some(response) };
        }
        // What panics before it has given a future is caught as well.
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => Answering::Served { inner, about },
            Err(panic) => Answering::Refused { response: Some(about.panicked(&*panic)), about },
        }
    }
}

/// What is remembered of a request until its answer.
#[derive(Debug)]
pub struct About {
    caller: Caller,
    request_id: Option<RequestId>,
    is_tls: bool,
    grant: Option<Grant>,
    shared: Arc<Shared>,
}

impl About {
    fn panicked(&self, panic: &(dyn std::any::Any + Send)) -> Response<Body> {
        let status = panics::status(panic, self.request_id.as_ref());
        self.shared.edge.errors.refusal(&self.caller, &status, None).map(Body::new)
    }

    fn finish(&self, mut response: Response<Body>) -> Response<Body> {
        // No browser speaks gRPC as it is, and those who do are not made to read what is not for them.
        if self.caller.is_native_grpc() {
            return response;
        }
        let headers = response.headers_mut();
        security::add(headers, self.shared.hsts.as_ref().filter(|_| self.is_tls));
        if let Some(grant) = &self.grant {
            grant.add(headers);
        }
        if self.shared.edge.cors.as_ref().is_some_and(Cors::varies) {
            cors::vary(headers);
        }
        response
    }
}

pin_project_lite::pin_project! {
    /// An answer on its way.
    #[project = Projected]
    #[derive(Debug)]
    pub enum Answering<F> {
        /// Refused before anything saw it.
        Refused { response: Option<Response<Body>>, about: About },
        /// The answer to a browser, which asks no more of it.
        Preflight { response: Option<Response<Body>> },
        /// Under way.
        Served { #[pin] inner: F, about: About },
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Refused { response, about } => {
                Poll::Ready(Ok(about.finish(response.take().unwrap_or_default())))
            }
            Projected::Preflight { response } => Poll::Ready(Ok(response.take().unwrap_or_default())),
            Projected::Served { inner, about } => {
                let polled = catch_unwind(AssertUnwindSafe(|| inner.poll(context)));
                let response = match polled {
                    Ok(polled) => ready!(polled)?,
                    Err(panic) => about.panicked(&*panic),
                };
                Poll::Ready(Ok(about.finish(response)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, Method};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    const PAGE: &str = "https://console.example.com";

    fn layer(cors: Option<Cors>) -> EdgeLayer {
        let methods = Methods::new(|path| match path {
            "/v1/things" => vec![Method::GET, Method::POST],
            _ => Vec::new(),
        });
        let head = HeadLimits { uri_bytes: 100, fields: 10 };
        EdgeLayer::new(Edge { head, cors, hsts_seconds: 60, methods, errors: ErrorRenderer::default() })
    }

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        Cors::new(&origins, credentials, Duration::from_mins(10)).expect("good origins")
    }

    /// The answer to a request at `/panic`, or one that is fine and of a day to come in its `cache-control`.
    async fn ask(layer: &EdgeLayer, request: http::request::Builder) -> Response<Body> {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let path = request.uri().path();
            assert!(path != "/panic", "a secret of the handler");
            let mut response = Response::new(Body::from("fine"));
            if path == "/cached" {
                response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=300"));
                response.headers_mut().insert("vary", HeaderValue::from_static("accept-encoding"));
            }
            Ok(response)
        });
        let mut request = request.body(Body::empty()).expect("a request");
        request.extensions_mut().insert(RequestId("request-1".into()));
        layer.layer(service).oneshot(request).await.expect("an answer")
    }

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.expect("it is in memory").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    fn preflight(path: &str, origin: &str) -> http::request::Builder {
        Request::options(path)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,connect-protocol-version")
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    // A11 #112: the routes say which methods a page may use, and the answer may be kept.
    #[tokio::test]
    async fn preflights_are_answered_from_the_routes() {
        let layer = layer(Some(cors(&[PAGE], true)));
        let response = ask(&layer, preflight("/v1/things", PAGE)).await;
        assert_eq!(response.status(), 204);
        let headers = response.headers();
        assert_eq!(value(headers, "access-control-allow-origin"), PAGE);
        assert_eq!(value(headers, "access-control-allow-methods"), "GET,POST");
        assert_eq!(value(headers, "access-control-allow-credentials"), "true");
        assert_eq!(value(headers, "access-control-max-age"), "600");
        assert!(value(headers, "vary").starts_with("origin,"), "{headers:?}");
        let allowed = value(headers, "access-control-allow-headers");
        for name in [
            "authorization",
            "content-type",
            "connect-protocol-version",
            "connect-timeout-ms",
            "x-grpc-web",
            "grpc-timeout",
            "if-match",
            "idempotency-key",
        ] {
            assert!(allowed.split(',').any(|allowed| allowed == name), "{name} in {allowed}");
        }
        // Neither a path that is not there nor another page gets anything.
        for (path, origin) in [("/v1/nothing", PAGE), ("/v1/things", "https://evil.example")] {
            let response = ask(&layer, preflight(path, origin)).await;
            assert_eq!(text(response).await, "fine", "it is a request like any other");
        }
    }

    // A11 #112: what pages may read, and that caches tell pages apart.
    #[tokio::test]
    async fn answers_are_for_the_pages_that_may_read_them() {
        let named = layer(Some(cors(&[PAGE], false)));
        let response = ask(&named, Request::get("/v1/things").header("origin", PAGE)).await;
        let headers = response.headers();
        assert_eq!(value(headers, "access-control-allow-origin"), PAGE);
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let exposed = value(headers, "access-control-expose-headers");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "etag", "x-request-id"] {
            assert!(exposed.split(',').any(|exposed| exposed == name), "{name} in {exposed}");
        }
        for request in
            [Request::get("/cached").header("origin", "https://evil.example"), Request::get("/cached")]
        {
            let response = ask(&named, request).await;
            assert!(!response.headers().contains_key("access-control-allow-origin"));
            let vary: Vec<_> = response.headers().get_all("vary").iter().collect();
            assert_eq!(vary, ["accept-encoding", "origin"]);
        }
        // A refusal is read by the page, too.
        let long = Request::get(format!("/{}", "p".repeat(200))).header("origin", PAGE);
        let response = ask(&named, long).await;
        assert_eq!(
            (response.status().as_u16(), value(response.headers(), "access-control-allow-origin")),
            (414, PAGE)
        );

        let any = layer(Some(cors(&["*"], false)));
        let response = ask(&any, Request::get("/v1/things").header("origin", PAGE)).await;
        assert_eq!(value(response.headers(), "access-control-allow-origin"), "*");
        let none = layer(None);
        let response = ask(&none, preflight("/v1/things", PAGE)).await;
        assert!(response.headers().keys().all(|name| !name.as_str().starts_with("access-control-")));
    }

    // A9 #102: heads that say too much are refused in the caller's protocol.
    #[tokio::test]
    async fn heads_are_bounded() {
        let layer = layer(None);
        let long = format!("/v1/things?{}", "q".repeat(100));
        assert_eq!(ask(&layer, Request::get(&long)).await.status(), 414);
        let response = ask(&layer, Request::post(&long).header("content-type", "application/grpc")).await;
        assert_eq!((response.status().as_u16(), value(response.headers(), "grpc-status")), (200, "3"));
        let many =
            (0..11).fold(Request::get("/"), |request, index| request.header(format!("x-{index}"), "v"));
        let response = ask(&layer, many).await;
        assert_eq!(response.status(), 431);
        assert!(text(response).await.contains("TOO_MANY_HEADER_FIELDS"));
    }

    // A11: what is answered is not kept by caches, not sniffed and not framed, unless it says otherwise.
    #[tokio::test]
    async fn browsers_are_told_to_be_careful() {
        let layer = layer(None);
        let response = ask(&layer, Request::get("/v1/things")).await;
        let headers = response.headers();
        assert_eq!(value(headers, "x-content-type-options"), "nosniff");
        assert_eq!(value(headers, "referrer-policy"), "no-referrer");
        assert_eq!(value(headers, "content-security-policy"), "frame-ancestors 'none'");
        assert_eq!(value(headers, "cache-control"), "no-store");
        assert!(!headers.contains_key("strict-transport-security"), "it came in plain text");
        assert_eq!(
            value(ask(&layer, Request::get("/cached")).await.headers(), "cache-control"),
            "max-age=300"
        );
        let grpc = ask(&layer, Request::post("/a.B/C").header("content-type", "application/grpc")).await;
        assert!(grpc.headers().is_empty(), "{:?}", grpc.headers());

        let peer = "127.0.0.1:1".parse().expect("an address");
        let connection = Connection { peer, is_tls: true, certificate: None };
        let response = ask(&layer, Request::get("/v1/things").extension(connection)).await;
        assert_eq!(value(response.headers(), "strict-transport-security"), "max-age=60");
    }

    // A6 #80: a panic is answered in the caller's protocol, with the id of the request and nothing of its cause.
    #[tokio::test]
    async fn panics_are_answered() {
        let layer = layer(None);
        let response = ask(&layer, Request::get("/panic")).await;
        assert_eq!(response.status(), 500);
        let json = text(response).await;
        assert!(json.contains("request-1") && json.contains("PANIC") && !json.contains("secret"), "{json}");
        let response =
            ask(&layer, Request::post("/panic").header("content-type", "application/grpc-web+proto")).await;
        assert_eq!((response.status().as_u16(), value(response.headers(), "grpc-status")), (200, "13"));
    }
}
