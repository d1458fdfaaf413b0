//! Compression of REST answers: a body that is there as a whole, or one that goes on, message by message.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;

use super::accept::Codings;
use crate::protocol::{Compressor, Encoding};

/// Types whose content is compressed by itself, by their beginning.
const PACKED: [&str; 12] = [
    "image/",
    "video/",
    "audio/",
    "font/woff",
    "application/zip",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
    "application/x-7z-compressed",
    "application/x-xz",
    "application/x-bzip",
    "application/vnd.openxmlformats",
];

/// Whether compression could make the answer smaller: its content is there, and is not packed already.
pub(crate) fn is_useful<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let has_content = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    has_content
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !is_packed(headers)
        && !forbids_transforming(headers)
}

fn is_packed(headers: &HeaderMap) -> bool {
    let Some(media) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media = media.trim_start().as_bytes();
    let begins =
        |with: &str| media.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    // Drawings are text.
    media != b"application/json" && !begins("image/svg") && PACKED.iter().any(|packed| begins(packed))
}

fn forbids_transforming(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-transform"))
}

/// The encoding for a useful answer. Short ones are sent as they are, where the client takes that.
pub(crate) fn choose(codings: Codings, length: Option<u64>, from: usize) -> Option<Encoding> {
    let is_short = length.is_some_and(|length| length < u64::try_from(from).unwrap_or(u64::MAX));
    codings.best.filter(|_| !is_short || !codings.identity)
}

/// Compresses the body.
pub(crate) async fn compress(response: Response<Body>, encoding: Encoding) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let body = if body.size_hint().exact().is_some() {
        // It is in memory, and so this waits for nothing.
        let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        match packed(encoding, &whole) {
            Ok(packed) => Body::new(Full::new(Bytes::from(packed))),
            Err(error) => {
                tracing::error!(%error, encoding = encoding.name(), "an answer could not be compressed");
                return Response::from_parts(parts, Body::new(Full::new(whole)));
            }
        }
    } else {
        match Compressor::new(encoding) {
            Ok(compressor) => Body::new(Packing { body, compressor: Some(compressor), trailers: None }),
            Err(error) => {
                tracing::error!(%error, encoding = encoding.name(), "a stream could not be compressed");
                return Response::from_parts(parts, body);
            }
        }
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, encoding.header());
    Response::from_parts(parts, body)
}

fn packed(encoding: Encoding, whole: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(encoding)?;
    compressor.write_all(whole)?;
    compressor.finish()
}

/// A body that is compressed as it comes. Each piece can be read as soon as it arrives.
struct Packing {
    body: Body,
    /// None after the end.
    compressor: Option<Compressor>,
    /// What comes after the last piece.
    trailers: Option<HeaderMap>,
}

impl Packing {
    fn piece(&mut self, data: &[u8]) -> io::Result<Bytes> {
        let Some(compressor) = &mut self.compressor else { return Ok(Bytes::new()) };
        compressor.write_all(data)?;
        compressor.flush()?;
        Ok(compressor.take().into())
    }

    fn end(&mut self) -> Option<io::Result<Bytes>> {
        self.compressor.take().map(|compressor| compressor.finish().map(Bytes::from))
    }
}

impl http_body::Body for Packing {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let broken = |error: io::Error| tonic::Status::internal(error.to_string());
        let this = &mut *self;
        if this.compressor.is_none() {
            return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let data = match frame {
            // Cut off, and for the client to see: what is compressed gets no end either.
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => this.piece(&data),
                Err(frame) => {
                    this.trailers = frame.into_trailers().ok();
                    this.end().unwrap_or_else(|| Ok(Bytes::new()))
                }
            },
            None => match this.end() {
                Some(end) => end,
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(data.map(Frame::data).map_err(broken)))
    }
}

/// What answers depend on most often, with `accept-encoding` and without.
const COMMON: [(&str, &str); 2] = [
    ("accept", "accept, accept-encoding"),
    ("accept, x-goog-fieldmask", "accept, x-goog-fieldmask, accept-encoding"),
];

/// Adds to the headers that an answer depends on.
pub(crate) fn vary(headers: &mut HeaderMap, name: &'static str) {
    let mut values = headers.get_all(header::VARY).iter();
    let (Some(there), more) = (values.next(), values.next()) else {
        headers.insert(header::VARY, HeaderValue::from_static(name));
        return;
    };
    let common = COMMON.iter().find(|(without, _)| there == without && name == "accept-encoding");
    if let (Some((_, with)), None) = (common, more) {
        headers.insert(header::VARY, HeaderValue::from_static(with));
        return;
    }
    let there = headers.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok());
    let there: Vec<&str> = there.flat_map(|list| list.split(',')).map(str::trim).collect();
    // A few names, of which one may be there already.
    if !name.split(", ").all(|name| there.iter().any(|item| item.eq_ignore_ascii_case(name))) {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A8 #90.
    #[test]
    fn what_answers_depend_on_is_added() {
        let varied = |there: &[&'static str], name| {
            let mut headers = HeaderMap::new();
            headers.extend(there.iter().map(|value| (header::VARY, HeaderValue::from_static(value))));
            vary(&mut headers, name);
            let values = headers.get_all(header::VARY).iter().map(|value| value.to_str().expect("text"));
            values.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(varied(&[], "accept"), "accept");
        assert_eq!(varied(&["accept"], "accept-encoding"), "accept, accept-encoding");
        assert_eq!(varied(&["Accept, Accept-Encoding"], "accept-encoding"), "Accept, Accept-Encoding");
        assert_eq!(varied(&["accept", "cookie"], "accept-encoding"), "accept; cookie; accept-encoding");
        assert_eq!(
            varied(&["x-goog-fieldmask, accept"], "accept, x-goog-fieldmask"),
            "x-goog-fieldmask, accept"
        );
        assert_eq!(varied(&["accept"], "accept, x-goog-fieldmask"), "accept; accept, x-goog-fieldmask");
    }

    /// A8 #90.
    #[test]
    fn packed_content_is_left_alone() {
        let useful = |content_type: &'static str| {
            let mut response = Response::new(());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            is_useful(&response)
        };
        for content_type in ["application/json", "text/event-stream", "image/svg+xml", "text/csv"] {
            assert!(useful(content_type), "{content_type}");
        }
        for content_type in ["image/png", "application/zip", "video/mp4", "Application/GZIP"] {
            assert!(!useful(content_type), "{content_type}");
        }
        let mut encoded = Response::new(());
        encoded.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        assert!(!is_useful(&encoded));
        let mut fixed = Response::new(());
        fixed.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-transform"));
        assert!(!is_useful(&fixed));
    }
}
