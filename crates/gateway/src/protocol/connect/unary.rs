//! Unary calls of Connect: one message as the body, and an HTTP status of its own for every code.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::get::{Query, QueryError};
use super::{check_version, error};
use crate::body;
use crate::failure::Failure;
use crate::grpc::Reply;
use crate::protocol::answer::Outbound;
use crate::protocol::call::{GetQuery, Prefixed, call};
use crate::protocol::classify::{Codec, Wire};
use crate::protocol::compression::{self, Encoding};
use crate::protocol::deadline::Deadline;
use crate::protocol::drain::drain;
use crate::protocol::envelope::{check_length, prefix_for};
use crate::protocol::inbound::Inbound;
use crate::protocol::methods::Method;
use crate::protocol::{Shared, refused};

/// What a trailer's name begins with among the headers.
const TRAILER: &str = "trailer-";

/// One call.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Unary<'c> {
    pub(in crate::protocol) shared: &'c Shared,
    pub(in crate::protocol) method: &'c Method,
}

/// A request as far as it was read.
struct Received {
    codec: Codec,
    encoding: Option<Encoding>,
    message: Bytes,
}

impl Unary<'_> {
    /// Serves a call by POST.
    pub(in crate::protocol) async fn post<B>(
        self,
        backend: B,
        codec: Codec,
        request: Request<Body>,
    ) -> Response<Body>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let (mut parts, body) = request.into_parts();
        let served = match self.begin(&mut parts.headers, &body) {
            Ok((deadline, encoding)) => {
                let read =
                    deadline.limit(body::read(body, None, self.shared.options.max_message_bytes)).await;
                match read.and_then(|read| read.map_err(without_details)) {
                    Ok(message) => {
                        self.call(backend, Received { codec, encoding, message }, parts, deadline).await
                    }
                    Err(status) => Err(status),
                }
            }
            Err(status) => {
                drain(&parts, body).await;
                Err(status)
            }
        };
        served.unwrap_or_else(|status| error::response(&self.shared.codec, &status))
    }

    /// Reads the headers.
    fn begin(self, headers: &mut HeaderMap, body: &Body) -> Result<(Deadline, Option<Encoding>), Status> {
        check_version(headers)?;
        let deadline = Deadline::of_connect(headers)?;
        let encoding = Encoding::of_request(headers, &header::CONTENT_ENCODING).map_err(|mut status| {
            status.metadata_mut().as_mut().insert(header::ACCEPT_ENCODING, compression::SPOKEN);
            status
        })?;
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        check_length(length, self.shared.options.max_message_bytes)?;
        Ok((deadline, encoding))
    }

    /// Serves a call by GET.
    pub(in crate::protocol) async fn get<B>(self, backend: B, request: Request<Body>) -> Response<Body>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let (parts, _) = request.into_parts();
        let mut response = match self.query_and_call(backend, parts).await {
            Ok(response) => response,
            Err(QueryError::Status(status)) => error::response(&self.shared.codec, &status),
            Err(QueryError::UnknownCodec) => refused::unknown_query_codec(self.shared),
        };
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
        response
    }

    async fn query_and_call<B>(self, backend: B, mut parts: Parts) -> Result<Response<Body>, QueryError>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let query: Arc<str> = parts.uri.query().unwrap_or_default().into();
        let Query { codec, encoding, message } = Query::parse(&query)?;
        let deadline = Deadline::of_connect(&mut parts.headers)?;
        check_length(message.len(), self.shared.options.max_message_bytes)?;
        parts.extensions.insert(GetQuery(query));
        Ok(self.call(backend, Received { codec, encoding, message }, parts, deadline).await?)
    }

    async fn call<B>(
        self,
        backend: B,
        received: Received,
        mut parts: Parts,
        deadline: Deadline,
    ) -> Result<Response<Body>, Status>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let Self { shared, method } = self;
        let Received { codec, encoding, message } = received;
        let is_json = codec == Codec::Json;
        let body = if encoding.is_none() && !is_json {
            let prefix = prefix_for(0, message.len())?;
            Body::new(Prefixed([Bytes::copy_from_slice(&prefix), message]))
        } else {
            let json = is_json.then(|| (shared.codec.clone(), method.input));
            let inbound = Inbound { encoding, json, limit: shared.options.max_message_bytes };
            Body::new(Full::new(inbound.message(encoding, &message)?))
        };
        let outbound = Outbound {
            encoding: Encoding::accepted(&parts.headers, &header::ACCEPT_ENCODING),
            json: is_json.then(|| (shared.codec.clone(), method.output)),
            compress_from: shared.options.compress_from,
        };
        deadline.tell(&mut parts.extensions);
        let answered = async {
            let response =
                call(backend, method.path.clone(), Wire::ConnectUnary, &shared.headers, parts, body).await;
            let extensions = response.extensions().clone();
            Reply::new(response)?.into_message().await.map(|reply| (reply, extensions))
        };
        let (reply, extensions) =
            deadline.limit(answered).await?.map_err(|failure| shared.codec.errors.status(failure))?;
        let mut response = self.answer(codec, reply, &outbound)?;
        *response.extensions_mut() = extensions;
        Ok(response)
    }

    fn answer(
        self,
        codec: Codec,
        (message, mut headers, mut trailers): (Bytes, HeaderMap, HeaderMap),
        outbound: &Outbound,
    ) -> Result<Response<Body>, Status> {
        let policy = &self.shared.headers;
        policy.to_headers(&mut headers);
        policy.to_headers(&mut trailers);
        for (name, value) in &trailers {
            if let Ok(name) = HeaderName::try_from(format!("{TRAILER}{name}")) {
                headers.append(name, value.clone());
            }
        }
        let mut body = message;
        if let Some((codec, output)) = &outbound.json {
            let mut text = Vec::with_capacity(body.len() * 2);
            codec.to_json(*output, &body, &mut text)?;
            body = text.into();
        }
        if let Some(encoding) = outbound.encoding_for(body.len()) {
            let mut packed = Vec::with_capacity(body.len() / 2);
            encoding.compress(&body, &mut packed)?;
            headers.insert(header::CONTENT_ENCODING, encoding.header());
            body = packed.into();
        }
        headers.insert(header::CONTENT_TYPE, codec.unary_type());
        let mut response = Response::new(Body::new(Full::new(body)));
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// A failure of the request as a whole: its code says it all.
fn without_details(failure: Failure) -> Status {
    let inner = failure.into_inner();
    Status::new(inner.code, inner.message)
}
