//! What a query binds, beside the same message as a body.

use bytes::Bytes;
use http::{Method, Request};

use crate::answer::{Asked, check};
use crate::world::{Answer, GATEWAY, send};

/// Sends the input as a query string.
pub(crate) fn run(data: &[u8]) {
    let Ok(uri) = http::Uri::try_from([b"/v1/query?", data].concat()) else { return };
    let answer = ask(Method::GET, uri.clone(), Bytes::new());
    check(Asked::default(), &answer);
    if answer.status != 200 {
        assert_eq!(answer.status, 400, "{answer:?}");
        return;
    }
    // What asks for another form of the answer, or for a part of it, is no part of the message.
    if uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with(['$', '%'])) {
        return;
    }
    let again = ask(Method::POST, http::Uri::from_static("/v1/create"), answer.body.clone());
    assert_eq!(again.status, 200, "its own JSON is refused: {answer:?} {again:?}");
    assert_eq!(again.body, answer.body, "its own JSON is another message");
}

fn ask(method: Method, uri: http::Uri, body: Bytes) -> Answer {
    let request = Request::builder().method(method).uri(uri).body(()).expect("a request");
    send(GATEWAY.clone(), request, [body])
}
