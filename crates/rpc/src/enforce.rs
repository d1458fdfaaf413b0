//! The one place that decides whether a call may reach a service, for every protocol: whether there is room for it, who
//! calls, how often, and whether they may.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use agentrouter_kernel::{Fault, FaultKind, Principal};
use agentrouter_storage::{AuditEntry, CallOrigin, Db, audit};
use agentrouter_telemetry::metrics::Unauthenticated;
use async_trait::async_trait;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::{Layer, Service};

use crate::bounds::{Bounds, CallLimits, Load};
use crate::buckets::Level;
use crate::call::{CUSTOMER_KEY, Call, IDEMPOTENCY_KEY, Peer, RequestId, unauthenticated};
use crate::guarded::Guarded;
use crate::held::Held;
use crate::policy::{Policies, Policy};
use crate::rates::{Meters, Rates};
use crate::status::into_status;

/// Tells who a bearer token belongs to.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// Verifies a bearer token.
    ///
    /// # Errors
    /// UNAUTHENTICATED for anything that is no live credential, whatever is wrong with it.
    async fn authenticate(&self, token: &str) -> Result<Principal, Fault>;

    /// Waits until a token that was authenticated for this caller is no live credential any more, whatever ends it.
    fn until_ended(&self, token: &str, caller: &Principal) -> UntilEnded;
}

/// Is ready once a credential has ended, at most about a second later. Stops being waited for when it is dropped.
pub type UntilEnded = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Wraps the gRPC services: authenticates, enforces the method's policy and puts a [`Call`] into extensions.
#[derive(Clone)]
pub struct EnforceLayer(Arc<Shared>);

struct Shared {
    policies: Policies,
    authenticator: Arc<dyn Authenticate>,
    db: Db,
    bounds: Bounds,
    meters: Meters,
}

impl std::fmt::Debug for EnforceLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnforceLayer(..)")
    }
}

impl EnforceLayer {
    /// A layer that enforces these policies, within these bounds.
    pub fn new(
        policies: Policies,
        authenticator: Arc<dyn Authenticate>,
        db: Db,
        limits: CallLimits,
        rates: Rates,
    ) -> Self {
        let (bounds, meters) = (Bounds::new(limits), Meters::new(rates));
        Self(Arc::new(Shared { policies, authenticator, db, bounds, meters }))
    }
}

impl<S> Layer<S> for EnforceLayer {
    type Service = Enforce<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Enforce { inner, shared: Arc::clone(&self.0) }
    }
}

/// The service made by [`EnforceLayer`].
#[derive(Clone)]
pub struct Enforce<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> std::fmt::Debug for Enforce<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Enforce(..)")
    }
}

impl<S, ReqBody> Service<Request<ReqBody>> for Enforce<S>
where
    S: Service<Request<ReqBody>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        // The instance that was polled ready serves the call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let policy = shared.policies.get(parts.uri.path());
            let load = Load::of(parts.uri.path(), policy);
            let permit = match shared.bounds.enter(load).await {
                Ok(permit) => permit,
                Err(fault) => return Ok(into_status(fault).into_http()),
            };
            let mut level = None;
            let admitted = shared.admit(policy, &parts, &mut level).await;
            let mut response = match admitted {
                Ok(Some(call)) => {
                    parts.extensions.insert(call.clone());
                    let until_ended = shared.until_ended(policy, &parts, &call);
                    let address = address(&parts);
                    let response = inner.call(Request::from_parts(parts, body)).await?;
                    shared.note_refusal(&call, address, response.headers()).await;
                    match until_ended {
                        Some(until_ended) => response.map(|body| Body::new(Guarded::new(body, until_ended))),
                        None => response,
                    }
                }
                Ok(None) => inner.call(Request::from_parts(parts, body)).await?,
                Err(fault) => into_status(fault).into_http(),
            };
            if let Some(level) = level {
                shared.meters.tell(response.headers_mut(), level);
            }
            // A call ends with its answer, and a stream with its last message.
            Ok(match permit {
                Some(permit) if load == Load::Wait => response.map(|body| Body::new(Held::new(body, permit))),
                _ => response,
            })
        })
    }
}

/// Services that anyone may call: they tell nothing of any tenant.
const OPEN_PACKAGES: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

