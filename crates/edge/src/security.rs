//! Headers that tell a browser to be careful with an answer. A service that knows better has said so already.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What every answer says that a browser may see.
const CAREFUL: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none'")),
    // What is answered belongs to who asked.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// `hsts` where the answer goes out over TLS.
pub(crate) fn add(headers: &mut HeaderMap, hsts: Option<&HeaderValue>) {
    // Once, with room for what CORS says: each growth of the map costs more than all that is put in.
    headers.reserve(CAREFUL.len() + 6);
    for (name, value) in CAREFUL {
        headers.entry(name).or_insert(value);
    }
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

/// The time for which a browser remembers to come by TLS only. None for zero.
pub(crate) fn hsts(seconds: u64) -> Option<HeaderValue> {
    (seconds > 0).then(|| HeaderValue::try_from(format!("max-age={seconds}")).ok()).flatten()
}
