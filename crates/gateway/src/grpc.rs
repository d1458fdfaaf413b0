//! gRPC framing and the call into the backend, in process and uncompressed.

use std::convert::Infallible;
use std::future::poll_fn;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::Code;
use tonic::body::Body;
use tower::Service;

use crate::direct::Whole;
use crate::failure::Failure;
use crate::headers;
use crate::protocol::take_trailers;
use crate::rule::Route;
use crate::upload::Fault;

pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
pub(crate) const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Compressed flag and length in front of every message.
pub(crate) const PREFIX: usize = 5;

/// Binary metadata is base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message with room for the prefix in front, as an uncompressed gRPC frame.
pub(crate) fn frame(mut frame: Vec<u8>) -> Result<Bytes, Failure> {
    let too_large = |_| {
        Failure::new(
            Code::ResourceExhausted,
            "REQUEST_TOO_LARGE",
            "the request does not fit into one message",
        )
    };
    let length = u32::try_from(frame.len().saturating_sub(PREFIX)).map_err(too_large)?;
    if let Some([flag, bytes @ ..]) = frame.first_chunk_mut::<PREFIX>() {
        *flag = 0;
        *bytes = length.to_be_bytes();
    }
    Ok(frame.into())
}

/// What a call is made with, besides the message.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) metadata: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) timeout: Option<HeaderValue>,
}

/// What a call sends.
#[derive(Debug)]
pub(crate) enum Sent {
    /// One frame.
    One(Bytes),
    /// Frames that are still arriving, and where it will stand if the client makes a mistake in them.
    Many(Body, Fault),
}

/// Calls the route's rpc. An error the backend gives at once is the `Err`.
pub(crate) async fn call<B>(backend: B, route: &Route, context: Context, sent: Sent) -> Result<Reply, Failure>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let (body, whole, fault) = match sent {
        Sent::One(frame) => {
            let whole = Whole(frame.slice(PREFIX.min(frame.len())..));
            (Body::new(Full::new(frame)), Some(whole), None)
        }
        Sent::Many(body, fault) => (body, None, Some(fault)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from(route.grpc_path.clone());
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = context.metadata;
    *request.extensions_mut() = context.extensions;
    if let Some(whole) = whole {
        request.extensions_mut().insert(whole);
    }
    request.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    request.headers_mut().insert(header::TE, TRAILERS);
    if let Some(timeout) = context.timeout {
        request.headers_mut().insert(TIMEOUT, timeout);
    }
    let Ok(response) = called(backend, request).await;
    match fault {
        None => Reply::new(response),
        Some(fault) => {
            let reply = Reply::new(response);
            let mut reply = reply.map_err(|failure| fault.take().unwrap_or(failure))?;
            reply.messages.fault = Some(fault);
            Ok(reply)
        }
    }
}

/// The answer to a request, once the backend is ready for it.
async fn called<B>(mut backend: B, request: Request<Body>) -> Result<Response<Body>, Infallible>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let Ok(()) = poll_fn(|context| backend.poll_ready(context)).await;
    backend.call(request).await
}

/// A backend's answer that did not begin with an error.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Initial metadata.
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Messages,
}

impl Reply {
    pub(crate) fn new(response: Response<Body>) -> Result<Self, Failure> {
        let (mut parts, body) = response.into_parts();
        let mut headers = parts.headers;
        let added = take_trailers(&mut parts.extensions);
        let whole = parts.extensions.remove::<Whole>().map(|Whole(message)| message);
        let mut messages = Messages {
            whole,
            body,
            pending: Bytes::new(),
            trailers: None,
            added,
            fault: None,
            ended: false,
            is_ok: false,
        };
        if headers.contains_key(STATUS) {
            // Trailers-only: the header block is the whole answer.
            headers = ok_or_failure(headers)?;
            messages.is_ok = true;
            messages.ended = true;
        } else if parts.status != StatusCode::OK {
            return Err(from_http(parts.status, headers));
        } else if !headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
            return Err(Failure::broken_backend("its content type is not gRPC's"));
        }
        Ok(Self { headers, messages })
    }

    /// The only message of a unary call, its headers and its trailers.
    pub(crate) async fn into_message(mut self) -> Result<(Bytes, HeaderMap, HeaderMap), Failure> {
        let message = self.messages.next().await?;
        let more = match message {
            Some(_) => self.messages.next().await?,
            None => None,
        };
        let trailers = self.messages.finish()?;
        match (message, more) {
            (Some(message), None) => Ok((message, self.headers, trailers)),
            (None, _) => Err(Failure::broken_backend("a unary call gave no message")),
            (Some(_), Some(_)) => Err(Failure::broken_backend("a unary call gave two messages")),
        }
    }
}

/// The messages of an answer, in order, and its final status.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The only message, where it came without a frame.
    whole: Option<Bytes>,
    body: Body,
    pending: Bytes,
    trailers: Option<HeaderMap>,
    /// Trailing metadata that came beside them.
    added: HeaderMap,
    /// What the client did wrong, whatever the backend made of it.
    fault: Option<Fault>,
    ended: bool,
    /// The headers told already that the call succeeded.
    is_ok: bool,
}

