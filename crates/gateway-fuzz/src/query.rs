//! What a query binds, beside the same message as a body: as a form, and as JSON.

use bytes::Bytes;
use http::{HeaderValue, Method, Request};

use crate::answer::{Asked, check};
use crate::world::{Answer, GATEWAY, LIMIT, send};

/// Sends the input as a query string.
pub(crate) fn run(data: &[u8]) {
    let Ok(uri) = http::Uri::try_from([b"/v1/query?", data].concat()) else { return };
    let answer = ask(Method::GET, uri.clone(), "", Bytes::new());
    check(Asked::default(), &answer);
    assert!(matches!(answer.status.as_u16(), 200 | 400), "{answer:?}");
    // What asks for another form of the answer, or for a part of it, is no part of the message. Bodies have a limit.
    let query = uri.query().unwrap_or_default();
    if query.len() > LIMIT || query.split('&').any(|pair| pair.starts_with(['$', '%'])) {
        return;
    }
    let create = http::Uri::from_static("/v1/create");
    let form = Bytes::copy_from_slice(query.as_bytes());
    let form = ask(Method::POST, create.clone(), "application/x-www-form-urlencoded", form);
    assert_eq!(form.status, answer.status, "as a form it is something else: {answer:?} {form:?}");
    if answer.status == 200 {
        assert_eq!(form.body, answer.body, "as a form it is another message");
        let again = ask(Method::POST, create, "application/json", answer.body.clone());
        assert_eq!(again.status, 200, "its own JSON is refused: {answer:?} {again:?}");
        assert_eq!(again.body, answer.body, "its own JSON is another message");
    }
}

fn ask(method: Method, uri: http::Uri, content_type: &'static str, body: Bytes) -> Answer {
    let mut request = Request::builder().method(method).uri(uri).body(()).expect("a request");
    if !content_type.is_empty() {
        request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    }
    send(GATEWAY.clone(), request, [body])
}
