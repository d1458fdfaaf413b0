//! Whole requests, in any protocol or none.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::answer::{Asked, check, has_flags};
use crate::world::{GATEWAY, send};

/// The size of the body's pieces; a header, so that an input is a whole request.
const CHUNK: &str = "x-chunk";

/// The input is a request in the notation of HTTP/1.1, with line feeds only.
pub(crate) fn run(data: &[u8]) {
    let (head, body) = split(data, b"\n\n");
    let (line, headers) = split(head, b"\n");
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(uri)) = (words.next(), words.next()) else { return };
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(uri)) else { return };
    let is_old = words.next() == Some(b"HTTP/1.1");
    let version = if is_old { Version::HTTP_11 } else { Version::HTTP_2 };

    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    for header in headers.split(|byte| *byte == b'\n') {
        let (name, value) = split(header, b": ");
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    }
    let text = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let chunk = text(CHUNK).parse().unwrap_or(body.len()).max(1);
    let asked = Asked {
        has_deadline: ["grpc-timeout", "connect-timeout-ms", "x-server-timeout"]
            .iter()
            .any(|name| request.headers().contains_key(*name)),
        has_flags: has_flags(&text("content-type"), body),
        is_head: request.method() == Method::HEAD,
    };
    let answer = send(GATEWAY.clone(), request, body.chunks(chunk).map(Bytes::copy_from_slice));
    check(asked, &answer);
}

/// What is before a separator and behind it; all is before one that is not there.
pub(crate) fn split<'d>(data: &'d [u8], separator: &[u8]) -> (&'d [u8], &'d [u8]) {
    match data.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (&data[..at], &data[at + separator.len()..]),
        None => (data, &[]),
    }
}
