//! CORS: which pages of other origins may call, and what they may read. The methods of a path come from the routes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use url::Url;

/// What pages may send: the headers of all protocols that browsers speak, and those of our own.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept,accept-language,authorization,connect-accept-encoding,connect-content-encoding,\
     connect-protocol-version,connect-timeout-ms,content-type,grpc-accept-encoding,grpc-encoding,grpc-timeout,\
     idempotency-key,if-match,if-none-match,last-event-id,traceparent,tracestate,x-agentrouter-customer,x-grpc-web,\
     x-request-id,x-server-timeout,x-user-agent",
);
/// What pages may read besides what they always may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "connect-content-encoding,etag,grpc-encoding,grpc-message,grpc-status,grpc-status-details-bin,location,\
     ratelimit,ratelimit-policy,retry-after,www-authenticate,x-request-id",
);
/// What the answer to a preflight depends on.
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("origin,access-control-request-method,access-control-request-headers");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The methods of a path; none where nothing is served there.
#[derive(Clone)]
pub struct Methods(Arc<MethodsOf>);

type MethodsOf = dyn Fn(&str) -> Vec<Method> + Send + Sync;

impl Methods {
    /// What answers the question for a path.
    pub fn new(of: impl Fn(&str) -> Vec<Method> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Methods(..)")
    }
}

/// Which pages may call.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Origins,
    allows_credentials: bool,
    max_age: HeaderValue,
}

#[derive(Debug, Clone)]
enum Origins {
    Any,
    These(Vec<HeaderValue>),
}

/// Why CORS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsError {
    /// What is no origin.
    NoOrigin(String),
    /// Any page on the web could act as whoever is signed in.
    CredentialsForAny,
}

impl fmt::Display for CorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrigin(text) => {
                write!(f, "{text:?} is no origin such as https://console.example.com, and not `*`")
            }
            Self::CredentialsForAny => f.write_str("credentials cannot be allowed to any origin; name them"),
        }
    }
}

impl std::error::Error for CorsError {}

impl Cors {
    /// CORS for pages of these origins, each as browsers write it (`https://console.example.com`), or of any (`*`
    /// alone). With credentials a browser sends cookies and client certificates, too; keys in `authorization` need none.
    ///
    /// # Errors
    /// Where an origin is none, or credentials are allowed to any.
    pub fn new(origins: &[String], allows_credentials: bool, max_age: Duration) -> Result<Self, CorsError> {
        let max_age = HeaderValue::from(max_age.as_secs());
        if matches!(origins, [any] if any == "*") {
            if allows_credentials {
                return Err(CorsError::CredentialsForAny);
            }
            return Ok(Self { origins: Origins::Any, allows_credentials, max_age });
        }
        let origins = origins.iter().map(|text| origin(text)).collect::<Result<_, _>>()?;
        Ok(Self { origins: Origins::These(origins), allows_credentials, max_age })
    }

    /// What is to be said to the page behind a request, if anything.
    pub(crate) fn grant(&self, request: &HeaderMap) -> Option<Grant> {
        let origin = request.get(header::ORIGIN)?;
        let allowed = match &self.origins {
            Origins::Any => Some(ANY),
            Origins::These(origins) => origins.contains(origin).then(|| origin.clone()),
        };
        Some(Grant { allowed, allows_credentials: self.allows_credentials })
    }

    /// The answer to a browser that asks whether a page may call. None where the request is nothing of the kind, or
    /// the page may not.
    pub(crate) fn preflight<B>(
        &self,
        request: &Request<B>,
        grant: &Grant,
        methods: &Methods,
    ) -> Option<Response<Body>> {
        grant.allowed.as_ref()?;
        if request.method() != Method::OPTIONS
            || !request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let allowed = (methods.0)(request.uri().path());
        if allowed.is_empty() {
            return None;
        }
        let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        grant.add_origin(headers);
        if let Ok(allowed) = HeaderValue::try_from(allowed.join(",")) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allowed);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        headers.insert(header::VARY, PREFLIGHT_VARY);
        Some(response)
    }

    /// Whether answers differ by who asks, so that they say so even where nobody asked from a page.
    pub(crate) fn varies(&self) -> bool {
        matches!(self.origins, Origins::These(_))
    }
}

/// What a page of the request's origin may do.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// The origin as the answer names it; none where it may nothing.
    allowed: Option<HeaderValue>,
    allows_credentials: bool,
}

impl Grant {
    /// Lets the page read the answer.
    pub(crate) fn add(&self, headers: &mut HeaderMap) {
        if self.allowed.is_some() {
            self.add_origin(headers);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }

    fn add_origin(&self, headers: &mut HeaderMap) {
        let Some(allowed) = &self.allowed else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
        if self.allows_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }
}

/// Tells caches that the answer depends on who asks.
pub(crate) fn vary(headers: &mut HeaderMap) {
    let says_so = headers.get_all(header::VARY).iter().any(|value| {
        let names = value.to_str().unwrap_or_default().split(',');
        names.map(str::trim).any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    });
    if !says_so {
        headers.append(header::VARY, VARY_ORIGIN);
    }
}

/// An origin as a browser writes it, and nothing that only looks like one: it would match nothing.
fn origin(text: &str) -> Result<HeaderValue, CorsError> {
    let no_origin = || CorsError::NoOrigin(text.to_owned());
    let url = Url::parse(text).map_err(|_| no_origin())?;
    if !matches!(url.scheme(), "http" | "https") || url.origin().ascii_serialization() != text {
        return Err(no_origin());
    }
    HeaderValue::try_from(text).map_err(|_| no_origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for good in ["https://console.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "console.example.com",
            "https://Console.example.com",
            "https://a.example/",
            "https://a.example:443",
            "ftp://a.example",
            "",
        ] {
            assert_eq!(origin(bad), Err(CorsError::NoOrigin(bad.to_owned())), "{bad}");
        }
        let all = Cors::new(&["*".to_owned()], true, Duration::ZERO).map(drop);
        assert_eq!(all, Err(CorsError::CredentialsForAny));
        let mixed = Cors::new(&["*".to_owned(), "https://a.example".to_owned()], false, Duration::ZERO);
        assert!(mixed.is_err());
    }
}