impl Shared {
    /// The context of an admitted call; none for the open services.
    async fn admit(
        &self,
        policy: Option<&Policy>,
        request: &Parts,
        level: &mut Option<Level>,
    ) -> Result<Option<Call>, Fault> {
        let path = request.uri.path();
        if OPEN_PACKAGES.iter().any(|package| path.starts_with(package)) {
            return Ok(None);
        }
        let Some(policy) = policy else {
            return Err(Fault::new(FaultKind::Unimplemented, "METHOD_NOT_FOUND", "there is no such method"));
        };
        let headers = &request.headers;
        self.meters.may_try(address(request))?;
        let caller = match bearer(headers) {
            Some(token) => {
                let caller = self.authenticator.authenticate(token).await;
                Some(
                    caller
                        .inspect_err(|fault| self.count_unknown(fault, Unauthenticated::Invalid, request))?,
                )
            }
            None if policy.is_open() => None,
            None => {
                let fault = unauthenticated();
                self.count_unknown(&fault, Unauthenticated::Missing, request);
                return Err(fault);
            }
        };
        if let Some(caller) = &caller {
            self.meters.count(&caller.credential_id, level)?;
        }
        let call = Call {
            method: policy.method.clone(),
            action: policy.audit_action().to_owned(),
            caller,
            origin: CallOrigin {
                request_id: request
                    .extensions
                    .get::<RequestId>()
                    .map(|id| id.0.to_string())
                    .unwrap_or_default(),
                peer: request.extensions.get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default(),
            },
            customer_header: text(headers, CUSTOMER_KEY)?,
            idempotency_key: text(headers, IDEMPOTENCY_KEY)?,
        };
        if let Some(principal) = &call.caller
            && let Err(fault) = check(policy, &call, principal)
        {
            self.record_denial(&call, principal, fault.reason()).await;
            return Err(fault);
        }
        Ok(Some(call))
    }

    /// What ends a stream before its time: nothing where the answer is no stream, or nobody in particular called.
    fn until_ended(&self, policy: Option<&Policy>, request: &Parts, call: &Call) -> Option<UntilEnded> {
        let is_streaming = policy.is_some_and(|policy| policy.is_streaming);
        let (true, Some(caller)) = (is_streaming, &call.caller) else { return None };
        Some(self.authenticator.until_ended(bearer(&request.headers)?, caller))
    }

    fn count_unknown(&self, fault: &Fault, credential: Unauthenticated, request: &Parts) {
        if fault.kind() == FaultKind::Unauthenticated {
            self.meters.failed(address(request));
            self.db.telemetry().metrics().rpc.unauthenticated.get_or_create(&credential).inc();
        }
    }

    /// Audits a denial that the service decided, and counts a credential in the message that it did not know.
    async fn note_refusal(&self, call: &Call, address: Option<IpAddr>, headers: &HeaderMap) {
        let Some(code) = headers.get(Status::GRPC_STATUS) else { return };
        if code == "16" {
            self.meters.failed(address);
        }
        let ("7", Some(principal)) = (code.to_str().unwrap_or_default(), &call.caller) else { return };
        let status =
            Status::from_header_map(headers).unwrap_or_else(|| Status::new(Code::PermissionDenied, ""));
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        self.record_denial(call, principal, &reason).await;
    }

    async fn record_denial(&self, call: &Call, principal: &Principal, reason: &str) {
        let entry = AuditEntry {
            customer: principal.customer,
            action: call.action.clone(),
            target: String::new(),
            origin: call.origin.clone(),
        };
        if let Err(error) = audit::record_denial(&self.db, principal, &entry, reason).await {
            // The call is refused either way.
            tracing::error!(%error, action = call.action, "a denial could not be recorded");
        }
    }
}

fn address(request: &Parts) -> Option<IpAddr> {
    request.extensions.get::<Peer>().map(|peer| peer.0.ip())
}

fn check(policy: &Policy, call: &Call, principal: &Principal) -> Result<(), Fault> {
    policy.check(principal)?;
    if call.customer_header.is_some() && !principal.is_operator() {
        return Err(Fault::denied("OPERATOR_REQUIRED", format!("only operators may send {CUSTOMER_KEY}")));
    }
    Ok(())
}

/// The bearer token, without up to two `ak-` that documented command lines put in front of any token. A key's
/// own prefix is part of neither its hash nor its checksum, so it may be there, be missing, or be doubled.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut token = token.trim();
    for _ in 0..2 {
        token = token.strip_prefix("ak-").unwrap_or(token);
    }
    (!token.is_empty()).then_some(token)
}

fn text(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::invalid_field(name, "must be sent once"));
    }
    let value = value.to_str().map_err(|_| Fault::invalid_field(name, "must be visible ASCII"))?;
    Ok(Some(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn up_to_two_prefixes_are_stripped() {
        for value in ["Bearer x", "bearer ak-x", "Bearer ak-ak-x"] {
            assert_eq!(bearer(&headers(value)), Some("x"), "{value}");
        }
        assert_eq!(bearer(&headers("Bearer ak-ak-ak-x")), Some("ak-x"));
        for value in ["Basic x", "Bearer", "Bearer ", "Bearer ak-", "x"] {
            assert_eq!(bearer(&headers(value)), None, "{value}");
        }
    }
}
