//! The document and its page over HTTP, for anybody: both tell what the product can do, nothing of an installation.

use std::sync::LazyLock;

use agentrouter_gateway::{PageSettings, page};
use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document;

const PATH: &str = "/openapi.json";

/// The routes of the document and its page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(PATH, get(|headers: HeaderMap| async move { SERVED.document.answer(&headers) }))
        .route("/docs", get(|headers: HeaderMap| async move { SERVED.page.answer(&headers) }))
}

/// Both, made when one of them is first asked for.
static SERVED: LazyLock<Served> = LazyLock::new(Served::new);

struct Served {
    document: Static,
    page: Static,
}

impl Served {
    fn new() -> Self {
        let document = document();
        let settings =
            PageSettings { document: PATH, base_url: "$AGENTROUTER_BASE_URL", token: "$AGENTROUTER_API_KEY" };
        let page = page(&document, settings);
        // Nothing runs and nothing is fetched but what is in the page already.
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            sha256(page.style),
            sha256(page.script),
        );
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        Self {
            document: Static::new(document.to_string(), HeaderValue::from_static("application/json"), None),
            page: Static::new(page.html, html, Some(policy)),
        }
    }
}

fn sha256(text: &str) -> String {
    STANDARD.encode(digest(&SHA256, text.as_bytes()))
}

/// An answer that is the same for as long as the program runs.
struct Static {
    body: String,
    headers: HeaderMap,
}

impl Static {
    fn new(body: String, content_type: HeaderValue, policy: Option<HeaderValue>) -> Self {
        let tag = HeaderValue::try_from(format!("\"{}\"", sha256(&body)));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::ETAG, tag.unwrap_or(HeaderValue::from_static("\"\"")));
        // Another release may answer under the same address: ask again, and get 304 mostly.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Some(policy) = policy {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        Self { body, headers }
    }

    fn answer(&'static self, request: &HeaderMap) -> Response {
        let headers = self.headers.clone();
        if self.is_known(request) {
            let kept: [HeaderName; 2] = [header::ETAG, header::CACHE_CONTROL];
            let headers: HeaderMap = headers
                .into_iter()
                .filter_map(|(name, value)| Some((name?, value)))
                .filter(|(name, _)| kept.contains(name))
                .collect();
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, self.body.as_str()).into_response()
    }

    /// Whether the caller has exactly this: one of its tags is ours, whatever weakened it on the way.
    fn is_known(&self, request: &HeaderMap) -> bool {
        let ours = self.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let given = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut given = given.flat_map(|value| value.split(','));
        given.any(|tag| {
            let tag = tag.trim();
            tag == "*" || Some(tag.strip_prefix("W/").unwrap_or(tag)) == ours
        })
    }
}
