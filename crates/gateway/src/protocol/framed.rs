//! Calls whose messages are in envelopes: gRPC, gRPC-Web, and Connect's streams.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::Full;

use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::answer::{Answer, Ending, Outbound};
use super::call::call;
use super::classify::{Codec, Wire};
use super::compression::{self, Encoding};
use super::deadline::Deadline;
use super::drain::{self, drain};
use super::inbound::{Fault, How, Inbound, Incoming};
use super::methods::Method;
use super::{Shared, connect, text, trailers};
use crate::failure::Failure;
use crate::grpc::{STATUS, from_http, is_grpc};
use crate::json::MessageId;

/// The headers in which a protocol names the encodings of messages.
#[derive(Debug, Clone)]
struct Names {
    sent: HeaderName,
    accepted: HeaderName,
}

impl Names {
    fn of(wire: Wire) -> Self {
        if wire.is_connect() {
            Self {
                sent: HeaderName::from_static("connect-content-encoding"),
                accepted: HeaderName::from_static("connect-accept-encoding"),
            }
        } else {
            Self {
                sent: HeaderName::from_static("grpc-encoding"),
                accepted: HeaderName::from_static("grpc-accept-encoding"),
            }
        }
    }
}

/// What the headers tell beside the protocol.
#[derive(Debug)]
struct Begun {
    deadline: Deadline,
    inbound: Inbound,
    outbound: Outbound,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framed<'c> {
    pub(super) shared: &'c Shared,
    pub(super) method: &'c Method,
    pub(super) wire: Wire,
    pub(super) codec: Codec,
}

