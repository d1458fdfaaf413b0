//! The layer, and calls with one message.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{self, Either};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::checker::{Checker, Rpc};
use crate::rules::FaultyRules;
use crate::stream::{Fault, Incoming, Outgoing};

/// What an operator can decide about validation.
#[derive(Debug, Clone)]
pub struct ValidationOptions {
    /// The `domain` of the `ErrorInfo` in refusals. That of the transcoder's `Options` has the same default.
    pub error_domain: String,
}

impl Default for ValidationOptions {
    fn default() -> Self {
        Self { error_domain: "agentrouter".to_owned() }
    }
}

/// The rules of a pool, as a layer around the services that it describes.
///
/// A request that breaks rules is refused with INVALID_ARGUMENT before a service hears of it, and all of them are named
/// by field and by the rule's id. The messages of a stream are checked one by one; one that breaks a rule ends the call,
/// with its place among the others in front of the field (`[2].name`). A rule that cannot be evaluated is INTERNAL.
///
/// Rpcs without rules are passed on as they are. Layers that tell who may call belong around this one.
#[derive(Debug, Clone)]
pub struct Validation(Arc<Checker>);

impl Validation {
    /// Reads the rules of every rpc's request. All of them are compiled and tried, so that a faulty one is found now and
    /// not by a client: the error names the file, the field or message, and the rule of every one.
    pub fn new(pool: &DescriptorPool) -> Result<Self, FaultyRules> {
        Self::with_options(pool, ValidationOptions::default())
    }

    /// As [`Validation::new`], with other options.
    pub fn with_options(pool: &DescriptorPool, options: ValidationOptions) -> Result<Self, FaultyRules> {
        Ok(Self(Arc::new(Checker::new(pool, options.error_domain)?)))
    }

    /// The paths of the rpcs that have rules, `/package.Service/Method`, in no order.
    pub fn rpcs(&self) -> impl Iterator<Item = &str> {
        self.0.paths()
    }
}

impl<S> Layer<S> for Validation {
    type Service = Validated<S>;

    fn layer(&self, inner: S) -> Validated<S> {
        Validated { checker: Arc::clone(&self.0), inner }
    }
}

/// Services whose requests are checked; made by [`Validation`].
#[derive(Debug, Clone)]
pub struct Validated<S> {
    checker: Arc<Checker>,
    inner: S,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Validated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Answering>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(rpc) = self.checker.rpc(request.uri().path()) else {
            return Either::Left(self.inner.call(request));
        };
        let (checker, rpc) = (Arc::clone(&self.checker), Arc::clone(rpc));
        // The clone has not been asked whether it is ready.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        Either::Right(if rpc.is_client_streaming {
            Box::pin(many(inner, checker, rpc, request))
        } else {
            Box::pin(one(inner, checker, rpc, request))
        })
    }
}

/// A call with one message, which is checked before there is a call.
async fn one<S>(
    mut inner: S,
    checker: Arc<Checker>,
    rpc: Arc<Rpc>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let (parts, body) = request.into_parts();
    let frames = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(status) => return Ok(status.into_http()),
    };
    if let Err(status) = checker.frames(&rpc, &frames) {
        return Ok(status.into_http());
    }
    inner.call(Request::from_parts(parts, Body::new(Full::new(frames)))).await
}

/// A call with any number of them, each of which is checked when it comes.
async fn many<S>(
    mut inner: S,
    checker: Arc<Checker>,
    rpc: Arc<Rpc>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let fault = Fault::default();
    let told = fault.clone();
    let request = request.map(|body| Body::new(Incoming::new(body, checker, rpc, told)));
    let called = pin!(inner.call(request));
    match future::select(called, pin!(fault.wait())).await {
        Either::Right((status, _)) => Ok(status.into_http()),
        Either::Left((Ok(response), _)) => Ok(match fault.get() {
            Some(status) => status.into_http(),
            None => response.map(|body| Body::new(Outgoing::new(body, fault.clone()))),
        }),
        Either::Left((Err(never), _)) => match never {},
    }
}
