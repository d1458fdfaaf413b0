//! The service: routing, the stages of one request, and the answers that need
//! no backend.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use prost_reflect::DescriptorPool;
use tonic::Code;
use tonic::body::Body;
use tower::Service;

use crate::answer::{self, Asked, Form};
use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::json::Tables;
use crate::options::Options;
use crate::reading::TrailingSlash;
use crate::receive::Receiver;
use crate::router::{Match, Outcome, Router};
use crate::rule::{self, BuildError, Route, RouteInfo};
use crate::{grpc, headers, query, stream};

/// REST in front of gRPC services; see the [crate documentation](crate).
///
/// The backend is any service that answers gRPC requests in process, such as
/// tonic's `Routes`. It is cloned for every call.
#[derive(Clone)]
pub struct Transcoder<B> {
    shared: Arc<Shared>,
    backend: B,
}

struct Shared {
    routes: Vec<Arc<Route>>,
    router: Router,
    options: Arc<Options>,
    errors: ErrorRenderer,
}

impl<B> fmt::Debug for Transcoder<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transcoder")
            .field("routes", &self.shared.routes.len())
            .finish_non_exhaustive()
    }
}

impl<B> Transcoder<B> {
    /// A transcoder with the default [`Options`] for every annotated method in
    /// the pool. The error names every rule that cannot be served.
    pub fn new(pool: &DescriptorPool, backend: B) -> Result<Self, BuildError> {
        Self::with_options(pool, backend, Options::default())
    }

    /// As [`Transcoder::new`], with other options.
    pub fn with_options(pool: &DescriptorPool, backend: B, options: Options) -> Result<Self, BuildError> {
        let tables = Tables::new(pool);
        let (routes, router) = rule::routes(pool, &tables, &options)?;
        let routes = routes.into_iter().map(Arc::new).collect();
        let errors = ErrorRenderer::new(tables, &options);
        let options = Arc::new(options);
        Ok(Self { shared: Arc::new(Shared { routes, router, options, errors }), backend })
    }

    /// A transcoder without any route, for services that have no annotations and are called by the rpc protocols
    /// alone.
    pub fn without_routes(pool: &DescriptorPool, backend: B, options: Options) -> Self {
        let errors = ErrorRenderer::new(Tables::new(pool), &options);
        Self {
            shared: Arc::new(Shared {
                routes: Vec::new(),
                router: Router::default(),
                options: Arc::new(options),
                errors,
            }),
            backend,
        }
    }

    /// All routes, in the order of the descriptors.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &RouteInfo> {
        self.shared.routes.iter().map(|route| &*route.info)
    }

    /// The methods that some route serves at a path, OPTIONS and the HEAD of a GET among them; none where there is no
    /// route.
    pub fn methods(&self, path: &str) -> Vec<Method> {
        let names = match self.shared.router.find(path, &Method::OPTIONS) {
            Outcome::NotFound => return Vec::new(),
            Outcome::WrongMethod(allowed) => allowed,
            // One route serves them all.
            Outcome::Found(_) => self.shared.router.methods().clone(),
        };
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// What writes this transcoder's errors, for layers around it.
    pub fn errors(&self) -> &ErrorRenderer {
        &self.shared.errors
    }
}

impl<B, ReqBody> Service<Request<ReqBody>> for Transcoder<B>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    B::Future: Send,
    ReqBody: http_body::Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The clone that serves a call waits for its own readiness.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let backend = self.backend.clone();
        Box::pin(async move {
            let is_head = request.method() == Method::HEAD;
            let response = shared.respond(backend, request).await;
            Ok(if is_head { without_body(response) } else { response })
        })
    }
}

impl Shared {
    async fn respond<B, ReqBody>(&self, backend: B, request: Request<ReqBody>) -> Response<Body>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        ReqBody: http_body::Body<Data = Bytes> + Send + 'static,
        ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let asked = Asked::of(&request);
        let path = request.uri().path();
        if *request.method() == Method::OPTIONS && path == "*" {
            return allowing(self.router.methods());
        }
        let matched = match self.router.find(path, request.method()) {
            Outcome::Found(matched) => matched,
            Outcome::WrongMethod(allowed) if *request.method() == Method::OPTIONS => {
                return allowing(&allowed);
            }
            Outcome::WrongMethod(allowed) => return self.refuse(wrong_method(&allowed), &asked).await,
            Outcome::NotFound if request.headers().get(header::CONTENT_TYPE).is_some_and(grpc::is_grpc) => {
                return grpc::unimplemented();
            }
            Outcome::NotFound => {
                return Box::pin(self.elsewhere(request.uri(), request.method(), &asked)).await;
            }
        };
        let Some(route) = self.routes.get(matched.route) else {
            return self.refuse(not_found(), &asked).await;
        };
        // The match borrows the path, and the request is about to be taken apart.
        let uri = request.uri().clone();
        let matched = matched.in_path(uri.path());

