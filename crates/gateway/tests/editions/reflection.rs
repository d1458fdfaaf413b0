//! A reflection service that sends files as the compiler wrote them.

use std::collections::BTreeMap;

use agentrouter_gateway::remote::{ReflectError, Remote, reflect};
use futures::stream::{BoxStream, StreamExt as _};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server::{ServerReflection, ServerReflectionServer};
use tonic_reflection::pb::v1::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};

use crate::upstream::{Upstream, with_backend};
use crate::{before, descriptors, pool, serves};

const SHELVES: (&str, &str) = ("gateway.editions.v1.Shelves", "editions_test.proto");
const LAMPS: (&str, &str) = ("gateway.editions.v2.LampService", "editions_2024_test.proto");

#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Files {
    /// By their names.
    raw: BTreeMap<String, Vec<u8>>,
    /// The services, each with its file.
    services: Vec<(&'static str, &'static str)>,
}

impl Files {
    fn answer(&self, question: Option<MessageRequest>) -> MessageResponse {
        let file = match question {
            Some(MessageRequest::ListServices(_)) => {
                let named =
                    self.services.iter().map(|(name, _)| ServiceResponse { name: (*name).to_owned() });
                return MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: named.collect(),
                });
            }
            Some(MessageRequest::FileContainingSymbol(name)) => {
                let service = self.services.iter().find(|(service, _)| *service == name);
                service.and_then(|(_, file)| self.raw.get(*file))
            }
            Some(MessageRequest::FileByFilename(name)) => self.raw.get(&name),
            _ => None,
        };
        match file {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.clone()],
            }),
            None => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: i32::from(Code::NotFound),
                error_message: "not here".to_owned(),
            }),
        }
    }
}

#[tonic::async_trait]
impl ServerReflection for Files {
    type ServerReflectionInfoStream = BoxStream<'static, Result<ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let files = self.clone();
        let answers = request.into_inner().map(move |question| {
            let message_response = Some(files.answer(question?.message_request));
            Ok(ServerReflectionResponse { message_response, ..ServerReflectionResponse::default() })
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn describing(services: &[(&'static str, &'static str)], hidden: &str) -> Upstream {
    let set = Set::decode(descriptors()).expect("a set");
    let named = |raw: Vec<u8>| (FileDescriptorProto::decode(&*raw).expect("a file").name().to_owned(), raw);
    let raw = set.file.into_iter().map(named).filter(|(name, _)| name != hidden).collect();
    let reflection = ServerReflectionServer::new(Files { raw, services: services.to_vec() });
    Upstream::start(with_backend(Routes::new(reflection), pool()))
}

/// A4 #66.
#[tokio::test]
async fn editions_are_served_by_reflection() {
    let upstream = describing(&[SHELVES, LAMPS], "");
    let remote = Remote::connect(&upstream.uri()).expect("an address");
    serves(&before(&upstream, &reflect(remote).await.expect("a pool"))).await;
}

/// A4 #66: what is imported for options alone is asked for, and not needed.
#[tokio::test]
async fn imports_for_options() {
    const ANNOTATIONS: &str = "google/api/annotations.proto";
    for (hidden, is_there) in [("", true), (ANNOTATIONS, false)] {
        let upstream = describing(&[LAMPS], hidden);
        let remote = Remote::connect(&upstream.uri()).expect("an address");
        let pool = reflect(remote).await.expect("a pool");
        assert!(pool.get_service_by_name(LAMPS.0).is_some());
        assert_eq!(pool.get_file_by_name(ANNOTATIONS).is_some(), is_there, "{hidden}");
    }
    let upstream = describing(&[SHELVES, LAMPS], ANNOTATIONS);
    let remote = Remote::connect(&upstream.uri()).expect("an address");
    match reflect(remote).await {
        Err(ReflectError::MissingFile(name)) => assert_eq!(name, ANNOTATIONS),
        other => panic!("{other:?}"),
    }
}
