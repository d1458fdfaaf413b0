//! Descriptors from a server itself, by its reflection service.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use futures::stream;
use http::uri::PathAndQuery;
use http::{Request, Response};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use thiserror::Error;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tower::Service;

use crate::descriptors::{DescriptorsError, descriptor_pool_of};

const V1: PathAndQuery =
    PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
/// The same messages under an older name; many servers have nothing else.
const V1_ALPHA: PathAndQuery =
    PathAndQuery::from_static("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a server may send all of its files at once.
const ANSWER_MAX: usize = 64 << 20;
/// More files than any server has, so that a hostile one cannot go on for ever.
const FILES_MAX: usize = 10_000;

/// Why a server's descriptors could not be had from itself.
#[derive(Debug, Error)]
pub enum ReflectError {
    /// A call of the reflection service failed; with UNIMPLEMENTED where the server has none.
    #[error("the reflection service failed: {0}")]
    Call(#[from] Status),
    /// The server answered something else than it was asked.
    #[error("the reflection service did not answer to {0}")]
    Unanswered(String),
    /// A file that another one imports is not known to the server.
    #[error("the reflection service has no file `{0}`, which others import")]
    MissingFile(String),
    /// The files make no pool.
    #[error("the reflection service sent descriptors that cannot be used: {0}")]
    Descriptors(#[from] DescriptorsError),
}

/// Asks a backend, most often a [`Remote`](super::Remote), for the descriptors of all its services: by
/// `grpc.reflection.v1`, or by `v1alpha` where the server has no other.
///
/// Annotations are kept as the server sends them. A server that has lost them has all of its rpcs served, but no route of
/// REST.
pub async fn reflect<B>(backend: B) -> Result<DescriptorPool, ReflectError>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let mut server = Server { grpc: Grpc::new(backend).max_decoding_message_size(ANSWER_MAX), path: V1 };
    let services = match server.services().await {
        Err(ReflectError::Call(status)) if status.code() == Code::Unimplemented => {
            server.path = V1_ALPHA;
            server.services().await?
        }
        services => services?,
    };

    let mut files = Files::default();
    for service in services {
        // A server may name what it cannot describe; all else is still served.
        let found = server.files(MessageRequest::FileContainingSymbol(service.clone())).await?;
        if found.is_none() {
            tracing::warn!(service, "the reflection service cannot describe one of its services");
        }
        files.add(found.unwrap_or_default())?;
    }
    while let Some(name) = files.missing() {
        let found = server.files(MessageRequest::FileByFilename(name.clone())).await?;
        files.add(found.or_else(|| Some(vec![well_known(&name)?])).unwrap_or_default())?;
        // Nobody has it, or it was another one that was sent.
        if !files.raw.contains_key(&name) && !files.give_up(&name) {
            return Err(ReflectError::MissingFile(name));
        }
    }
    Ok(descriptor_pool_of(files.raw.into_values().collect())?)
}

/// A file that every implementation of protobuf has of its own, and may not send.
fn well_known(name: &str) -> Option<Vec<u8>> {
    Some(DescriptorPool::global().get_file_by_name(name)?.encode_to_vec())
}

/// The reflection service of a server.
struct Server<B> {
    grpc: Grpc<B>,
    path: PathAndQuery,
}

impl<B> Server<B>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    async fn services(&mut self) -> Result<Vec<String>, ReflectError> {
        match self.ask(MessageRequest::ListServices("*".to_owned())).await? {
            Some(MessageResponse::ListServicesResponse(list)) => {
                Ok(list.service.into_iter().map(|service| service.name).collect())
            }
            _ => Err(ReflectError::Unanswered("list_services".to_owned())),
        }
    }

    /// The bytes of files; `None` where the server knows none.
    async fn files(&mut self, question: MessageRequest) -> Result<Option<Vec<Vec<u8>>>, ReflectError> {
        let told = format!("{question:?}");
        match self.ask(question).await? {
            Some(MessageResponse::FileDescriptorResponse(files)) => Ok(Some(files.file_descriptor_proto)),
            Some(MessageResponse::ErrorResponse(error)) if Code::from(error.error_code) == Code::NotFound => {
                Ok(None)
            }
            Some(MessageResponse::ErrorResponse(error)) => {
                Err(Status::new(Code::from(error.error_code), error.error_message).into())
            }
            _ => Err(ReflectError::Unanswered(told)),
        }
    }

    /// One question a call, which is as good as many and needs no conversation.
    async fn ask(&mut self, question: MessageRequest) -> Result<Option<MessageResponse>, ReflectError> {
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let mut request = tonic::Request::new(stream::iter([question]));
        request.set_timeout(TIMEOUT);
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        // A backend of this crate is always ready; asking it is what the trait wants.
        match self.grpc.ready().await {
            Ok(()) => {}
            Err(never) => match never {},
        }
        let answer = self.grpc.streaming(request, self.path.clone(), codec).await?;
        Ok(answer.into_inner().message().await?.and_then(|answer| answer.message_response))
    }
}

/// Files by their names, as the server sent them: decoded and encoded again, they would have lost their annotations.
#[derive(Default)]
struct Files {
    raw: BTreeMap<String, Vec<u8>>,
    imported: BTreeSet<String>,
    /// Imported for options alone, as of edition 2024: annotations may be there, but nothing needs them.
    for_options: BTreeSet<String>,
}

/// What a file says of itself and of others.
#[derive(Clone, PartialEq, prost::Message)]
struct Imports {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(string, repeated, tag = "15")]
    option_dependency: Vec<String>,
}

impl Files {
    fn add(&mut self, files: Vec<Vec<u8>>) -> Result<(), ReflectError> {
        for raw in files {
            let file = Imports::decode(&*raw)
                .map_err(|error| Status::internal(format!("a file cannot be read: {error}")))?;
            let name = file.name().to_owned();
            self.imported.extend(file.dependency);
            self.for_options.extend(file.option_dependency);
            self.raw.entry(name).or_insert(raw);
        }
        if self.raw.len() + self.imported.len() + self.for_options.len() > FILES_MAX {
            return Err(Status::resource_exhausted("the server has too many files").into());
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let mut wanted = self.imported.iter().chain(&self.for_options);
        wanted.find(|name| !self.raw.contains_key(*name)).cloned()
    }

    /// Does without a file, if that can be done.
    fn give_up(&mut self, name: &str) -> bool {
        !self.imported.contains(name) && self.for_options.remove(name)
    }
}