impl Framed<'_> {
    /// Serves the call.
    pub(super) async fn serve<B>(self, backend: B, request: Request<Body>) -> Response<Body>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let answer_type = self.wire.answer_type(self.codec, request.headers());
        let (mut parts, body) = request.into_parts();
        let served = match self.begin(&mut parts.headers) {
            Ok(begun) => self.attempt(backend, parts, body, begun, answer_type.clone()).await,
            Err(status) => {
                drain(&parts, body).await;
                Err(status)
            }
        };
        served.unwrap_or_else(|status| refusal(self.shared, self.wire, answer_type, &status))
    }

    /// Reads the headers.
    fn begin(self, headers: &mut HeaderMap) -> Result<Begun, Status> {
        let Self { shared, method, wire, codec } = self;
        let deadline = if wire.is_connect() {
            connect::check_version(headers)?;
            Deadline::of_connect(headers)?
        } else {
            Deadline::of_grpc(headers)?
        };
        let names = Names::of(wire);
        let encoding = Encoding::of_request(headers, &names.sent).map_err(|mut status| {
            status.metadata_mut().as_mut().insert(names.accepted.clone(), compression::SPOKEN);
            status
        })?;
        let json = |message: MessageId| (codec == Codec::Json).then(|| (shared.codec.clone(), message));
        let outbound = Outbound {
            encoding: Encoding::accepted(headers, &names.accepted),
            json: json(method.output),
            compress_from: shared.options.compress_from,
        };
        let limit = shared.options.max_message_bytes;
        let inbound = Inbound { encoding, json: json(method.input), limit };
        Ok(Begun { deadline, inbound, outbound })
    }

    async fn attempt<B>(
        self,
        backend: B,
        mut parts: Parts,
        mut body: Body,
        begun: Begun,
        answer_type: HeaderValue,
    ) -> Result<Response<Body>, Status>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let Self { shared, method, wire, .. } = self;
        let Begun { deadline, inbound, outbound } = begun;
        let how = How { is_text: wire == Wire::GrpcWebText, is_drained: drain::is_needed(&parts) };
        let fault = method.is_client_streaming.then(Fault::default);
        let body = if let Some(fault) = &fault {
            Body::new(Incoming::new(body, how, inbound, Fault::clone(fault)))
        } else {
            let read = deadline.limit(Incoming::single(&mut body, how, inbound)).await;
            match read.and_then(|message| message) {
                Ok(message) => Body::new(Full::new(message)),
                Err(status) => {
                    drain(&parts, body).await;
                    return Err(status);
                }
            }
        };
        deadline.tell(&mut parts.extensions);
        let response =
            deadline.limit(call(backend, method.path.clone(), wire, &shared.headers, parts, body)).await?;
        self.answer(response, outbound, deadline, fault, answer_type)
    }

    /// The backend's answer as the client reads it.
    fn answer(
        self,
        response: Response<Body>,
        outbound: Outbound,
        deadline: Deadline,
        fault: Option<Fault>,
        answer_type: HeaderValue,
    ) -> Result<Response<Body>, Status> {
        let Self { shared, wire, .. } = self;
        let (mut parts, body) = response.into_parts();
        let trailers = trailers::take(&mut parts.extensions);
        let mut headers = parts.headers;
        let content_type = headers.remove(header::CONTENT_TYPE);
        if headers.contains_key(STATUS) {
            if let Some(status) = fault.as_ref().and_then(|fault| fault.get()) {
                return Err(status.clone());
            }
            let mut response = match wire {
                Wire::Grpc => {
                    headers.extend(trailers);
                    trailers::guard(&mut headers);
                    headers.insert(header::CONTENT_TYPE, answer_type);
                    let mut response = Response::new(Body::empty());
                    *response.headers_mut() = headers;
                    response
                }
                _ => ended(shared, wire, answer_type, trailers::outcome(headers)),
            };
            *response.extensions_mut() = parts.extensions;
            return Ok(response);
        }
        if parts.status != StatusCode::OK {
            return Err(shared.codec.errors.status(from_http(parts.status, headers)));
        }
        if !content_type.as_ref().is_some_and(is_grpc) {
            return Err(shared
                .codec
                .errors
                .status(Failure::broken_backend("its content type is not gRPC's")));
        }
        if wire != Wire::Grpc {
            shared.headers.to_headers(&mut headers);
        }
        headers.insert(header::CONTENT_TYPE, answer_type);
        if let Some(used) = outbound.encoding {
            headers.insert(Names::of(wire).sent, used.header());
        }
        let body = Answer {
            source: Some(body),
            messages: outbound.into(),
            ending: match wire {
                Wire::Grpc => Ending::Grpc,
                Wire::GrpcWeb => Ending::GrpcWeb,
                Wire::GrpcWebText => Ending::GrpcWebText,
                Wire::ConnectUnary | Wire::ConnectStream => Ending::Connect(shared.codec.clone()),
            },
            trailers,
            timer: deadline.timer(),
            fault,
        };
        let mut response = Response::new(Body::new(body));
        *response.headers_mut() = headers;
        *response.extensions_mut() = parts.extensions;
        Ok(response)
    }
}

/// The answer to a call that failed before its first message.
pub(super) fn refusal(
    shared: &Shared,
    wire: Wire,
    answer_type: HeaderValue,
    status: &Status,
) -> Response<Body> {
    if wire != Wire::Grpc {
        return ended(shared, wire, answer_type, Err(status.clone()));
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    *headers = trailers::of_status(status);
    trailers::guard(headers);
    headers.insert(header::CONTENT_TYPE, answer_type);
    response
}

/// An answer that has nothing but its end.
fn ended(
    shared: &Shared,
    wire: Wire,
    answer_type: HeaderValue,
    outcome: Result<HeaderMap, Status>,
) -> Response<Body> {
    let end: Bytes = if wire.is_connect() {
        connect::end_of_stream(&shared.codec, outcome)
    } else {
        let block = match outcome {
            Ok(mut trailers) => {
                trailers.insert(STATUS, HeaderValue::from_static("0"));
                trailers
            }
            Err(status) => trailers::of_status(&status),
        };
        trailers::web_envelope(&block)
    };
    let end = if wire == Wire::GrpcWebText { text::encode(&end) } else { end };
    let mut response = Response::new(Body::new(Full::new(end)));
    response.headers_mut().insert(header::CONTENT_TYPE, answer_type);
    response
}