impl Messages {
    /// The next message; `None` after the last, whatever the status. Dropping
    /// the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let next = self.read().await;
        next.map_err(|failure| self.blamed().unwrap_or(failure))
    }

    fn blamed(&self) -> Option<Failure> {
        self.fault.as_ref().and_then(Fault::take)
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(message) = self.whole.take() {
            return Ok(Some(message));
        }
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.ended {
                return if self.pending.is_empty() {
                    Ok(None)
                } else {
                    Err(Failure::broken_backend("its last message is cut off"))
                };
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(status)) => return Err(from_status(&status)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.push(data),
                    Err(frame) => {
                        // Nothing follows them, and a backend that is asked all the same may wait for its client.
                        self.trailers = frame.into_trailers().ok();
                        self.ended = true;
                    }
                },
            }
        }
    }

    /// The trailing metadata of a call that succeeded; to be asked after `next` gave `None`.
    pub(crate) fn finish(&mut self) -> Result<HeaderMap, Failure> {
        if let Some(failure) = self.blamed() {
            return Err(failure);
        }
        match self.trailers.take() {
            None if self.is_ok => Ok(std::mem::take(&mut self.added)),
            Some(trailers) => {
                let mut all = std::mem::take(&mut self.added);
                all.extend(trailers);
                ok_or_failure(all)
            }
            None => Err(Failure::broken_backend("it ended without a status")),
        }
    }

    fn push(&mut self, data: Bytes) {
        // A message most often arrives whole and is passed on without a copy.
        if self.pending.is_empty() {
            self.pending = data;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.pending));
            joined.extend_from_slice(&data);
            self.pending = joined.freeze();
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(&[flag, a, b, c, d]) = self.pending.first_chunk::<PREFIX>() else { return Ok(None) };
        if flag != 0 {
            return Err(Failure::broken_backend("it sent a compressed message unasked"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let Some(end) = PREFIX.checked_add(length).filter(|end| *end <= self.pending.len()) else {
            return Ok(None);
        };
        let mut message = self.pending.split_to(end);
        message.advance(PREFIX);
        Ok(Some(message))
    }
}

pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(CONTENT_TYPE.as_bytes())
}

/// The answer to a gRPC call that reached no service, in the caller's protocol.
pub(crate) fn unimplemented() -> Response<Body> {
    tonic::Status::unimplemented("no such method").into_http()
}

/// The failure a `tonic::Status` stands for.
pub(crate) fn from_status(status: &tonic::Status) -> Failure {
    let metadata = status.metadata().clone().into_headers();
    Failure::backend(status.code(), status.message().to_owned(), details(status.details()), metadata)
}

/// Reads the status of a header block; what is left of it is metadata.
fn ok_or_failure(mut headers: HeaderMap) -> Result<HeaderMap, Failure> {
    match split_status(&mut headers) {
        None => Err(Failure::broken_backend("it ended without a status")),
        Some((Code::Ok, _, _)) => Ok(headers),
        Some((code, message, details_bin)) => {
            Err(Failure::backend(code, message, details(&details_bin), headers))
        }
    }
}

/// Takes code, message and encoded details out of a header block.
pub(crate) fn split_status(headers: &mut HeaderMap) -> Option<(Code, String, Vec<u8>)> {
    let code = headers.remove(STATUS)?.to_str().ok()?.parse::<i32>().ok()?;
    let message = headers.remove(MESSAGE);
    let details = headers.remove(DETAILS);
    let message = message.map(|message| percent_decoded(message.as_bytes())).unwrap_or_default();
    let details = details.and_then(|details| BASE64.decode(details.as_bytes()).ok()).unwrap_or_default();
    Some((Code::from(code), message, details))
}

/// Details that cannot be read are left out: the code and message still stand.
fn details(bytes: &[u8]) -> Vec<prost_types::Any> {
    tonic_types::pb::Status::decode(bytes).map(|status| status.details).unwrap_or_default()
}

/// As gRPC asks of `grpc-message`: bad escapes stay as they are.
pub(crate) fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let escape = match tail.split_first_chunk() {
            Some((&[high, low], after)) if byte == b'%' => hex(high).zip(hex(low)).map(|pair| (pair, after)),
            _ => None,
        };
        if let Some(((high, low), after)) = escape {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The code of an answer that is not gRPC, by the table gRPC clients use.
pub(crate) fn from_http(status: StatusCode, mut metadata: HeaderMap) -> Failure {
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    headers::drop_body(&mut metadata);
    Failure::backend(
        code,
        format!("the service answered with HTTP status {}", status.as_u16()),
        Vec::new(),
        metadata,
    )
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn messages(chunks: Vec<&'static [u8]>) -> Messages {
        let frames =
            chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk))));
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        Messages {
            whole: None,
            body,
            pending: Bytes::new(),
            trailers: None,
            added: HeaderMap::new(),
            fault: None,
            ended: false,
            is_ok: false,
        }
    }

    #[tokio::test]
    async fn messages_survive_any_chunking() {
        let mut read = messages(vec![b"\0\0", b"\0\0\x03a", b"bc\0\0\0\0\0\0\0\0", b"\0\x01", b"d"]);
        let mut texts = Vec::new();
        while let Some(message) = read.next().await.expect("well-formed frames") {
            texts.push(message);
        }
        assert_eq!(texts, [&b"abc"[..], b"", b"d"]);
    }

    #[tokio::test]
    async fn a_truncated_or_compressed_message_is_an_error() {
        for chunks in [vec![&b"\0\0\0\0\x05ab"[..]], vec![&b"\0\0"[..]], vec![&b"\x01\0\0\0\0"[..]]] {
            assert!(messages(chunks).next().await.is_err());
        }
    }

    #[test]
    fn messages_of_a_status_are_decoded() {
        assert_eq!(percent_decoded(b"caf%C3%A9 100%"), "café 100%");
        assert_eq!(percent_decoded(b"%zz%4"), "%zz%4");
    }
}