        let mut response = match self.transcode(backend, route, &matched, &uri, request, &asked).await {
            Ok(response) => asked.finish(response, &self.options.answers).await,
            Err(failure) => Box::pin(self.refuse(failure, &asked)).await,
        };
        response.extensions_mut().insert(Arc::clone(&route.info));
        response
    }

    /// The answer where there is no route: none, or the way to the one without the slash.
    async fn elsewhere(&self, uri: &Uri, method: &Method, asked: &Asked) -> Response<Body> {
        let shorter = uri.path().strip_suffix('/').filter(|path| !path.is_empty());
        let shorter = shorter.filter(|_| self.options.trailing_slash == TrailingSlash::Redirected);
        let location = shorter.filter(|path| !matches!(self.router.find(path, method), Outcome::NotFound));
        let location = location.and_then(|path| {
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            HeaderValue::try_from(format!("{path}{query}")).ok()
        });
        let Some(location) = location else { return self.refuse(not_found(), asked).await };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, location);
        response
    }

    async fn refuse(&self, failure: Failure, asked: &Asked) -> Response<Body> {
        let mut response = self.errors.render(failure, asked.error);
        answer::vary(response.headers_mut(), "accept");
        asked.finish(response, &self.options.answers).await
    }

    async fn transcode<B, ReqBody>(
        &self,
        backend: B,
        route: &Arc<Route>,
        matched: &Match<'_>,
        uri: &Uri,
        request: Request<ReqBody>,
        asked: &Asked,
    ) -> Result<Response<Body>, Failure>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        ReqBody: http_body::Body<Data = Bytes> + Send + 'static,
        ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let form = asked.form(route, &self.options.answers)?;
        let (mut parts, body) = request.into_parts();
        if let Some(parameters) = query::system_parameters(route, uri.query()) {
            parts.extensions.insert(parameters);
        }
        let timeout = headers::timeout(&parts.headers)?;
        let (errors, options) = (&self.errors, &self.options);
        let receiver = Receiver { route, matched, uri, errors, options };
        let selection = answer::selection(route, errors.tables(), uri.query(), &parts.headers);
        let (sent, selection) = match (receiver.receive(&parts, body).await, selection) {
            (Ok(sent), Ok(selection)) => (sent, selection),
            (Err(failure), Ok(_)) => return Err(failure),
            (Ok(_), Err(violations)) => return Err(violations.into_failure()),
            (Err(failure), Err(violations)) => return Err(failure.and(violations)),
        };

        let mut metadata = parts.headers;
        self.options.headers.to_metadata(&mut metadata);
        let mut extensions = parts.extensions;
        extensions.insert(Arc::clone(&route.info));
        let context = grpc::Context { metadata, extensions, timeout };
        let reply = grpc::call(backend, route, context, sent).await?;

        if let Form::Stream(format) = form {
            let (route, options) = (Arc::clone(route), Arc::clone(&self.options));
            let shown = stream::Shown { format, selection };
            // Boxed, so that unary calls need no room for it.
            let takes_trailers = asked.takes_trailers;
            let errors = self.errors.clone();
            return Box::pin(stream::respond(route, reply, shown, errors, options, takes_trailers)).await;
        }
        answer::unary(asked, route, form, selection.as_ref(), reply, &self.errors, &self.options).await
    }
}

/// The answer to HEAD: everything of the GET but its body.
pub(crate) fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

fn allow(methods: &BTreeSet<String>) -> HeaderValue {
    let list = methods.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    // Methods are tokens, and those are header values.
    HeaderValue::try_from(list).unwrap_or(HeaderValue::from_static(""))
}

fn allowing(methods: &BTreeSet<String>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow(methods));
    response
}

fn wrong_method(allowed: &BTreeSet<String>) -> Failure {
    Failure::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", "this path does not have this HTTP method")
        .with_http(StatusCode::METHOD_NOT_ALLOWED)
        .with_header(header::ALLOW, allow(allowed))
}

fn not_found() -> Failure {
    Failure::new(Code::NotFound, "ROUTE_NOT_FOUND", "no route has this path")
}
