//! The suite's service, as an ordinary service of tonic.

use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::answer;
use crate::proto::conformance_service_server::ConformanceService;
use crate::proto::{
    BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse, ConformancePayload,
    IdempotentUnaryRequest, IdempotentUnaryResponse, ServerStreamRequest, ServerStreamResponse, UnaryRequest,
    UnaryResponse, UnimplementedRequest, UnimplementedResponse,
};
use crate::seen::{pack, request_info};
use crate::streams::{self, Turns};

/// Does what each request asks of it.
#[derive(Debug)]
pub(crate) struct Conformance;

#[tonic::async_trait]
impl ConformanceService for Conformance {
    type ServerStreamStream = BoxStream<'static, Result<ServerStreamResponse, Status>>;
    type BidiStreamStream = BoxStream<'static, Result<BidiStreamResponse, Status>>;

    async fn unary(&self, request: Request<UnaryRequest>) -> Result<Response<UnaryResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let seen = request_info(&metadata, &extensions, vec![pack("UnaryRequest", &request)]);
        let payload = answer::unary(request.response_definition, seen).await?;
        Ok(map(payload, |payload| UnaryResponse { payload: Some(payload) }))
    }

    async fn idempotent_unary(
        &self,
        request: Request<IdempotentUnaryRequest>,
    ) -> Result<Response<IdempotentUnaryResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let seen = request_info(&metadata, &extensions, vec![pack("IdempotentUnaryRequest", &request)]);
        let payload = answer::unary(request.response_definition, seen).await?;
        Ok(map(payload, |payload| IdempotentUnaryResponse { payload: Some(payload) }))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<ClientStreamRequest>>,
    ) -> Result<Response<ClientStreamResponse>, Status> {
        let (metadata, extensions, mut stream) = request.into_parts();
        let (mut definition, mut requests) = (None, Vec::new());
        while let Some(request) = stream.message().await? {
            requests.push(pack("ClientStreamRequest", &request));
            if requests.len() == 1 {
                definition = request.response_definition;
            }
        }
        let seen = request_info(&metadata, &extensions, requests);
        let payload = answer::unary(definition, seen).await?;
        Ok(map(payload, |payload| ClientStreamResponse { payload: Some(payload) }))
    }

    async fn server_stream(
        &self,
        request: Request<ServerStreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let seen = request_info(&metadata, &extensions, vec![pack("ServerStreamRequest", &request)]);
        let definition = request.response_definition.unwrap_or_default();
        let (headers, trailers) = (definition.response_headers.clone(), definition.response_trailers.clone());
        let answers = streams::payloads(definition, seen, None)
            .map(|payload| payload.map(|payload| ServerStreamResponse { payload: Some(payload) }));
        answer::with_metadata(answers.boxed(), &headers, &trailers)
    }

    async fn bidi_stream(
        &self,
        request: Request<Streaming<BidiStreamRequest>>,
    ) -> Result<Response<Self::BidiStreamStream>, Status> {
        let (metadata, extensions, mut stream) = request.into_parts();
        let Some(first) = stream.message().await? else {
            return Ok(Response::new(futures::stream::empty().boxed()));
        };
        let mut requests = vec![pack("BidiStreamRequest", &first)];
        let turns = if first.full_duplex {
            Some(Turns { requests: stream })
        } else {
            while let Some(request) = stream.message().await? {
                requests.push(pack("BidiStreamRequest", &request));
            }
            None
        };
        let seen = request_info(&metadata, &extensions, requests);
        let definition = first.response_definition.unwrap_or_default();
        let (headers, trailers) = (definition.response_headers.clone(), definition.response_trailers.clone());
        let answers = streams::payloads(definition, seen, turns)
            .map(|payload| payload.map(|payload| BidiStreamResponse { payload: Some(payload) }));
        answer::with_metadata(answers.boxed(), &headers, &trailers)
    }

    async fn unimplemented(
        &self,
        _: Request<UnimplementedRequest>,
    ) -> Result<Response<UnimplementedResponse>, Status> {
        Err(Status::unimplemented("this rpc is there to be missing"))
    }
}

/// The same response around another message.
fn map<T>(response: Response<ConformancePayload>, wrap: impl FnOnce(ConformancePayload) -> T) -> Response<T> {
    let (metadata, payload, extensions) = response.into_parts();
    Response::from_parts(metadata, wrap(payload), extensions)
}
